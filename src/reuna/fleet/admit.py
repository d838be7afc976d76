"""What a person does about the nodes of a fleet: invite, list, revoke, rename; make its cloud.

Works on the register of a cloud or a fog, whether that place runs or not; a running one follows
within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.certificates import CertificateAuthority, read_chain
from reuna.adapters.register import Register
from reuna.cloud.settings import CLOUD
from reuna.core.errors import NotAdmitted, SettingsError
from reuna.core.settings import Source, parse
from reuna.exchange.enrolment import invite, node_of
from reuna.exchange.parent import open_authority, open_register, terms_of
from reuna.fleet.layout import check_names, write_toml
from reuna.fleet.trail import Trail
from reuna.fleet.trust import make_trust, take_over
from reuna.trust.enrolment import Invite, Token

PORTS = {"nats_port": 4222, "leaf_port": 7422, "freight_port": 8443, "api_port": 8445}
ENROL_PORT = 8444


@dataclass(frozen=True)
class Desk:
    """The register of one place. ``role`` is of those it takes in: ``fog`` or ``edge``."""

    settings: Mapping[str, Any]
    role: str
    register: Register

    @classmethod
    def of(cls, settings: Mapping[str, Any], role: str) -> Desk:
        """Open the register of a place by its settings."""
        return cls(settings, role, open_register(settings))

    @property
    def trail(self) -> Trail:
        """What people did here: each of these commands is written down first."""
        return Trail.of_place(self.settings)

    @property
    def listed(self) -> Collection[str]:
        """Names in the settings file."""
        found: list[str] = self.settings[f"{self.role}s"]
        return [*found, *self._listed_fogs]

    @property
    def _listed_fogs(self) -> Collection[str]:
        """Those of them that are fogs, at a fog."""
        found: list[str] = self.settings["fogs"] if self.role == "edge" else []
        return found

    def invite(
        self, name: str, now: float, life_s: float, edges: int = 0, replaces: str = "", fog: bool = False
    ) -> Token:
        """A token for one machine; at a fog for a ``fog`` under it. Raises `NotAdmitted`, `SettingsError`."""
        role = "fog" if fog else self.role
        with self.trail.doing("site.invite", name, replaces=replaces):
            return self._invite(name, now, life_s, edges, replaces, role)

    def _invite(self, name: str, now: float, life_s: float, edges: int, replaces: str, role: str) -> Token:
        if role != self.role and not self.settings["listen.leaf_port"]:
            raise SettingsError(
                "listen.leaf_port is 0: no fog can stand under this one",
                "Set it to a free port, then restart.",
            )
        if not self.settings["enrol.authority"]:
            raise SettingsError(
                "enrol.authority is empty: this place takes nobody in", "Set it, then restart."
            )
        limit = edges if role == "fog" else self.settings["enrol.edges"]
        return invite(
            self.register,
            open_authority(self.settings),
            terms_of(self.settings, self.role),
            name,
            now,
            life_s,
            limit,
            replaces,
            self.listed,
            role,
        )

    def invites(self, now: float) -> list[dict[str, Any]]:
        """All invitations, without what would let somebody in."""
        return [_shown(found, now) for found in self.register.invites()]

    def cancel(self, what: str, now: float) -> list[dict[str, Any]]:
        """End the invitation of that id, or every open one of that name. Raises `NotAdmitted`."""
        with self.trail.doing("site.cancel", what):
            return self._cancel(what, now)

    def _cancel(self, what: str, now: float) -> list[dict[str, Any]]:
        kept = self.register.invites()
        meant = [found for found in kept if what == found.id] or [
            found for found in kept if what == found.name and found.state(now) == "open"
        ]
        if not meant:
            raise NotAdmitted("unknown", f"no invitation {what} here", "See them with `reuna site invites`.")
        return [_shown(self.register.cancel(found.id, now), now) for found in meant]

    def nodes(self, now: float) -> list[dict[str, Any]]:
        """Every node that is or was, and every open invitation."""
        alarms: dict[str, list[str]] = {}
        for alarm in self.register.alarms():
            alarms.setdefault(alarm.name, []).append(alarm.what)
        heard, known, held = self.register.last_heard(), self.register.nodes(), self.register.held()
        rows = [
            {**msgspec.structs.asdict(node), "state": node.state(now), "role": node.role or self.role}
            for node in known
        ]
        names = {node.name for node in known}
        fogs = self._listed_fogs
        rows += [
            _plain(name, "fog" if name in fogs else self.role, "listed")
            for name in self.listed
            if name not in names
        ]
        rows += [
            {**_plain(waiting.name, waiting.role, "invited"), "expires": waiting.expires}
            for waiting in self.register.invites()
            if waiting.state(now) == "open"
        ]
        unseen = alarms.keys() - {row["name"] for row in rows}  # edges that no fog has told of
        rows += [_plain(name, "", "unknown") for name in unseen]
        for row in rows:
            row["heard"] = heard.get(row["name"])
            row["alarms"] = alarms.get(row["name"], [])
            if row["name"] in held and row["state"] in {"active", "listed"}:
                row["state"] = "held"
        return sorted(rows, key=lambda row: str(row["name"]))

    def hears(self, row: Mapping[str, Any]) -> bool:
        """Whether this place hears the node itself, of what `nodes` lists."""
        if self.role == "fog":
            return row["role"] == "fog" and row["site"] in ("", row["name"])
        return row["role"] in ("edge", "fog")

    def revoke(self, name: str, now: float, reason: str = "") -> None:
        """Refuse a node from now on, and every invitation of its name. Raises `NotAdmitted`."""
        with self.trail.doing("node.revoke", name, reason=reason):
            self._revoke(name, now, reason)

    def _revoke(self, name: str, now: float, reason: str) -> None:
        waiting = [i for i in self.register.invites() if i.name == name and i.state(now) == "open"]
        if not waiting and name not in self.listed and self.register.node(name) is None:
            raise NotAdmitted("unknown", f"{name} is no node here", "See the names with `reuna node list`.")
        for open_one in waiting:
            self.register.cancel(open_one.id, now)
        if name in self.listed or self.register.node(name) is not None:
            self.register.revoke(name, now, reason)

    def release(self, name: str) -> None:
        """Admit a node again that is held, since only one machine has its key now. Raises `NotAdmitted`."""
        with self.trail.doing("node.release", name):
            if not self.register.release(name):
                raise NotAdmitted("unknown", f"{name} is not held", "See states with `reuna node list`.")

    def new_operator(self, name: str, now: float) -> Path:
        """A new key and certificate of an operator; that of the same name before is refused from now on.

        Raises `NotAdmitted` when the name is that of a node, or was revoked.
        """
        with self.trail.doing("site.operator", name):
            return self._new_operator(name, now)

    def _new_operator(self, name: str, now: float) -> Path:
        known = self.register.node(name)
        if name in self.listed or (known is not None and known.role != "operator"):
            raise NotAdmitted("taken", f"{name} is a node of this fleet", "Take another name.")
        if known is not None and known.revoked is not None:
            raise NotAdmitted("revoked", f"{name} was revoked", "Take another name.")
        pair = open_authority(self.settings).issue("operator", name)
        certificate = read_chain(pair.certificate.read_bytes())[0]
        self.register.record(node_of(name, "operator", "", certificate, now))
        return pair.certificate

    def rename(self, old: str, new: str, now: float, life_s: float) -> Token:
        """A token with which the node joins again under its new name; the old one ends with it."""
        with self.trail.doing("node.rename", old, to=new):
            node = self.register.node(old)
            role = node.role if node is not None else "fog" if old in self._listed_fogs else self.role
            own = role == self.role or (role == "fog" and self.role == "edge")
            if (node is None and old not in self.listed) or not own:
                raise NotAdmitted(
                    "unknown", f"{old} is no node here", "See the names with `reuna node list`."
                )
            return self._invite(new, now, life_s, 0, old, role)


def _shown(invite: Invite, now: float) -> dict[str, Any]:
    found = {**msgspec.structs.asdict(invite), "state": invite.state(now)}
    del found["hash"]
    return found


def _plain(name: str, role: str, state: str) -> dict[str, Any]:
    return {"name": name, "role": role, "state": state, "site": "", "expires": None}


def make_cloud(folder: Path, fleet: str, host: str, trust: Path | None = None) -> Path:
    """The cloud of a new fleet: authority, its certificate, an operator's, settings; its file.

    ``trust``: what came from the ceremony of its keys; without it they are made here, unlocked.
    Raises `SettingsError`, `KeyProblem`.
    """
    check_names([fleet])
    folder = folder.absolute()
    if trust is not None:
        take_over(trust, folder / "trust", fleet, time.time())
    authority = CertificateAuthority.create(folder / "ca", fleet)
    own = authority.issue("cloud", "cloud", [host])
    if trust is None:
        make_trust(folder / "trust", fleet, time.time())
    settings = {
        "fleet": fleet,
        "name": "cloud",
        "folder": str(folder / "state"),
        "listen": {"host": host, **PORTS},
        "trust": str(folder / "trust"),
        "enrol": {"authority": str(authority.folder), "port": ENROL_PORT},
        "tls": {
            "certificate": str(own.certificate),
            "key": str(own.key),
            "authority": str(authority.certificate),
        },
    }
    file = write_toml(folder / "cloud.toml", settings)
    desk = Desk.of(parse(CLOUD, [Source(str(file), settings)]), "fog")
    desk.new_operator("operator", time.time())
    desk.register.close()
    return file
