"""Sign-ins under way at an identity provider: begun here, gone through there, finished here."""

from __future__ import annotations

import hmac
import secrets
import threading
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from reuna.cloud.reception import Reception
from reuna.core.errors import AccountProblem, NotSignedIn, ReunaError
from reuna.core.ports import Clock
from reuna.trust import oidc
from reuna.trust.oidc import Rules
from reuna.trust.people import Caller, Session

AT_ONCE = 16  #: sign-ins of one address that may be under way
IN_ALL = 4_096


LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Provider(Protocol):
    """Blocking; `reuna.adapters.identity_provider` implements it."""

    def address(self, state: str, nonce: str, challenge: str, redirect: str, scopes: str) -> str: ...
    def claims(self, code: str, verifier: str, redirect: str) -> dict[str, object]: ...


class _Pending(NamedTuple):
    state: str
    nonce: str
    verifier: str
    redirect: str
    address: str
    began: float


class SignIns:
    """Blocking, and safe to use from several threads."""

    def __init__(
        self, reception: Reception, provider: Provider, rules: Rules, scopes: str, clock: Clock
    ) -> None:
        self._reception = reception
        self._provider = provider
        self.issuer = rules.issuer
        self._rules = rules
        self._scopes = scopes
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._lock = threading.Lock()

    def begin(self, redirect: str, own: str, address: str) -> tuple[str, str]:
        """A ticket to finish with, which the browser never sees, and the page to sign in at.

        ``own``: scheme and host of our own page. Raises `AccountProblem`, `Unreachable`.
        """
        check_redirect(redirect, own)
        ticket, state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(4))
        page = self._provider.address(state, nonce, oidc.challenge(verifier), redirect, self._scopes)
        with self._lock:
            self._pending[ticket] = _Pending(state, nonce, verifier, redirect, address, self._clock.now())
            self._forget(address)
        return ticket, page

    def _forget(self, address: str) -> None:
        """Those that took too long, and the oldest of whoever began too many."""
        oldest = self._clock.now() - oidc.PENDING_S
        for ticket in [each for each, p in self._pending.items() if p.began < oldest]:
            del self._pending[ticket]
        theirs = [each for each, p in self._pending.items() if p.address == address]
        for ticket in theirs[:-AT_ONCE]:
            del self._pending[ticket]
        while len(self._pending) > IN_ALL:
            del self._pending[next(iter(self._pending))]

    def finish(self, ticket: str, code: str, state: str, address: str) -> tuple[str, Session, Caller]:
        """A session's token, the session, and who that is; once for each ticket.

        Raises `NotSignedIn`, `Unreachable`.
        """
        with self._lock:
            self._forget(address)
            pending = self._pending.pop(ticket, None)
        try:
            if pending is None:
                raise NotSignedIn("this sign-in took too long, or never began", "Begin again: `reuna login`.")
            if not hmac.compare_digest(pending.state.encode(), state.encode()):
                raise NotSignedIn("this is the end of another sign-in", "Begin again: `reuna login`.")
            claims = self._provider.claims(code, pending.verifier, pending.redirect)
            person = oidc.vouched(claims, self._rules, pending.nonce)
        except ReunaError as error:
            why = error.message[:200]
            self._reception.note("unknown", "oidc", "session.begin", "denied", why=why, address=address)
            raise
        return self._reception.welcome(person, self._rules.issuer, address)


def check_redirect(redirect: str, own: str) -> None:
    """Where the provider may send somebody back to: their own machine (RFC 8252, 7.3), or our page.

    Raises `AccountProblem`.
    """
    try:
        parts = urlsplit(redirect if redirect.isascii() and redirect.isprintable() else "")
        here = parts.scheme == "http" and parts.hostname in LOOPBACK and parts.port is not None
        ours = parts.scheme == "https" and f"https://{parts.netloc}" == own
        if (here or ours) and not (parts.query or parts.fragment or parts.username):
            return
    except ValueError:
        pass
    raise AccountProblem(
        f"nobody is sent back to {redirect!r:.80}", "Give a page of this machine or the cloud."
    )
