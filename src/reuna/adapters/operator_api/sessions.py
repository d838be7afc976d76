"""Where people's sessions begin and end: with a password, or at an identity provider."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
from aiohttp import web

from reuna.adapters.operator_api.guard import COOKIE, Known, few_words, in_thread, operator_of, read
from reuna.core.errors import AccountProblem
from reuna.trust.people import Caller, Session

Begun = tuple[str, Session, Caller]  #: a session's token, the session, whose it is


class Sessions(Protocol):
    """Blocking; `reuna.cloud.reception` implements it."""

    def sign_in(self, name: str, password: str, address: str) -> Begun: ...
    def sign_out(self, caller: Caller, token: str) -> None: ...


class SignIns(Protocol):
    """Those at an identity provider; blocking. `reuna.cloud.sign_ins` implements it."""

    issuer: str

    def begin(self, redirect: str, own: str, address: str) -> tuple[str, str]: ...
    def finish(self, ticket: str, code: str, state: str, address: str) -> Begun: ...


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody signs in with."""

    name: str
    password: str


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the provider shall send somebody back to."""

    redirect: str


class Return(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it sent them back with."""

    code: str
    state: str


class SessionDesk:
    """The work behind the routes."""

    def __init__(self, sessions: Sessions, sign_ins: SignIns | None) -> None:
        self._sessions = sessions
        self._sign_ins = sign_ins

    async def sign_in(self, request: web.Request) -> web.Response:
        check_certificate(request)
        given = read(Credentials, await few_words(request), "name and password")
        return _welcome(
            await in_thread(lambda: self._sessions.sign_in(given.name, given.password, str(request.remote)))
        )

    async def provider(self, request: web.Request) -> web.Response:
        check_certificate(request)
        return web.json_response({"issuer": self._sign_ins.issuer if self._sign_ins else ""})

    async def begin(self, request: web.Request) -> web.Response:
        check_certificate(request)
        given, own = read(Begin, await few_words(request), "redirect"), f"https://{request.host}"
        sign_ins = self._provider()
        ticket, page = await in_thread(lambda: sign_ins.begin(given.redirect, own, str(request.remote)))
        return web.json_response({"ticket": ticket, "url": page})

    async def finish(self, request: web.Request) -> web.Response:
        check_certificate(request)
        given, ticket = read(Return, await few_words(request), "code and state"), request.match_info["ticket"]
        sign_ins = self._provider()
        return _welcome(
            await in_thread(lambda: sign_ins.finish(ticket, given.code, given.state, str(request.remote)))
        )

    async def who(self, _request: web.Request, known: Known) -> web.Response:
        return web.json_response(_who(known.caller, known.csrf))

    async def sign_out(self, _request: web.Request, known: Known) -> web.Response:
        await in_thread(lambda: self._sessions.sign_out(known.caller, known.token))
        response = web.json_response({})
        response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    def _provider(self) -> SignIns:
        if self._sign_ins is None:
            raise AccountProblem("this cloud has no identity provider", "Give --name, and a password.")
        return self._sign_ins


def check_certificate(request: web.Request) -> None:
    """Where certificates are asked for, nobody but an operator gets as far as a password."""
    if certificate := request.transport and request.transport.get_extra_info("peercert"):
        operator_of(request, certificate)


def _welcome(begun: Begun) -> web.Response:
    token, session, caller = begun
    response = web.json_response({**_who(caller, session.csrf), "token": token})
    response.set_cookie(COOKIE, token, secure=True, httponly=True, samesite="Strict", path="/")
    return response


def _who(caller: Caller, csrf: str) -> dict[str, Any]:
    return {"name": caller.name, "roles": sorted(caller.roles), "via": caller.via, "csrf": csrf}
