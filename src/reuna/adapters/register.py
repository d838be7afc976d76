"""Who was invited, who is a node, who was revoked: shared by the service and the commands.

One at the cloud, one at each fog. What is written is durable when a method returns; commands
write while the service runs. Secrets are kept as hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from reuna.adapters.database import Database, Tables, opened
from reuna.core.errors import NotAdmitted
from reuna.trust.enrolment import Invite, Node, judge_invite

_SCHEMA = """
CREATE TABLE IF NOT EXISTS invites (
    id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, role TEXT NOT NULL, name TEXT NOT NULL,
    created REAL NOT NULL, expires REAL NOT NULL, edges INTEGER NOT NULL, replaces TEXT NOT NULL,
    used REAL, cancelled REAL
);
CREATE TABLE IF NOT EXISTS nodes (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, site TEXT NOT NULL, serial TEXT NOT NULL,
    key TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL, revoked REAL, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS hosts (host TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS heard (name TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS spoken (
    name TEXT PRIMARY KEY, version TEXT NOT NULL, protocol INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS held (name TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS alarms (
    name TEXT NOT NULL, boot TEXT NOT NULL, at REAL NOT NULL, what TEXT NOT NULL, UNIQUE (name, boot)
);
"""
_INVITE = "id, hash, role, name, created, expires, edges, replaces, used, cancelled"
_NODE = "name, role, site, serial, key, issued, expires, revoked, reason"
_PUT_NODE = f"""
INSERT INTO nodes ({_NODE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET
    role = excluded.role, site = excluded.site, serial = excluded.serial, key = excluded.key,
    issued = excluded.issued, expires = excluded.expires, revoked = excluded.revoked, reason = excluded.reason
"""  # noqa: S608  # our own words
_SERVE = "INSERT INTO hosts VALUES (?, ?) ON CONFLICT (host) DO UPDATE SET name = excluded.name"
_HEARD = "INSERT INTO heard VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET at = excluded.at"
_SPOKEN = """
INSERT INTO spoken VALUES (?, ?, ?) ON CONFLICT (name) DO
    UPDATE SET version = excluded.version, protocol = excluded.protocol
"""


class Alarm(NamedTuple):
    """Something about a node that a person should look at."""

    name: str
    boot: str
    at: float
    what: str


class Register:
    """``at``: its file, or the cloud's server. Raises as `reuna.adapters.database.Database`."""

    def __init__(self, at: Path | Database) -> None:
        self._db = opened(at, _SCHEMA, 0o700)

    # --- invitations -------------------------------------------------------------------------

    def invite(self, invite: Invite) -> None:
        """Keep an invitation."""
        values = msgspec.structs.asdict(invite)
        row = [values[name] for name in _INVITE.split(", ")]
        with self._db.writing() as tables:
            tables.execute(f"INSERT INTO invites ({_INVITE}) VALUES ({_marks(row)})", row)  # noqa: S608  # our own words

    def invites(self) -> list[Invite]:
        """All that are kept, the newest first."""
        return [_invite(row) for row in self._db.rows(f"SELECT {_INVITE} FROM invites ORDER BY created DESC")]  # noqa: S608  # our own words

    def find(self, hashed: bytes) -> Invite | None:
        """The invitation whose secret has this hash."""
        rows = self._db.rows(f"SELECT {_INVITE} FROM invites WHERE hash = ?", hashed)  # noqa: S608  # our own words
        return _invite(rows[0]) if rows else None

    def cancel(self, id: str, now: float) -> Invite:
        """End an invitation that was not used. Raises `NotAdmitted`."""
        with self._db.writing() as tables:
            invite = _one(tables, id)
            judge_invite(invite, now)
            assert invite is not None
            tables.execute("UPDATE invites SET cancelled = ? WHERE id = ?", (now, id))
        return invite

    def redeem(self, id: str, node: Node, now: float) -> None:
        """Use an invitation up and take its node in: both or neither, once. Raises `NotAdmitted`."""
        with self._db.writing() as tables:
            invite = judge_invite(_one(tables, id), now)
            tables.execute("UPDATE invites SET used = ? WHERE id = ?", (now, id))
            tables.execute(_PUT_NODE, _values(node))
            if invite.replaces:
                _revoke(tables, invite.replaces, now, f"renamed to {invite.name}")

    # --- nodes -------------------------------------------------------------------------------

    def record(self, node: Node) -> None:
        """Note the newest certificate of a node. Raises `NotAdmitted` when it was revoked meanwhile."""
        with self._db.writing() as tables:
            found = tables.execute("SELECT revoked FROM nodes WHERE name = ?", (node.name,)).fetchone()
            if found is not None and found[0] is not None:
                raise NotAdmitted("revoked", f"{node.name} was revoked")
            tables.execute(_PUT_NODE, _values(node))

    def learn(self, node: Node) -> bool:
        """Note what a fog said of an edge of its site; False when the name is somebody else's."""
        with self._db.writing() as tables:
            found = tables.execute("SELECT role, site FROM nodes WHERE name = ?", (node.name,)).fetchone()
            if found is not None and found != (node.role, node.site):
                return False
            tables.execute(_PUT_NODE, _values(node))
        return True

    def node(self, name: str) -> Node | None:
        """What is known of a name."""
        rows = self._db.rows(f"SELECT {_NODE} FROM nodes WHERE name = ?", name)  # noqa: S608  # our own words
        return Node(*rows[0]) if rows else None

    def nodes(self) -> list[Node]:
        """All names known, sorted."""
        return [Node(*row) for row in self._db.rows(f"SELECT {_NODE} FROM nodes ORDER BY name")]  # noqa: S608  # our own words

    def revoke(self, name: str, now: float, reason: str) -> None:
        """Refuse a name from now on; one not yet known is refused as well. For good."""
        with self._db.writing() as tables:
            _revoke(tables, name, now, reason)

    # --- hosts and alarms --------------------------------------------------------------------

    def hosts(self) -> Mapping[str, str]:
        """Hosts that were certified, and for whom."""
        return dict(self._db.rows("SELECT host, name FROM hosts"))

    def serve_under(self, name: str, hosts: tuple[str, ...]) -> None:
        """Note the hosts that a node serves under, instead of those before."""
        with self._db.writing() as tables:
            tables.execute("DELETE FROM hosts WHERE name = ?", (name,))
            tables.executemany(_SERVE, [(h, name) for h in hosts])

    def heard(self, at: Mapping[str, float]) -> None:
        """Note when names were last heard of."""
        with self._db.writing() as tables:
            tables.executemany(_HEARD, list(at.items()))

    def spoken(self, versions: Mapping[str, tuple[str, int]]) -> None:
        """Note with which version of Reuna, and of the protocol, names were last heard."""
        with self._db.writing() as tables:
            rows = [(name, *version) for name, version in versions.items()]
            tables.executemany(_SPOKEN, rows)

    def last_spoken(self) -> dict[str, tuple[str, int]]:
        """With which version each name was last heard."""
        found = self._db.rows("SELECT name, version, protocol FROM spoken")
        return {name: (version, protocol) for name, version, protocol in found}

    def last_heard(self) -> dict[str, float]:
        """When each name was last heard of."""
        return dict(self._db.rows("SELECT name, at FROM heard"))

    def alarm(self, alarm: Alarm) -> bool:
        """Keep an alarm; False when the same was kept before."""
        with self._db.writing() as tables:
            done = tables.execute("INSERT INTO alarms VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", alarm)
            return done.rowcount > 0

    def alarms(self) -> list[Alarm]:
        """All alarms, the oldest first."""
        return [Alarm(*row) for row in self._db.rows("SELECT name, boot, at, what FROM alarms ORDER BY at")]

    def hold(self, name: str, now: float) -> None:
        """Refuse a name until somebody decides: `release` or `revoke`."""
        with self._db.writing() as tables:
            tables.execute("INSERT INTO held VALUES (?, ?) ON CONFLICT DO NOTHING", (name, now))

    def release(self, name: str) -> bool:
        """Admit a held name again; False when it was not held."""
        with self._db.writing() as tables:
            return tables.execute("DELETE FROM held WHERE name = ?", (name,)).rowcount > 0

    def held(self) -> frozenset[str]:
        """Names that wait for somebody's decision."""
        return frozenset(name for (name,) in self._db.rows("SELECT name FROM held"))

    def close(self) -> None:
        """After the last call of anything else."""
        self._db.close()


def _marks(row: list[Any]) -> str:
    return ", ".join("?" * len(row))


def _invite(row: tuple[Any, ...]) -> Invite:
    return Invite(**dict(zip(_INVITE.split(", "), row, strict=True)))


def _values(node: Node) -> tuple[Any, ...]:
    values = msgspec.structs.asdict(node)
    return tuple(values[name] for name in _NODE.split(", "))


def _one(tables: Tables, id: str) -> Invite | None:
    rows = tables.execute(f"SELECT {_INVITE} FROM invites WHERE id = ?", (id,)).fetchall()  # noqa: S608  # our own words
    return _invite(rows[0]) if rows else None


def _revoke(tables: Tables, name: str, now: float, reason: str) -> None:
    tables.execute(
        "INSERT INTO nodes (name, role, site, serial, key, issued, expires, revoked, reason)"
        " VALUES (?, '', '', '', '', 0, 0, ?, ?) ON CONFLICT (name) DO"
        " UPDATE SET revoked = coalesce(nodes.revoked, excluded.revoked), reason = excluded.reason",
        (name, now, reason),
    )
