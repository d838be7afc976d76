"""The operator's API of the cloud: for certificates of role ``operator``, and for people who signed in.

PUT  /v1/blobs/{digest}             bundle or initial model
GET  /v1/blobs/{digest}             a model
POST /v1/runs                       a run's spec (JSON); 202 when a second person has to agree
GET  /v1/runs/{run}                 its state
DELETE /v1/runs/{run}               end it for good
GET  /v1/runs/{run}/events?after=N  its timeline
GET  /v1/nodes                      nodes heard of
GET  /v1/fleet                      its fogs and their edges
POST /v1/session                    sign in; GET who I am; DELETE sign out
GET  /v1/people                     accounts
GET  /v1/proposals                  what waits for a second person, and what was decided
POST /v1/proposals/{id}             a second person's word
GET  /v1/audit?after=N              the audit trail
GET  /openapi.json                  these in the words of OpenAPI (`reuna.wire.openapi`)

A session's token comes as ``Authorization: Bearer`` or as a cookie; with the cookie every request
that changes something also needs the session's ``X-CSRF-Token``.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from aiohttp import web

from reuna.adapters.tls import identity_of
from reuna.core.errors import (
    BlobNotFound,
    NotSignedIn,
    PermissionDenied,
    ReunaError,
    RunNotFound,
    TooMany,
    UserError,
)
from reuna.core.foreign import UNREADABLE
from reuna.core.records import RunSpec
from reuna.trust.people import CERTIFICATE_ROLES, Caller, Proposal, Session, may
from reuna.wire.openapi import openapi

log = logging.getLogger("reuna.api")
MAX_BLOB = 1 << 30  #: bytes; a model or bundle an operator may put
MAX_WORDS = 8_192  #: bytes of a name, password or decision
COOKIE = "__Host-reuna"
BURST, A_SECOND = 200, 50.0  #: requests of one address that has no certificate
ADDRESSES = 4096
SAFE = ("GET", "HEAD")
HEADERS = {
    "Strict-Transport-Security": "max-age=31536000",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
T = TypeVar("T")
M = TypeVar("M", bound=msgspec.Struct)


class Actions(Protocol):
    """What the API can do; the coordinator implements it."""

    def put_blob(self, data: bytes, digest: str) -> None: ...
    def get_blob(self, digest: str) -> bytes: ...
    async def submit(self, spec: RunSpec) -> None: ...
    async def status(self, run: str) -> dict[str, Any]: ...
    async def stop(self, run: str) -> None: ...
    def timeline(self, run: str, after: int) -> list[dict[str, Any]]: ...
    def nodes(self) -> dict[str, float]: ...
    def fleet(self) -> dict[str, Any]: ...


class Reception(Protocol):
    """Who people are and what needs two of them; blocking. `reuna.cloud.reception` implements it."""

    def sign_in(self, name: str, password: str, address: str) -> tuple[str, Session, Caller]: ...
    def caller(self, token: str) -> tuple[Caller, Session]: ...
    def sign_out(self, caller: Caller, token: str) -> None: ...
    def people(self) -> list[dict[str, Any]]: ...
    def needs_two(self, action: str) -> bool: ...
    def propose(self, caller: Caller, action: str, summary: str, content: bytes) -> Proposal: ...
    def proposals(self) -> list[dict[str, Any]]: ...
    def judge(self, caller: Caller, id: str, approve: bool, digest: str) -> tuple[Proposal, bytes]: ...
    def decided(self, proposal: Proposal) -> None: ...
    def note(self, who: str, via: str, what: str, verdict: str, **more: str) -> None: ...
    def audit(self, after: int) -> list[dict[str, Any]]: ...


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody signs in with."""

    name: str
    password: str


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second person's word; ``digest`` is that of the proposal they have seen."""

    approve: bool
    digest: str


class _Known(NamedTuple):
    """Who asks, and their session's token if they have one."""

    caller: Caller
    token: str = ""
    csrf: str = ""


