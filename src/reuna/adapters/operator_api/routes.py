"""The operator's API of the cloud: for certificates of role ``operator``, and for people who signed in.

PUT  /v1/blobs/{digest}             bundle or initial model
GET  /v1/blobs/{digest}             a model
POST /v1/runs                       a run's spec (JSON); 202 when a second person has to agree
GET  /v1/runs                       the newest
GET  /v1/runs/{run}                 its state
DELETE /v1/runs/{run}               stop it; 202 when a second person has to agree
GET  /v1/runs/{run}/asked           what it was begun with
POST /v1/runs/{run}/resume          go on where it ended early; 202 when a second person has to agree
POST /v1/runs/{run}/retry           the same inputs as a new run; 202 when a second person has to agree
GET  /v1/runs/{run}/events?after=N  its timeline
GET  /v1/builds                     builds that are kept
PUT  /v1/builds/{digest}            a build; GET it
PUT  /v1/builds/{digest}/provenance what its builder claims; GET it
POST /v1/checks                     ask every node whether it is ready for such a run (JSON)
GET  /v1/checks/{run}               what they say so far
GET  /v1/triggers                   what begins runs by itself: schedules, drift, nodes that join
PUT  /v1/triggers/{name}            begin one again by itself
DELETE /v1/triggers/{name}          no more
POST /v1/rollouts                   begin a rollout (JSON); 202 when a second person has to agree
GET  /v1/rollouts                   the newest
GET  /v1/rollouts/{rollout}?after=N&wait=S  where it is; waits for another mark than N
POST /v1/rollouts/{rollout}         pause, resume or abort it
GET  /v1/rollouts/{rollout}/events?after=N  its timeline
POST /v1/rollout-plans              what a rollout would be (JSON); nothing begins
POST /v1/rollbacks                  bring a project back to what it was before its newest rollout
GET  /v1/nodes                      nodes heard of
GET  /v1/fleet                      its fogs and their edges
GET  /v1/releases?after=N&wait=S    what nodes may take and which hold it; waits for another mark than N
GET  /v1/watch                      what nodes watch, and the alarms
POST /v1/alarms/{id}                somebody has seen it (JSON)
GET  /metrics                       the same in Prometheus' text format
POST /v1/session                    sign in; GET who I am; DELETE sign out
POST /v1/sign-ins                   begin to sign in at the identity provider; GET which that is
POST /v1/sign-ins/{ticket}          what it sent somebody back with; as POST /v1/session
GET  /v1/people                     accounts
POST /v1/releases                   ask for a second person's word on a release; always 202
GET  /v1/proposals                  what waits for a second person, and what was decided
POST /v1/proposals/{id}             a second person's word
GET  /v1/audit?after=N&last=M       the audit trail
GET  /openapi.json                  these in the words of OpenAPI (`reuna.wire.openapi`)

Module `guard` stands before them; `sessions` is where sessions begin and end.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Protocol

import msgspec
from aiohttp import web

from reuna.adapters.operator_api.console import add_console
from reuna.adapters.operator_api.guard import (
    MAX_WAIT_S,
    Guard,
    Known,
    Pace,
    count,
    errors_as_json,
    few_words,
    in_thread,
    read,
    with_headers,
)
from reuna.adapters.operator_api.metrics import CONTENT_TYPE, metrics_of
from reuna.adapters.operator_api.rollouts import RolloutDesk, Rollouts
from reuna.adapters.operator_api.sessions import SessionDesk, SignIns
from reuna.core.errors import AccountProblem, PortInUse
from reuna.core.records import KeptBuild, ReleaseAsked, RunSpec
from reuna.core.rollout import RolloutSpec
from reuna.core.trigger import Trigger
from reuna.trust.people import Caller, Proposal, Session
from reuna.wire.openapi import openapi

BEGIN = "runs.begin"  #: a proposal of the cloud itself, see `reuna.cloud.surroundings`
RESUME = "runs.resume"  #: a proposal to go on with a run; whether it needs two is asked as for beginning one
MAX_NOTE = 2_000  #: characters
MAX_BLOB = 1 << 30  #: bytes; a model or bundle an operator may put


class Builds(Protocol):
    """Builds by their digest; blocking. `reuna.cloud.builds` implements it."""

    def put(self, digest: str, data: bytes) -> None: ...
    def put_provenance(self, digest: str, envelope: bytes) -> None: ...
    def get(self, digest: str) -> bytes: ...
    def provenance(self, digest: str) -> bytes: ...
    def listed(self) -> list[KeptBuild]: ...


class Monitor(Protocol):
    """What nodes watch; `reuna.cloud.monitor` implements it."""

    async def answer(self) -> dict[str, Any]: ...
    async def acknowledge(self, number: str, who: str, note: str) -> dict[str, Any]: ...


class Actions(Protocol):
    """What the API can do; the coordinator implements it."""

    @property
    def builds(self) -> Builds: ...
    @property
    def rollouts(self) -> Rollouts: ...
    @property
    def monitor(self) -> Monitor: ...

    def put_blob(self, data: bytes, digest: str) -> None: ...
    def get_blob(self, digest: str) -> bytes: ...
    async def submit(self, spec: RunSpec) -> None: ...
    async def check(self, spec: RunSpec) -> None: ...
    def checked(self, run: str) -> dict[str, Any]: ...
    async def status(self, run: str) -> dict[str, Any]: ...
    async def stop(self, run: str) -> None: ...
    async def resume(self, run: str) -> None: ...
    async def again(self, run: str, name: str) -> RunSpec: ...
    async def asked(self, run: str) -> RunSpec: ...
    async def runs(self) -> list[dict[str, Any]]: ...
    def timeline(self, run: str, after: int) -> list[dict[str, Any]]: ...
    def nodes(self) -> dict[str, float]: ...
    def fleet(self) -> dict[str, Any]: ...
    async def releases(self, after: int, wait_s: float) -> dict[str, Any]: ...
    async def begin(self, why: str, what: RunSpec) -> None: ...
    async def put_trigger(self, trigger: Trigger) -> None: ...
    def drop_trigger(self, name: str) -> None: ...
    def triggered(self) -> list[dict[str, Any]]: ...


class Reception(Protocol):
    """Who people are and what needs two of them; blocking. `reuna.cloud.reception` implements it."""

    def sign_in(self, name: str, password: str, address: str) -> tuple[str, Session, Caller]: ...
    def caller(self, token: str) -> tuple[Caller, Session]: ...
    def check_certificate(self, name: str, serial: int) -> None: ...
    def sign_out(self, caller: Caller, token: str) -> None: ...
    def people(self) -> list[dict[str, Any]]: ...
    def needs_two(self, action: str) -> bool: ...
    def propose(self, caller: Caller, action: str, summary: str, content: bytes) -> Proposal: ...
    def proposals(self) -> list[dict[str, Any]]: ...
    def judge(self, caller: Caller, id: str, approve: bool, digest: str) -> tuple[Proposal, bytes]: ...
    def decided(self, proposal: Proposal) -> None: ...
    def note(self, who: str, via: str, what: str, verdict: str, **more: str) -> None: ...
    def audit(self, after: int, last: int = 0) -> list[dict[str, Any]]: ...


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second person's word; ``digest`` is that of the proposal they have seen."""

    approve: bool
    digest: str


class Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody who has seen an alarm says of it."""

    note: str = ""


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of the new run."""

    run: str


class ApiServer:
    """A running API; `stop` ends it."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    async def stop(self) -> None:
        await self._runner.cleanup()


async def serve_api(
    actions: Actions,
    reception: Reception,
    sign_ins: SignIns | None,
    host: str,
    ports: dict[int, ssl.SSLContext],
) -> ApiServer:
    """Listen on each port with its own TLS; one that asks for no certificate is for people.

    ``sign_ins``: those at an identity provider; None: there is none. Raises `PortInUse`.
    """
    runner = web.AppRunner(api_app(actions, reception, sign_ins), access_log=None)
    await runner.setup()
    for port, tls in ports.items():
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as error:
            await runner.cleanup()
            raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return ApiServer(runner)


def api_app(actions: Actions, reception: Reception, sign_ins: SignIns | None = None) -> web.Application:
    """The routes over ``actions``."""
    guard = Guard(reception)
    pace = Pace(guard)
    app = web.Application(middlewares=[with_headers, errors_as_json, pace.hold], client_max_size=MAX_BLOB)
    desk, sessions = _Desk(actions, reception), SessionDesk(reception, sign_ins)
    rollouts = RolloutDesk(actions, reception)
    for method, path, action, work in (
        ("PUT", "/v1/blobs/{digest}", "models.write", desk.put_blob),
        ("GET", "/v1/blobs/{digest}", "models.read", desk.get_blob),
        ("POST", "/v1/runs", "runs.submit", desk.submit),
        ("GET", "/v1/runs", "runs.read", desk.runs),
        ("GET", "/v1/runs/{run}", "runs.read", desk.status),
        ("DELETE", "/v1/runs/{run}", "runs.stop", desk.stop),
        ("GET", "/v1/runs/{run}/events", "runs.read", desk.timeline),
        ("GET", "/v1/runs/{run}/asked", "runs.read", desk.asked),
        ("POST", "/v1/runs/{run}/resume", "runs.submit", desk.resume),
        ("POST", "/v1/runs/{run}/retry", "runs.submit", desk.retry),
        ("GET", "/v1/builds", "models.read", desk.builds),
        ("PUT", "/v1/builds/{digest}", "models.write", desk.put_build),
        ("GET", "/v1/builds/{digest}", "models.read", desk.get_build),
        ("PUT", "/v1/builds/{digest}/provenance", "models.write", desk.put_provenance),
        ("GET", "/v1/builds/{digest}/provenance", "models.read", desk.get_provenance),
        ("POST", "/v1/checks", "runs.check", desk.check),
        ("GET", "/v1/checks/{run}", "runs.read", desk.checked),
        ("GET", "/v1/triggers", "runs.read", desk.triggers),
        ("PUT", "/v1/triggers/{name}", "runs.submit", desk.put_trigger),
        ("DELETE", "/v1/triggers/{name}", "runs.submit", desk.drop_trigger),
        ("POST", "/v1/rollouts", "rollouts.start", rollouts.start),
        ("GET", "/v1/rollouts", "rollouts.read", rollouts.listed),
        ("GET", "/v1/rollouts/{rollout}", "rollouts.read", rollouts.status),
        ("POST", "/v1/rollouts/{rollout}", "rollouts.order", rollouts.order),
        ("GET", "/v1/rollouts/{rollout}/events", "rollouts.read", rollouts.timeline),
        ("POST", "/v1/rollout-plans", "rollouts.plan", rollouts.plan),
        ("POST", "/v1/rollbacks", "rollouts.order", rollouts.back),
        ("GET", "/v1/nodes", "nodes.read", desk.nodes),
        ("GET", "/v1/fleet", "nodes.read", desk.fleet),
        ("GET", "/v1/releases", "nodes.read", desk.releases),
        ("GET", "/v1/watch", "nodes.read", desk.watch),
        ("POST", "/v1/alarms/{id}", "alarms.acknowledge", desk.acknowledge),
        ("GET", "/metrics", "nodes.read", desk.metrics),
        ("GET", "/v1/session", "self", sessions.who),
        ("DELETE", "/v1/session", "self", sessions.sign_out),
        ("GET", "/v1/people", "people.read", desk.people),
        ("POST", "/v1/releases", "releases.propose", desk.propose_release),
        ("GET", "/v1/proposals", "proposals.read", desk.proposals),
        ("POST", "/v1/proposals/{id}", "proposals.decide", desk.decide),
        ("GET", "/v1/audit", "audit.read", desk.audit),
        ("GET", "/openapi.json", "self", desk.described),
    ):
        app.router.add_route(method, path, guard.around(action, work))
    app.router.add_post("/v1/session", sessions.sign_in)
    app.router.add_get("/v1/sign-ins", sessions.provider)
    app.router.add_post("/v1/sign-ins", sessions.begin)
    app.router.add_post("/v1/sign-ins/{ticket}", sessions.finish)
    add_console(app)
    return app


class _Desk:
    """The work behind the routes."""

    def __init__(self, actions: Actions, reception: Reception) -> None:
        self._actions = actions
        self._reception = reception
        self._deciding = asyncio.Lock()

    async def put_blob(self, request: web.Request, _known: Known) -> web.Response:
        data, digest = await request.read(), request.match_info["digest"]
        await in_thread(lambda: self._actions.put_blob(data, digest))
        return web.json_response({})

    async def get_blob(self, request: web.Request, _known: Known) -> web.Response:
        digest = request.match_info["digest"]
        return web.Response(body=await in_thread(lambda: self._actions.get_blob(digest)))

    async def submit(self, request: web.Request, known: Known) -> web.Response:
        data = await request.read()
        return await self._begin(known, read(RunSpec, data, "run"), data)

    async def _begin(self, known: Known, spec: RunSpec, data: bytes) -> web.Response:
        """``data``: the spec as it was sent, which is what a second person's word is about."""
        if not self._reception.needs_two("runs.submit"):
            await self._actions.submit(spec)
            return web.json_response({})
        before = f", again after {spec.retries}" if spec.retries else ""
        summary = f"run {spec.run} of {spec.project}: {spec.rounds} rounds, code {spec.bundle[:12]}{before}"
        return await self._propose(known, "runs.submit", summary, data)

    async def retry(self, request: web.Request, known: Known) -> web.Response:
        name = read(Retry, await few_words(request), "name of a new run").run
        spec = await self._actions.again(request.match_info["run"], name)
        return await self._begin(known, spec, msgspec.json.encode(spec))

    async def resume(self, request: web.Request, known: Known) -> web.Response:
        run = request.match_info["run"]
        if not self._reception.needs_two("runs.submit"):
            await self._actions.resume(run)
            return web.json_response({})
        spec = await self._actions.asked(run)  # what is not there needs nobody's word
        summary = f"go on with run {run} of {spec.project}: {spec.rounds} rounds, code {spec.bundle[:12]}"
        return await self._propose(known, RESUME, summary, run.encode())

    async def asked(self, request: web.Request, _known: Known) -> web.Response:
        spec = await self._actions.asked(request.match_info["run"])
        return web.json_response(msgspec.to_builtins(spec))

    async def builds(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(msgspec.to_builtins(await in_thread(self._actions.builds.listed)))

    async def put_build(self, request: web.Request, _known: Known) -> web.Response:
        data, digest = await request.read(), request.match_info["digest"]
        await in_thread(lambda: self._actions.builds.put(digest, data))
        return web.json_response({})

    async def get_build(self, request: web.Request, _known: Known) -> web.Response:
        digest = request.match_info["digest"]
        return web.Response(body=await in_thread(lambda: self._actions.builds.get(digest)))

    async def put_provenance(self, request: web.Request, _known: Known) -> web.Response:
        data, digest = await request.read(), request.match_info["digest"]
        await in_thread(lambda: self._actions.builds.put_provenance(digest, data))
        return web.json_response({})

    async def get_provenance(self, request: web.Request, _known: Known) -> web.Response:
        digest = request.match_info["digest"]
        return web.Response(body=await in_thread(lambda: self._actions.builds.provenance(digest)))

    async def check(self, request: web.Request, _known: Known) -> web.Response:
        await self._actions.check(read(RunSpec, await request.read(), "check"))
        return web.json_response({})

    async def checked(self, request: web.Request, _known: Known) -> web.Response:
        return web.json_response(self._actions.checked(request.match_info["run"]))

    async def _propose(self, known: Known, action: str, summary: str, content: bytes) -> web.Response:
        proposal = await in_thread(lambda: self._reception.propose(known.caller, action, summary, content))
        return web.json_response({"proposal": proposal.id}, status=202)

    async def runs(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(await self._actions.runs())

    async def status(self, request: web.Request, _known: Known) -> web.Response:
        return web.json_response(await self._actions.status(request.match_info["run"]))

    async def stop(self, request: web.Request, known: Known) -> web.Response:
        run = request.match_info["run"]
        if not self._reception.needs_two("runs.stop"):
            await self._actions.stop(run)
            return web.json_response({})
        await self._actions.status(run)  # what is not there needs nobody's word
        return await self._propose(known, "runs.stop", f"stop run {run}", run.encode())

    async def timeline(self, request: web.Request, _known: Known) -> web.Response:
        return web.json_response(self._actions.timeline(request.match_info["run"], count(request, "after")))

    async def triggers(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(self._actions.triggered())

    async def put_trigger(self, request: web.Request, _known: Known) -> web.Response:
        trigger = read(Trigger, await few_words(request), "trigger")
        if trigger.name != request.match_info["name"]:
            raise AccountProblem("the trigger has another name than its path", "Use one name for both.")
        if self._reception.needs_two("runs.submit") and not trigger.approval:
            raise AccountProblem(
                "here a second person agrees to each run, so none is begun without",
                "Say `approval = true`; or take runs.submit out of four_eyes.",
            )
        await self._actions.put_trigger(trigger)
        return web.json_response({})

    async def drop_trigger(self, request: web.Request, _known: Known) -> web.Response:
        self._actions.drop_trigger(request.match_info["name"])
        return web.json_response({})

    async def nodes(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(self._actions.nodes())

    async def fleet(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(await in_thread(self._actions.fleet))

    async def releases(self, request: web.Request, _known: Known) -> web.Response:
        seconds = min(count(request, "wait"), MAX_WAIT_S)
        return web.json_response(await self._actions.releases(count(request, "after"), seconds))

    async def watch(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(await self._actions.monitor.answer())

    async def acknowledge(self, request: web.Request, known: Known) -> web.Response:
        note = read(Seen, await few_words(request), "note").note[:MAX_NOTE]
        number = request.match_info["id"]
        alarm = await self._actions.monitor.acknowledge(number, known.caller.name, note)
        return web.json_response(alarm)

    async def metrics(self, _request: web.Request, _known: Known) -> web.Response:
        text = metrics_of(await self._actions.monitor.answer(), self._actions.nodes())
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def people(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(await in_thread(self._reception.people))

    async def propose_release(self, request: web.Request, known: Known) -> web.Response:
        data = await few_words(request)
        return await self._propose(
            known, "releases.make", read(ReleaseAsked, data, "release").summary(), data
        )

    async def proposals(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(await in_thread(self._reception.proposals))

    async def decide(self, request: web.Request, known: Known) -> web.Response:
        word = read(Decision, await few_words(request), "decision")
        number = request.match_info["id"]
        async with self._deciding:
            proposal, content = await in_thread(
                lambda: self._reception.judge(known.caller, number, word.approve, word.digest)
            )
            if word.approve:  # first the effect, which is one however often it is asked for
                await self._do(proposal.action, content)
            await in_thread(lambda: self._reception.decided(proposal))
        return web.json_response(msgspec.to_builtins(proposal))

    async def _do(self, action: str, content: bytes) -> None:
        """What was proposed, once a second person agreed; a release is made by who asked, with that word."""
        if action == "runs.stop":
            await self._actions.stop(content.decode())
        elif action == RESUME:
            await self._actions.resume(content.decode())
        elif action == "runs.submit":
            await self._actions.submit(read(RunSpec, content, "run"))
        elif action == BEGIN:
            spec = read(RunSpec, content, "run")
            await self._actions.begin(spec.why, spec)
        elif action == "rollouts.start":
            await self._actions.rollouts.start(read(RolloutSpec, content, "rollout"))

    async def audit(self, request: web.Request, _known: Known) -> web.Response:
        after, last = count(request, "after"), count(request, "last")
        return web.json_response(await in_thread(lambda: self._reception.audit(after, last)))

    async def described(self, _request: web.Request, _known: Known) -> web.Response:
        return web.json_response(openapi())
