"""An operator's calls to the cloud's API, over mutual TLS with the standard library."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from copy import copy
from typing import Any
from urllib.parse import quote

import msgspec

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.tls import client_context
from reuna.core.errors import ReunaError, Unreachable
from reuna.core.foreign import told
from reuna.core.records import KeptBuild, ReleaseAsked, RunSpec
from reuna.core.rollout import Order, Ordered, RollBack, RolloutSpec
from reuna.core.trigger import Trigger
from reuna.fleet.layout import Fleet
from reuna.wire import digest_bytes

TIMEOUT_S = 30.0


class Operator:
    """Blocking client; one connection a call, so that a restarted cloud is no special case.

    Who asks again and again does so over one connection, see `staying`.
    """

    _line: http.client.HTTPSConnection | None = None

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext, headers: Mapping[str, str] | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._headers = dict(headers or {})

    @classmethod
    def of(cls, fleet: Fleet) -> Operator:
        """The operator whose key lies beside the fleet's certificate authority."""
        pair = CertificateAuthority.load(fleet.folder / "ca").pair("operator", "operator")
        tls = client_context(pair.certificate, pair.key, pair.authority)
        return cls(fleet.setting("listen.host"), fleet.setting("listen.api_port"), tls)

    @contextmanager
    def staying(self) -> Iterator[Operator]:
        """The same over one connection, for one call at a time.

        A call on a connection that has ended raises `Unreachable`, and the next one opens it again.
        """
        asking = copy(self)
        asking._line = self._connection()
        with closing(asking._line):
            yield asking

    def put_blob(self, data: bytes) -> str:
        """Hand over a bundle or model; its digest."""
        digest = digest_bytes(data)
        self._call("PUT", f"/v1/blobs/{digest}", data)
        return digest

    def get_blob(self, digest: str) -> bytes:
        """A model's bytes. Raises `BlobNotFound`."""
        return self._call("GET", f"/v1/blobs/{digest}")

    def submit(self, spec: RunSpec) -> str:
        """Begin a run; or the proposal's id when a second person has to agree first, else empty.

        Raises `PlanError` and whatever else the cloud refuses with.
        """
        answer: dict[str, str] = json.loads(self._call("POST", "/v1/runs", msgspec.json.encode(spec)))
        return answer.get("proposal", "")

    def status(self, run: str) -> dict[str, Any]:
        """``{"state": "running" | "done" | "failed", ...}``."""
        found: dict[str, Any] = self._json(f"/v1/runs/{run}")
        return found

    def check(self, spec: RunSpec) -> None:
        """Ask every node whether it is ready for such a run. Raises `PlanError`, `TooMany`."""
        self._call("POST", "/v1/checks", msgspec.json.encode(spec))

    def checked(self, run: str) -> dict[str, Any]:
        """``state`` of a check, its ``edges``, the ``members`` that have answered. Raises `RunNotFound`."""
        found: dict[str, Any] = self._json(f"/v1/checks/{run}")
        return found

    def runs(self) -> list[dict[str, Any]]:
        """The newest runs: name, project, task, rounds asked for, edges, state, begin (epoch s)."""
        found: list[dict[str, Any]] = self._json("/v1/runs")
        return found

    def stop(self, run: str) -> str:
        """Stop a run; or the proposal's id when a second person has to agree, else empty.

        Raises `RunNotFound`.
        """
        answer: dict[str, str] = json.loads(self._call("DELETE", f"/v1/runs/{run}"))
        return answer.get("proposal", "")

    def asked(self, run: str) -> RunSpec:
        """What a run was begun with. Raises `RunNotFound`."""
        return msgspec.json.decode(self._call("GET", f"/v1/runs/{run}/asked"), type=RunSpec)

    def resume(self, run: str) -> str:
        """Let a run that ended early go on; or the proposal's id when a second person has to agree, else ''.

        Raises `RunNotFound`, `RunProblem`.
        """
        answer: dict[str, str] = json.loads(self._call("POST", f"/v1/runs/{run}/resume"))
        return answer.get("proposal", "")

    def retry(self, run: str, name: str) -> str:
        """Begin a run of that name with the inputs of another; or the proposal's id, else ''.

        Raises `RunNotFound`, `RunProblem`, `BlobNotFound`.
        """
        words = json.dumps({"run": name}).encode()
        answer: dict[str, str] = json.loads(self._call("POST", f"/v1/runs/{run}/retry", words))
        return answer.get("proposal", "")

    def builds(self) -> list[KeptBuild]:
        """Builds that the cloud keeps, the newest first."""
        return msgspec.json.decode(self._call("GET", "/v1/builds"), type=list[KeptBuild])

    def put_build(self, digest: str, data: bytes) -> None:
        """Hand over a build. Raises `Corrupted`, `Untrusted`."""
        self._call("PUT", f"/v1/builds/{digest}", data)

    def get_build(self, digest: str) -> bytes:
        """A build's bytes. Raises `BlobNotFound`, `Corrupted`."""
        return self._call("GET", f"/v1/builds/{digest}")

    def put_provenance(self, digest: str, envelope: bytes) -> None:
        """Hand over what a build's builder claims. Raises `BlobNotFound`, `Untrusted`."""
        self._call("PUT", f"/v1/builds/{digest}/provenance", envelope)

    def get_provenance(self, digest: str) -> bytes:
        """What a build's builder claims. Raises `BlobNotFound`."""
        return self._call("GET", f"/v1/builds/{digest}/provenance")

    def timeline(self, run: str, after: int) -> list[dict[str, Any]]:
        """Events of a run from the ``after``-th on."""
        found: list[dict[str, Any]] = self._json(f"/v1/runs/{run}/events?after={after}")
        return found

    def propose_release(self, asked: ReleaseAsked) -> str:
        """Ask for a second person's word on a release; the proposal's id."""
        answer: dict[str, str] = json.loads(self._call("POST", "/v1/releases", msgspec.json.encode(asked)))
        return answer["proposal"]

    def proposals(self) -> list[dict[str, Any]]:
        """What waits for a second person, and what was decided."""
        found: list[dict[str, Any]] = self._json("/v1/proposals")
        return found

    def nodes(self) -> dict[str, float]:
        """Nodes the cloud has heard of."""
        found: dict[str, float] = self._json("/v1/nodes")
        return found

    def fleet(self) -> tuple[str, dict[str, tuple[str, ...]], dict[str, str]]:
        """The fleet's name, the edges of each of its fogs, and the fogs over fogs."""
        found = self._json("/v1/fleet")
        fogs = {fog: tuple(edges) for fog, edges in found["fogs"].items()}
        return found["fleet"], fogs, found.get("above", {})

    def releases(self, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
        """What nodes may take and which hold it; waits so long for another mark than ``after``."""
        found: dict[str, Any] = self._json(f"/v1/releases?after={after}&wait={wait_s}")
        return found

    def plan_rollout(self, spec: RolloutSpec) -> dict[str, Any]:
        """What a rollout would be; nothing begins. Raises `RolloutProblem`."""
        found: dict[str, Any] = json.loads(self._call("POST", "/v1/rollout-plans", msgspec.json.encode(spec)))
        return found

    def start_rollout(self, spec: RolloutSpec) -> str:
        """Begin a rollout; or the proposal's id when a second person has to agree first, else empty.

        Raises `RolloutProblem`.
        """
        answer: dict[str, str] = json.loads(self._call("POST", "/v1/rollouts", msgspec.json.encode(spec)))
        return answer.get("proposal", "")

    def rollouts(self) -> list[dict[str, Any]]:
        """The newest rollouts: name, project, version, phase, wave of how many, begin (epoch s)."""
        found: list[dict[str, Any]] = self._json("/v1/rollouts")
        return found

    def rollout(self, name: str, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
        """Where a rollout is; waits so long for another mark than ``after``. Raises `RunNotFound`."""
        found: dict[str, Any] = self._json(f"/v1/rollouts/{quote(name, safe='')}?after={after}&wait={wait_s}")
        return found

    def rollout_events(self, name: str, after: int = 0) -> list[dict[str, Any]]:
        """What happened in a rollout, from the ``after``-th event on."""
        found: list[dict[str, Any]] = self._json(f"/v1/rollouts/{quote(name, safe='')}/events?after={after}")
        return found

    def order_rollout(self, name: str, order: Order) -> None:
        """Pause, resume or abort a rollout. Raises `RunNotFound`, `RolloutProblem`."""
        self._call("POST", f"/v1/rollouts/{quote(name, safe='')}", msgspec.json.encode(Ordered(order)))

    def roll_back(self, project: str, name: str) -> dict[str, str]:
        """Bring a project back; which ``rollout``, and what it ``did``. Raises as `order_rollout`."""
        asked = msgspec.json.encode(RollBack(project, name))
        found: dict[str, str] = json.loads(self._call("POST", "/v1/rollbacks", asked))
        return found

    def watch(self) -> dict[str, Any]:
        """What each node says of its watch, and the alarms."""
        found: dict[str, Any] = self._json("/v1/watch")
        return found

    def acknowledge(self, alarm: str, note: str) -> dict[str, Any]:
        """Say that somebody has seen an alarm. Raises `AlarmNotFound`."""
        path, body = f"/v1/alarms/{quote(alarm, safe='')}", msgspec.json.encode({"note": note})
        found: dict[str, Any] = json.loads(self._call("POST", path, body))
        return found

    def triggers(self) -> list[dict[str, Any]]:
        """What begins runs by itself, schedules too, and how each stands."""
        found: list[dict[str, Any]] = self._json("/v1/triggers")
        return found

    def put_trigger(self, trigger: Trigger) -> None:
        """Begin a run again by itself. Raises `RunNotFound`, `PlanError`, `AccountProblem`."""
        self._call("PUT", f"/v1/triggers/{trigger.name}", msgspec.json.encode(trigger))

    def drop_trigger(self, name: str) -> None:
        """No more. Raises `RunNotFound`."""
        self._call("DELETE", f"/v1/triggers/{name}")

    def _json(self, path: str) -> Any:
        return json.loads(self._call("GET", path))

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls, timeout=TIMEOUT_S)

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = self._line or self._connection()
        whole = False
        try:
            connection.request(method, path, body, self._headers)
            response = connection.getresponse()
            data = response.read()
            whole = True
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the cloud at {self._host}:{self._port} does not answer: {error}") from error
        finally:
            if not (whole and self._line):
                connection.close()
        if response.status >= 400:
            raise _error(response.status, data)
        return data


def _error(status: int, data: bytes) -> ReunaError:
    try:
        body = json.loads(data)
        code, message, next_step = body["code"], body["message"], body["next_step"]
    except (ValueError, KeyError, TypeError):
        if status in (404, 405):
            older = "It may run an older version of Reuna."
            return Unreachable("the cloud does not know what it is asked", older)
        return Unreachable(f"the cloud answered with status {status}")
    return told(code, message, next_step) or Unreachable(message, next_step)
