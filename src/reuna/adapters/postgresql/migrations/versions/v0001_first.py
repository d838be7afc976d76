"""register, accounts, events, heads"""  # `reuna upgrade --check` shows it

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE invites (
    id TEXT PRIMARY KEY, hash BYTEA NOT NULL UNIQUE, role TEXT NOT NULL, name TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL, expires DOUBLE PRECISION NOT NULL, edges BIGINT NOT NULL,
    replaces TEXT NOT NULL, used DOUBLE PRECISION, cancelled DOUBLE PRECISION
);
CREATE TABLE nodes (
    name TEXT COLLATE "C" PRIMARY KEY, role TEXT NOT NULL, site TEXT NOT NULL,
    serial TEXT NOT NULL, key TEXT NOT NULL, issued DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION NOT NULL, revoked DOUBLE PRECISION, reason TEXT NOT NULL
);
CREATE TABLE hosts (host TEXT PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE heard (name TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL);
CREATE TABLE spoken (name TEXT PRIMARY KEY, version TEXT NOT NULL, protocol BIGINT NOT NULL);
CREATE TABLE held (name TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL);
CREATE TABLE alarms (
    name TEXT NOT NULL, boot TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, what TEXT NOT NULL,
    UNIQUE (name, boot)
);
CREATE TABLE people (
    name TEXT COLLATE "C" PRIMARY KEY, roles TEXT NOT NULL, password TEXT NOT NULL, disabled BIGINT NOT NULL
);
CREATE TABLE sessions (
    hash BYTEA PRIMARY KEY, name TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE,
    csrf TEXT NOT NULL, began DOUBLE PRECISION NOT NULL, used DOUBLE PRECISION NOT NULL
);
CREATE TABLE identities (
    issuer TEXT NOT NULL, subject TEXT NOT NULL,
    name TEXT NOT NULL REFERENCES people (name) ON DELETE CASCADE, PRIMARY KEY (issuer, subject)
);
CREATE TABLE proposals (
    id TEXT PRIMARY KEY, action TEXT NOT NULL, summary TEXT NOT NULL, digest TEXT NOT NULL,
    author TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, decided TEXT NOT NULL, decided_by TEXT NOT NULL,
    decided_at DOUBLE PRECISION NOT NULL, content BYTEA NOT NULL
);
CREATE TABLE events (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, node TEXT NOT NULL, boot TEXT NOT NULL,
    seq BIGINT NOT NULL, run TEXT NOT NULL, what TEXT NOT NULL, received DOUBLE PRECISION NOT NULL,
    event BYTEA NOT NULL, UNIQUE (node, boot, seq)
);
CREATE INDEX events_of_run ON events (run, number);
CREATE TABLE last_events (
    node TEXT COLLATE "C" NOT NULL, what TEXT NOT NULL, received DOUBLE PRECISION NOT NULL,
    event BYTEA NOT NULL, PRIMARY KEY (node, what)
);
CREATE TABLE heads (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, node TEXT NOT NULL, ledger TEXT NOT NULL,
    key BYTEA NOT NULL, seq BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL, head BYTEA NOT NULL,
    countersignature BYTEA NOT NULL, UNIQUE (node, ledger, seq)
);
CREATE INDEX newest ON heads (node, number);
CREATE TABLE released (node TEXT NOT NULL, ledger TEXT NOT NULL, UNIQUE (node, ledger));
"""


def upgrade() -> None:
    """The tables as the SQLite files of version 0.1 have them."""
    op.execute(_TABLES)
