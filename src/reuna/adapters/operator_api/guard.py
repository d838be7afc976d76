"""What stands before each route of the operator's API: who asks, may they, how often, and the trail.

A session's token comes as ``Authorization: Bearer`` or as a cookie; with the cookie every request
that changes something also needs the session's ``X-CSRF-Token``.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from aiohttp import web

from reuna.adapters.tls import identity_of
from reuna.core.errors import (
    AccountProblem,
    AlarmNotFound,
    BlobNotFound,
    NotSignedIn,
    PermissionDenied,
    ReunaError,
    RunNotFound,
    TooMany,
    Unreachable,
)
from reuna.core.foreign import UNREADABLE
from reuna.core.tally import Tally
from reuna.trust.people import CERTIFICATE_ROLES, Caller, Session, may

log = logging.getLogger("reuna.api")
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
MAX_WAIT_S = 20  #: a request may wait so long for something to change
MAX_WORDS = 8_192  #: bytes of a name, password or decision
T = TypeVar("T")
M = TypeVar("M", bound=msgspec.Struct)


class Door(Protocol):
    """Who a session's token stands for, and the trail; blocking."""

    def caller(self, token: str) -> tuple[Caller, Session]: ...
    def check_certificate(self, name: str, serial: int) -> None: ...
    def note(self, who: str, via: str, what: str, verdict: str, **more: str) -> None: ...


class Known(NamedTuple):
    """Who asks, and their session's token if they have one."""

    caller: Caller
    token: str = ""
    csrf: str = ""


NOBODY = Known(Caller("-", frozenset(), "session"))
Work = Callable[[web.Request, Known], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Before each route: who asks, may they, is it really they; and the trail."""

    def __init__(self, reception: Door) -> None:
        self._reception = reception
        self._tally = Tally()

    def around(self, action: str, work: Work) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            known = await self._known(request, action)
            noted = request.method not in SAFE or not action.endswith(".read")
            if not may(known.caller, action):
                await self._note(known, request, action, "denied")
                raise PermissionDenied(f"{known.caller.name} may not do that", _NEEDS.format(action=action))
            try:
                self._check_origin(request, known)
            except PermissionDenied as error:
                await self._note(known, request, action, "denied", why=error.message)
                raise
            if noted and action != "self":
                await self._note(known, request, action, "allowed")
            try:
                return await work(request, known)
            except ReunaError as error:
                if noted and action != "self":
                    await self._note(known, request, action, f"failed {error.code}")
                raise

        return handler

    async def refused(self, request: web.Request, action: str, why: str) -> None:
        """Somebody unknown was turned away: the first times of an address, then every doubling.

        So nobody fills the disk by asking again.
        """
        if times := self._tally.count(str(request.remote), why):
            await self._note(NOBODY, request, action, "denied", why=why, times=str(times))

    async def _known(self, request: web.Request, action: str) -> Known:
        """Who asks. Who had nothing to show and wanted to change nothing gets no line."""
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        token = _token(request)
        try:
            if certificate:
                caller, serial = operator_of(request, certificate), int(certificate["serialNumber"], 16)
            elif token:
                caller, session = await in_thread(lambda: self._reception.caller(token))
                return Known(caller, token, session.csrf)
            else:
                raise NotSignedIn("nobody is signed in here")
        except ReunaError as error:
            if token or certificate or request.method not in SAFE:
                await self.refused(request, action, error.message)
            raise
        await in_thread(lambda: self._reception.check_certificate(caller.name, serial))  # notes it itself
        return Known(caller)

    @staticmethod
    def _check_origin(request: web.Request, known: Known) -> None:
        """A browser sends the cookie by itself, so that it alone proves nothing about who asks."""
        if request.method in SAFE or COOKIE not in request.cookies or "Authorization" in request.headers:
            return
        origin = request.headers.get("Origin", f"https://{request.host}")
        given = request.headers.get("X-CSRF-Token", "")
        if origin != f"https://{request.host}" or not hmac.compare_digest(
            given.encode(), known.csrf.encode()
        ):
            raise PermissionDenied("this request did not come from our own page", "Send X-CSRF-Token.")

    async def _note(self, known: Known, request: web.Request, action: str, verdict: str, **more: str) -> None:
        caller, target, address = known.caller, request.path[:200], str(request.remote)
        await in_thread(
            lambda: self._reception.note(
                caller.name, caller.via, action, verdict, target=target, address=address, **more
            )
        )


_NEEDS = "It needs a role that may {action}; an admin gives roles: `reuna people role`."


def operator_of(request: web.Request, certificate: Any) -> Caller:
    """Whom an operator's certificate stands for. Raises `PermissionDenied`."""
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


async def in_thread(work: Callable[[], T]) -> T:
    """What blocks, beside the event loop."""
    return await asyncio.to_thread(work)


async def few_words(request: web.Request) -> bytes:
    """A small body, of which no byte is read beyond. Raises `AccountProblem`."""
    data = await request.content.read(MAX_WORDS + 1)
    while len(data) <= MAX_WORDS and not request.content.at_eof():
        data += await request.content.read(MAX_WORDS + 1 - len(data))
    if len(data) > MAX_WORDS:
        raise AccountProblem(f"more than {MAX_WORDS} bytes", "Compare with docs/reference/api.md.")
    return data


def read(kind: type[M], data: bytes, what: str) -> M:
    """A record from JSON. Raises `AccountProblem`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise AccountProblem(f"this is no {what}: {error}", "Compare with docs/reference/api.md.") from error


def count(request: web.Request, name: str) -> int:
    """A number of the query, 0 without it. Raises `AccountProblem`."""
    text = request.query.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise AccountProblem(f"`{name}` is no number of them", "Compare with docs/reference/api.md.")
    return int(text)


class Pace:
    """Requests that an address without a certificate may make: a bucket that fills up again."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._left: dict[str, tuple[float, float]] = {}

    @property
    def hold(self) -> Any:
        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not (request.transport and request.transport.get_extra_info("peercert")):
                try:
                    self._take(str(request.remote), time.monotonic())
                except TooMany as error:
                    await self._guard.refused(request, "self", error.message)
                    raise
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
async def with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What every answer says to a browser."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(HEADERS)
        raise
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Our own errors as an answer that the client raises again."""
    try:
        return await handler(request)
    except ReunaError as error:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 422)
        return web.json_response(error_body(error), status=status)


_STATUS: tuple[tuple[type[ReunaError], int], ...] = (
    (BlobNotFound, 404),
    (RunNotFound, 404),
    (AlarmNotFound, 404),
    (NotSignedIn, 401),
    (PermissionDenied, 403),
    (TooMany, 429),
    (Unreachable, 502),
)


def error_body(error: ReunaError) -> dict[str, str]:
    """An error as the client raises it again."""
    return {"code": error.code, "message": error.message, "next_step": error.next_step}