class ApiServer:
    """A running API; `stop` ends it."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner

    async def stop(self) -> None:
        await self._runner.cleanup()


async def serve_api(
    actions: Actions, reception: Reception, host: str, ports: dict[int, ssl.SSLContext]
) -> ApiServer:
    """Listen on each port with its own TLS; one that asks for no certificate is for people."""
    runner = web.AppRunner(api_app(actions, reception), access_log=None)
    await runner.setup()
    for port, tls in ports.items():
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
    return ApiServer(runner)


Work = Callable[[web.Request, _Known], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def api_app(actions: Actions, reception: Reception) -> web.Application:
    """The routes over ``actions``."""
    pace = _Pace()
    app = web.Application(middlewares=[_headers, _errors_as_json, pace.hold], client_max_size=MAX_BLOB)
    desk = _Desk(actions, reception)
    guard = _Guard(reception)
    for method, path, action, work in (
        ("PUT", "/v1/blobs/{digest}", "models.write", desk.put_blob),
        ("GET", "/v1/blobs/{digest}", "models.read", desk.get_blob),
        ("POST", "/v1/runs", "runs.submit", desk.submit),
        ("GET", "/v1/runs/{run}", "runs.read", desk.status),
        ("DELETE", "/v1/runs/{run}", "runs.submit", desk.stop),
        ("GET", "/v1/runs/{run}/events", "runs.read", desk.timeline),
        ("GET", "/v1/nodes", "nodes.read", desk.nodes),
        ("GET", "/v1/fleet", "nodes.read", desk.fleet),
        ("GET", "/v1/session", "self", desk.who),
        ("DELETE", "/v1/session", "self", desk.sign_out),
        ("GET", "/v1/people", "people.read", desk.people),
        ("GET", "/v1/proposals", "proposals.read", desk.proposals),
        ("POST", "/v1/proposals/{id}", "proposals.decide", desk.decide),
        ("GET", "/v1/audit", "audit.read", desk.audit),
        ("GET", "/openapi.json", "self", desk.described),
    ):
        app.router.add_route(method, path, guard.around(action, work))
    app.router.add_post("/v1/session", desk.sign_in)
    return app


class _Guard:
    """Before each route: who asks, may they, is it really they; and the trail."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception

    def around(self, action: str, work: Work) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            known = await self._known(request)
            noted = request.method not in SAFE or not action.endswith(".read")
            if not may(known.caller, action):
                await self._note(known, request, action, "denied")
                raise PermissionDenied(f"{known.caller.name} may not do that", _NEEDS.format(action=action))
            self._check_origin(request, known)
            if noted and action != "self":
                await self._note(known, request, action, "allowed")
            try:
                return await work(request, known)
            except ReunaError as error:
                if noted and action != "self":
                    await self._note(known, request, action, f"failed {error.code}")
                raise

        return handler

    async def _known(self, request: web.Request) -> _Known:
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        if certificate:
            return _Known(_operator(request, certificate))
        token = _token(request)
        if not token:
            raise NotSignedIn("nobody is signed in here")
        caller, session = await _in_thread(lambda: self._reception.caller(token))
        return _Known(caller, token, session.csrf)

    @staticmethod
    def _check_origin(request: web.Request, known: _Known) -> None:
        """A browser sends the cookie by itself, so that it alone proves nothing about who asks."""
        if request.method in SAFE or COOKIE not in request.cookies or "Authorization" in request.headers:
            return
        origin = request.headers.get("Origin", f"https://{request.host}")
        given = request.headers.get("X-CSRF-Token", "")
        if origin != f"https://{request.host}" or not hmac.compare_digest(
            given.encode(), known.csrf.encode()
        ):
            raise PermissionDenied("this request did not come from our own page", "Send X-CSRF-Token.")

    async def _note(self, known: _Known, request: web.Request, action: str, verdict: str) -> None:
        caller, target, address = known.caller, request.path[:200], str(request.remote)
        await _in_thread(
            lambda: self._reception.note(
                caller.name, caller.via, action, verdict, target=target, address=address
            )
        )


_NEEDS = "It needs a role that may {action}; an admin gives roles: `reuna people role`."


def _operator(request: web.Request, certificate: Any) -> Caller:
    identity = identity_of(certificate)
    if identity.role != "operator":
        log.warning(
            "refused %s to %s %s", certificate.get("subjectAltName", ()), request.method, request.path
        )
        raise PermissionDenied("this API is for certificates of role operator")
    return Caller(identity.name, CERTIFICATE_ROLES, "certificate")


