"""Accounts, sessions and proposals of one cloud. Of a session's token only the hash is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

from reuna.adapters.database import Database, opened
from reuna.core.errors import AccountProblem
from reuna.trust.people import Person, Proposal, Session

_SCHEMA = """
CREATE TABLE IF NOT EXISTS people (
    name TEXT PRIMARY KEY, roles TEXT NOT NULL, password TEXT NOT NULL, disabled INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY, name TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
    csrf TEXT NOT NULL, began REAL NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identities (
    issuer TEXT NOT NULL, subject TEXT NOT NULL,
    name TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE, PRIMARY KEY (issuer, subject)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS proposals (
    id TEXT PRIMARY KEY, action TEXT NOT NULL, summary TEXT NOT NULL, digest TEXT NOT NULL,
    author TEXT NOT NULL, at REAL NOT NULL, decided TEXT NOT NULL, decided_by TEXT NOT NULL,
    decided_at REAL NOT NULL, content BLOB NOT NULL
) WITHOUT ROWID;
"""
_ADD = "INSERT INTO people VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PROPOSAL = "id, action, summary, digest, author, at, decided, decided_by, decided_at"


class PeopleStore:
    """``at``: its file, or the cloud's server. Raises as `reuna.adapters.database.Database`."""

    def __init__(self, at: Path | Database) -> None:
        self._db = opened(at, _SCHEMA)

    # --- people ----------------------------------------------------------------------------------

    def people(self) -> list[Person]:
        """All accounts by name."""
        return [_person(row) for row in self._db.rows("SELECT * FROM people ORDER BY name")]

    def person(self, name: str) -> Person | None:
        """The account of that name."""
        rows = self._db.rows("SELECT * FROM people WHERE name = ?", name)
        return _person(rows[0]) if rows else None

    def known_as(self, issuer: str, subject: str) -> str | None:
        """The account of somebody an identity provider knows."""
        rows = self._db.rows("SELECT name FROM identities WHERE issuer = ? AND subject = ?", issuer, subject)
        return str(rows[0][0]) if rows else None

    def add(self, person: Person, identity: tuple[str, str] | None = None) -> None:
        """A new account, perhaps of somebody known to a provider (issuer, subject).

        Raises `AccountProblem` when the name is taken.
        """
        with self._db.writing() as tables:
            if tables.execute(_ADD, _row(person)).rowcount == 0:
                raise AccountProblem(f"there is an account {person.name}", "Take another name.")
            if identity is not None:
                tables.execute("INSERT INTO identities VALUES (?, ?, ?)", (*identity, person.name))

    def change(self, person: Person) -> None:
        """Another password, other roles, or disabled: every session of the account ends."""
        with self._db.writing() as tables:
            name, *row = _row(person)
            tables.execute(
                "UPDATE people SET roles = ?, password = ?, disabled = ? WHERE name = ?", (*row, name)
            )
            tables.execute("DELETE FROM sessions WHERE name = ?", (person.name,))

    def remove(self, name: str) -> None:
        """The account and its sessions; what it did stays in the audit trail."""
        self._do("DELETE FROM people WHERE name = ?", name)

    # --- sessions --------------------------------------------------------------------------------

    def begin(self, token: str, session: Session) -> None:
        """Keep a session."""
        row = (_hash(token), session.name, session.csrf, session.began, session.used)
        self._do("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", *row)

    def session(self, token: str) -> Session | None:
        """The session of a token."""
        rows = self._db.rows("SELECT name, csrf, began, used FROM sessions WHERE hash = ?", _hash(token))
        return Session(*rows[0]) if rows else None

    def touch(self, token: str, now: float) -> None:
        """It was used just now."""
        self._do("UPDATE sessions SET used = ? WHERE hash = ?", now, _hash(token))

    def end(self, token: str) -> None:
        """It is over."""
        self._do("DELETE FROM sessions WHERE hash = ?", _hash(token))

    # --- proposals -------------------------------------------------------------------------------

    def propose(self, proposal: Proposal, content: bytes) -> None:
        """Keep what somebody proposed."""
        p = proposal
        row = (
            p.id,
            p.action,
            p.summary,
            p.digest,
            p.by,
            p.at,
            p.decided,
            p.decided_by,
            p.decided_at,
            content,
        )
        self._do("INSERT INTO proposals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *row)

    def proposals(self) -> list[Proposal]:
        """All of them, the newest first."""
        rows = self._db.rows(f"SELECT {_PROPOSAL} FROM proposals ORDER BY at DESC")  # noqa: S608  # our own words
        return [Proposal(*row) for row in rows]

    def proposal(self, id: str) -> tuple[Proposal, bytes] | None:
        """One of them, and its content."""
        rows = self._db.rows(f"SELECT {_PROPOSAL}, content FROM proposals WHERE id = ?", id)  # noqa: S608  # our own words
        return (Proposal(*rows[0][:-1]), rows[0][-1]) if rows else None

    def decided(self, proposal: Proposal) -> bool:
        """Keep the decision; False when there was one before."""
        with self._db.writing() as tables:
            done = tables.execute(
                "UPDATE proposals SET decided = ?, decided_by = ?, decided_at = ?"
                " WHERE id = ? AND decided = ''",
                (proposal.decided, proposal.decided_by, proposal.decided_at, proposal.id),
            )
            return done.rowcount > 0

    def close(self) -> None:
        """After the last call of anything else."""
        self._db.close()

    def _do(self, query: str, *values: object) -> None:
        with self._db.writing() as tables:
            tables.execute(query, values)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _person(row: tuple[str, str, str, int]) -> Person:
    name, roles, password, disabled = row
    return Person(name, frozenset(roles.split()), password, bool(disabled))


def _row(person: Person) -> tuple[str, str, str, int]:
    return person.name, " ".join(sorted(person.roles)), person.password, int(person.disabled)
