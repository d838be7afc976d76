"""What the gates of a run's build say of what its nodes measured, as soon as the run has ended.

For people to see, at once and whoever began the run. A release is made elsewhere, where the catalogue
and the keys are, and judged there anew: only there is the champion known. So gates that compare with it
(`max_drop`) are left to that place, and are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from reuna.core.contract import contract
from reuna.core.contract_report import contract_reports
from reuna.core.errors import BlobNotFound, Corrupted, SettingsError, Untrusted
from reuna.core.foreign import UNREADABLE
from reuna.core.gates import Gate
from reuna.core.records import RunSpec
from reuna.loop.plan import edges_of
from reuna.loop.release import judge_run
from reuna.loop.validate import site_rows
from reuna.wire.build import PLAN, decode

CHAMPION = "is judged where the release is made, against the champion"


class Builds(Protocol):
    """Builds by their digest."""

    def get(self, digest: str) -> bytes: ...


class Gated(msgspec.Struct, frozen=True):
    """What a build's ``plan.json`` says of its gates."""

    gates: tuple[Gate, ...] = ()
    machines: dict[str, tuple[str, ...]] = {}
    offline: float = 0.0


def judged(
    spec: RunSpec,
    outcome: Mapping[str, Any],
    timeline: Sequence[Mapping[str, Any]],
    enrolled: Mapping[str, str],
    builds: Builds,
) -> dict[str, Any]:
    """The judgement, and under ``left`` the gates that are not judged here; {} for a build without gates.

    ``enrolled``: node -> its site. An edge that is not in it is a site of its own. A build that cannot be
    read makes it open, and never ends the run. Blocking.
    """
    try:
        gated = _gated(builds.get(spec.build))
        result = _result(spec, outcome, timeline, enrolled)
    except (BlobNotFound, Corrupted, SettingsError, Untrusted) as error:
        return {"run": spec.run, "decision": "open", "why": f"{error.code} {error.message}"}
    now = [gate for gate in gated.gates if gate.limit != "max_drop"]
    left = [f"{gate.metric} {gate.limit}" for gate in gated.gates if gate not in now]
    if not now:
        return {"run": spec.run, "decision": "open", "why": CHAMPION, "left": left} if left else {}
    told = judge_run(now, result, machines=gated.machines, offline=gated.offline).as_dict()
    return {**told, "left": left} if left else told


def _gated(build: bytes) -> Gated:
    try:
        return msgspec.json.decode(decode(build).parts[PLAN], type=Gated)
    except UNREADABLE as error:
        raise Untrusted("malformed", f"{PLAN} in the build cannot be read: {error}") from error


def _result(
    spec: RunSpec,
    outcome: Mapping[str, Any],
    timeline: Sequence[Mapping[str, Any]],
    enrolled: Mapping[str, str],
) -> dict[str, Any]:
    """As much of a ``result.json`` as gates look at."""
    sites: dict[str, tuple[str, ...]] = {}
    for edge in edges_of(spec):
        site = enrolled.get(edge) or edge
        sites[site] = (*sites.get(site, ()), edge)
    rows = site_rows(sites, {"federated": outcome.get("federated", {})})
    return {
        "run": spec.run,
        "project": spec.project,
        "task": spec.task,
        "sites": [row.as_dict() for row in rows],
        "contract": contract_reports(timeline, contract(spec.settings)),
    }