def _token(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")


class _Desk:
    """The work behind the routes."""

    def __init__(self, actions: Actions, reception: Reception) -> None:
        self._actions = actions
        self._reception = reception
        self._deciding = asyncio.Lock()

    async def put_blob(self, request: web.Request, _known: _Known) -> web.Response:
        self._actions.put_blob(await request.read(), request.match_info["digest"])
        return web.json_response({})

    async def get_blob(self, request: web.Request, _known: _Known) -> web.Response:
        return web.Response(body=self._actions.get_blob(request.match_info["digest"]))

    async def submit(self, request: web.Request, known: _Known) -> web.Response:
        data = await request.read()
        spec = _read(RunSpec, data, "run")
        if not self._reception.needs_two("runs.submit"):
            await self._actions.submit(spec)
            return web.json_response({})
        summary = f"run {spec.run} of {spec.project}: {spec.rounds} rounds, code {spec.bundle[:12]}"
        proposal = await _in_thread(
            lambda: self._reception.propose(known.caller, "runs.submit", summary, data)
        )
        return web.json_response({"proposal": proposal.id}, status=202)

    async def status(self, request: web.Request, _known: _Known) -> web.Response:
        return web.json_response(await self._actions.status(request.match_info["run"]))

    async def stop(self, request: web.Request, _known: _Known) -> web.Response:
        await self._actions.stop(request.match_info["run"])
        return web.json_response({})

    async def timeline(self, request: web.Request, _known: _Known) -> web.Response:
        return web.json_response(self._actions.timeline(request.match_info["run"], _after(request)))

    async def nodes(self, _request: web.Request, _known: _Known) -> web.Response:
        return web.json_response(self._actions.nodes())

    async def fleet(self, _request: web.Request, _known: _Known) -> web.Response:
        return web.json_response(await _in_thread(self._actions.fleet))

    async def sign_in(self, request: web.Request) -> web.Response:
        if certificate := request.transport and request.transport.get_extra_info("peercert"):
            _operator(request, certificate)
        given = _read(Credentials, await _few_words(request), "name and password")
        token, session, caller = await _in_thread(
            lambda: self._reception.sign_in(given.name, given.password, str(request.remote))
        )
        response = web.json_response({**_who(caller, session.csrf), "token": token})
        response.set_cookie(COOKIE, token, secure=True, httponly=True, samesite="Strict", path="/")
        return response

    async def who(self, _request: web.Request, known: _Known) -> web.Response:
        return web.json_response(_who(known.caller, known.csrf))

    async def sign_out(self, _request: web.Request, known: _Known) -> web.Response:
        await _in_thread(lambda: self._reception.sign_out(known.caller, known.token))
        response = web.json_response({})
        response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    async def people(self, _request: web.Request, _known: _Known) -> web.Response:
        return web.json_response(await _in_thread(self._reception.people))

    async def proposals(self, _request: web.Request, _known: _Known) -> web.Response:
        return web.json_response(await _in_thread(self._reception.proposals))

    async def decide(self, request: web.Request, known: _Known) -> web.Response:
        word = _read(Decision, await _few_words(request), "decision")
        number = request.match_info["id"]
        async with self._deciding:
            proposal, content = await _in_thread(
                lambda: self._reception.judge(known.caller, number, word.approve, word.digest)
            )
            if word.approve:  # first the run, which begins once however often it is asked for
                await self._actions.submit(_read(RunSpec, content, "run"))
            await _in_thread(lambda: self._reception.decided(proposal))
        return web.json_response(msgspec.to_builtins(proposal))

    async def audit(self, request: web.Request, _known: _Known) -> web.Response:
        after = _after(request)
        return web.json_response(await _in_thread(lambda: self._reception.audit(after)))

    async def described(self, _request: web.Request, _known: _Known) -> web.Response:
        return web.json_response(openapi())


def _who(caller: Caller, csrf: str) -> dict[str, Any]:
    return {"name": caller.name, "roles": sorted(caller.roles), "via": caller.via, "csrf": csrf}


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


async def _few_words(request: web.Request) -> bytes:
    """A small body, of which no byte is read beyond. Raises `UserError`."""
    data = await request.content.read(MAX_WORDS + 1)
    while len(data) <= MAX_WORDS and not request.content.at_eof():
        data += await request.content.read(MAX_WORDS + 1 - len(data))
    if len(data) > MAX_WORDS:
        raise UserError(f"more than {MAX_WORDS} bytes", "Compare with docs/reference/api.md.")
    return data


def _read(kind: type[M], data: bytes, what: str) -> M:
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise UserError(f"this is no {what}: {error}", "Compare with docs/reference/api.md.") from error


def _after(request: web.Request) -> int:
    text = request.query.get("after", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise UserError("`after` is no number of events", "Compare with docs/reference/api.md.")
    return int(text)


class _Pace:
    """Requests that an address without a certificate may make: a bucket that fills up again."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    @property
    def hold(self) -> Any:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not (request.transport and request.transport.get_extra_info("peercert")):
                self._take(str(request.remote), time.monotonic())
            return await handler(request)

        return middleware

    def _take(self, address: str, now: float) -> None:
        """Raises `TooMany`."""
        left, at = self._left.pop(address, (float(BURST), now))
        left = min(left + A_SECOND * (now - at), float(BURST))
        self._left[address] = max(left - 1.0, 0.0), now
        if len(self._left) > ADDRESSES:
            self._left.pop(next(iter(self._left)))
        if left < 1.0:
            raise TooMany("too many requests")


@web.middleware
async def _headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(HEADERS)
        raise
    response.headers.update(HEADERS)
    return response


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ReunaError as error:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 422)
        return web.json_response(error_body(error), status=status)


_STATUS: tuple[tuple[type[ReunaError], int], ...] = (
    (BlobNotFound, 404),
    (RunNotFound, 404),
    (NotSignedIn, 401),
    (PermissionDenied, 403),
    (TooMany, 429),
)


def error_body(error: ReunaError) -> dict[str, str]:
    """An error as the client raises it again."""
    return {"code": error.code, "message": error.message, "next_step": error.next_step}
