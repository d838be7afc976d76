"""Accounts of a cloud, changed on its own machine; and an account's calls to the cloud from anywhere."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from reuna.adapters.files import replace_file
from reuna.adapters.passwords import hashed
from reuna.adapters.people import PeopleStore
from reuna.cloud.files import PEOPLE
from reuna.core.errors import AccountProblem, NotSignedIn, SettingsError
from reuna.exchange.storage import tables_of
from reuna.fleet.client import Operator
from reuna.fleet.loopback import Loopback
from reuna.fleet.trail import Trail
from reuna.trust.people import Person, check_name, check_password, check_roles, listed

PORT = 7448  #: where people sign in when the address names none
PATIENCE_S = 300.0  #: for somebody at the identity provider's pages


class Office:
    """The accounts of the cloud with these settings; every change stands in the audit trail first."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._store = PeopleStore(tables_of(settings, PEOPLE))
        self._trail = Trail.of_place(settings)

    def listed(self) -> list[dict[str, Any]]:
        """All accounts by name, without what their passwords are known by."""
        return listed(self._store.people())

    def trail(self, after: int = 0) -> list[dict[str, Any]]:
        """The audit trail, checked. Raises `Corrupted` that names the first wrong line."""
        return self._trail.read(after)

    def add(self, name: str, roles: Collection[str], password: str) -> None:
        """A new account. Raises `AccountProblem`."""
        with self._trail.doing("people.add", name, roles=" ".join(sorted(roles))):
            check_name(name)
            check_roles(roles)
            check_password(password, name)
            self._store.add(Person(name, frozenset(roles), hashed(password)))

    def change(
        self,
        name: str,
        roles: Collection[str] | None = None,
        password: str | None = None,
        disabled: bool | None = None,
    ) -> None:
        """Other roles, another password, disabled or not; ends every session. Raises `AccountProblem`."""
        given = {"roles": roles, "password": password, "disabled": disabled}
        said = " ".join(sorted(what for what, value in given.items() if value is not None))
        with self._trail.doing("people.change", name, changed=said, roles=" ".join(sorted(roles or ()))):
            self._store.change(self._changed(name, roles, password, disabled))

    def _changed(
        self, name: str, roles: Collection[str] | None, password: str | None, disabled: bool | None
    ) -> Person:
        """The account as it is to be. Raises `AccountProblem`."""
        person = self._known(name)
        if not person.password and (roles is not None or password is not None):
            raise AccountProblem(
                f"{name} signs in at the identity provider", "Change groups or password there."
            )
        changes: dict[str, Any] = {}
        if roles is not None:
            check_roles(roles)
            changes["roles"] = frozenset(roles)
        if password is not None:
            check_password(password, name)
            changes["password"] = hashed(password)
        if disabled is not None:
            changes["disabled"] = disabled
        return msgspec.structs.replace(person, **changes)

    def remove(self, name: str) -> None:
        """The account and its sessions; what it did stays in the trail. Raises `AccountProblem`."""
        with self._trail.doing("people.remove", name):
            self._store.remove(self._known(name).name)

    def close(self) -> None:
        self._store.close()

    def _known(self, name: str) -> Person:
        person = self._store.person(name)
        if person is None:
            raise AccountProblem(f"there is no account {name!r:.80}", "List them: `reuna people list`.")
        return person


# --- from anywhere ---------------------------------------------------------------------------------


class Account(Operator):
    """The cloud as somebody who signed in sees it."""

    def __init__(self, host: str, port: int, authority: str, token: str = "") -> None:
        """``authority``: the fleet's root certificate, PEM text."""
        self.address = host, port
        super().__init__(
            host, port, _context(authority), {"Authorization": f"Bearer {token}"} if token else {}
        )

    def sign_in(self, name: str, password: str) -> dict[str, Any]:
        """Who that is, with a token. Raises `NotSignedIn`, `TooMany`."""
        words = json.dumps({"name": name, "password": password}).encode()
        found: dict[str, Any] = json.loads(self._call("POST", "/v1/session", words))
        return found

    def begin_sign_in(self, redirect: str) -> tuple[str, str]:
        """A ticket, and the identity provider's page. Raises `AccountProblem`, `Unreachable`."""
        found = json.loads(self._call("POST", "/v1/sign-ins", json.dumps({"redirect": redirect}).encode()))
        return found["ticket"], found["url"]

    def finish_sign_in(self, ticket: str, code: str, state: str) -> dict[str, Any]:
        """Who that is, with a token. Raises `NotSignedIn`, `Unreachable`."""
        words = json.dumps({"code": code, "state": state}).encode()
        found: dict[str, Any] = json.loads(self._call("POST", f"/v1/sign-ins/{ticket}", words))
        return found

    def who(self) -> dict[str, Any]:
        """Name and roles."""
        found: dict[str, Any] = self._json("/v1/session")
        return found

    def sign_out(self) -> None:
        """End the session."""
        self._call("DELETE", "/v1/session")

    def decide(self, proposal: dict[str, Any], approve: bool) -> dict[str, Any]:
        """Say yes or no to exactly what was seen. Raises `PermissionDenied`, `AccountProblem`."""
        words = json.dumps({"approve": approve, "digest": proposal["digest"]}).encode()
        found: dict[str, Any] = json.loads(self._call("POST", f"/v1/proposals/{proposal['id']}", words))
        return found

    def audit(self, after: int) -> list[dict[str, Any]]:
        """The audit trail."""
        found: list[dict[str, Any]] = self._json(f"/v1/audit?after={after}")
        return found


def _context(authority: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def sign_in(
    address: str, authority: Path, file: Path, begin: Callable[[Account], dict[str, Any]]
) -> dict[str, Any]:
    """Begin a session and keep it in a file that only its owner reads; who that is.

    ``begin`` does so with an account of nobody: a password, or `at_provider`.
    Raises `SettingsError`, `NotSignedIn`, `TooMany`, `Unreachable`.
    """
    host, port = address_of(address)
    try:
        root = authority.read_text(encoding="ascii")
        account = Account(host, port, root)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise SettingsError(
            f"{authority} is no certificate: {error}", "Give the fleet's authority.crt."
        ) from error
    found = begin(account)
    kept = {"host": host, "port": port, "authority": root, "token": found["token"]}
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(file, json.dumps(kept).encode())
    return found


def at_provider(
    account: Account, show: Callable[[str], None], patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Sign in at the fleet's identity provider; ``show`` brings its page to somebody's eyes.

    Raises `NotSignedIn` when nobody came back in time or the provider said no, `AccountProblem`.
    """
    with Loopback() as loopback:
        ticket, page = account.begin_sign_in(loopback.address)
        show(page)
        answer = loopback.wait(patience_s)
    if "code" not in answer:
        said = answer.get("error_description") or answer.get("error") or "nothing"
        raise NotSignedIn(f"the identity provider said no: {said!r:.120}")
    return account.finish_sign_in(ticket, answer["code"], answer.get("state", ""))


def signed_in(file: Path) -> Account:
    """The account whose session is kept. Raises `NotSignedIn`."""
    try:
        kept = json.loads(file.read_bytes())
        return Account(kept["host"], kept["port"], kept["authority"], kept["token"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotSignedIn("nobody is signed in here") from error


def address_of(text: str) -> tuple[str, int]:
    """Host and port of a cloud. Raises `SettingsError`."""
    try:
        found = urlsplit(text if "://" in text else f"https://{text}")
        if found.scheme == "https" and found.hostname:
            return found.hostname, found.port or PORT
    except ValueError:
        pass
    raise SettingsError(f"{text!r:.80} is no address", "Give the cloud as https://HOST:PORT.")
