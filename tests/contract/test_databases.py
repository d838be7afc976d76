"""The `Database` port: what stores in a file and on a real PostgreSQL server both promise."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reuna.adapters.database import Database
from reuna.adapters.events import MOST_LAST, EventLog
from reuna.adapters.head_store import HeadStore, Kept
from reuna.adapters.people import PeopleStore
from reuna.adapters.postgresql import PostgresqlDatabase
from reuna.adapters.register import Alarm, Register
from reuna.core.errors import AccountProblem, BadMessage, NotAdmitted, ReunaError
from reuna.core.records import Event, Setting
from reuna.trust.enrolment import Invite, Node
from reuna.trust.people import Person, Proposal, Session
from tests.servers.postgresql import PostgresqlServer

INVITE = Invite("i1", b"hash", "fog", "mill-3", created=100.0, expires=200.0, edges=4)
NODE = Node("mill-3", "fog", "mill-3", "5d", "k1", issued=0.0, expires=1_000.0)
ANNA = Person("anna", frozenset({"engineer"}), "$hash")
At = Callable[[str], Path | PostgresqlDatabase]  #: each call as another process would open it


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.servers)])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> At:
    if request.param == "file":
        return lambda name: tmp_path / f"{name}.sqlite"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return lambda name: PostgresqlDatabase(server.url(), name)


@pytest.fixture
def database(at: At) -> Iterator[Database]:
    with closing(Register(at("register"))) as register:
        yield register._db


# --- the port --------------------------------------------------------------------------------------


def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as tables:
        tables.execute("INSERT INTO held VALUES (?, ?)", ("a", 1.0))
        raise ZeroDivisionError
    assert database.rows("SELECT name FROM held") == []


def test_writers_wait_for_each_other_so_that_none_overwrites_what_it_has_not_read(at: At) -> None:
    with closing(Register(at("register"))) as first:
        first.heard({"a": 0.0})

    def add(_: int) -> None:
        with closing(Register(at("register"))) as own, own._db.writing() as tables:
            (before,) = tables.execute("SELECT at FROM heard WHERE name = ?", ("a",)).fetchone()
            tables.execute("UPDATE heard SET at = ? WHERE name = ?", (before + 1, "a"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(12)))
    with closing(Register(at("register"))) as register:
        assert register.last_heard() == {"a": 12.0}


def test_a_percent_sign_is_a_percent_sign(database: Database) -> None:
    with database.writing() as tables:
        tables.executemany("INSERT INTO held VALUES (?, ?)", [("a%b", 1.0), ("ab", 2.0)])
        tables.executemany("INSERT INTO held VALUES (?, ?)", [])
    assert [tuple(row) for row in database.rows("SELECT name FROM held WHERE name LIKE 'a%b' AND at < ?", 2)] == [("a%b",)]  # fmt: skip


def test_it_says_how_it_writes(database: Database) -> None:
    said = database.durability()
    assert "synchronous=2" in said or "synchronous_commit=on" in said


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(st.text(min_size=1, max_size=8), max_size=6))
def test_whatever_a_name_is_it_comes_back_or_is_refused_and_the_order_is_that_of_its_code_points(
    database: Database, names: set[str]
) -> None:
    register = object.__new__(Register)
    register._db = database
    with database.writing() as tables:
        tables.execute("DELETE FROM nodes")
    kept = set()
    for name in names:
        try:
            register.record(msgspec.structs.replace(NODE, name=name))
            kept.add(name)
        except (ReunaError, UnicodeError):  # a zero byte on the server, half a character in a file
            pass
    assert [node.name for node in register.nodes()] == sorted(kept)
    assert kept >= {name for name in names if "\0" not in name and name.isprintable()}


# --- the stores ------------------------------------------------------------------------------------


def test_the_register_is_there_after_a_restart(at: At) -> None:
    with closing(Register(at("register"))) as first:
        first.invite(INVITE)
        first.redeem("i1", NODE, 150.0)
        first.serve_under("mill-3", ("10.0.0.1", "mill"))
        first.serve_under("mill-3", ("10.0.0.2",))
        first.spoken({"mill-3": ("0.1.0", 1)})
        first.spoken({"mill-3": ("0.2.0", 2)})
        assert first.alarm(Alarm("mill-3", "b", 1.0, "doubled"))
        assert not first.alarm(Alarm("mill-3", "b", 2.0, "doubled"))
        first.hold("mill-3", 1.0)
        first.hold("mill-3", 2.0)
    with closing(Register(at("register"))) as again:
        assert again.nodes() == [NODE]
        assert again.node("mill-3") == NODE
        assert again.find(b"hash") == msgspec.structs.replace(INVITE, used=150.0)
        assert again.hosts() == {"10.0.0.2": "mill-3"}
        assert again.last_spoken() == {"mill-3": ("0.2.0", 2)}
        assert again.alarms() == [Alarm("mill-3", "b", 1.0, "doubled")]
        assert again.held() == {"mill-3"}
        assert again.release("mill-3")
        assert not again.release("mill-3")


def test_of_many_who_use_one_token_at_once_one_gets_in(at: At) -> None:
    with closing(Register(at("register"))) as register:
        register.invite(INVITE)

    def attempt(number: int) -> str:
        with closing(Register(at("register"))) as own:
            try:
                own.redeem("i1", msgspec.structs.replace(NODE, serial=str(number)), 150.0)
            except NotAdmitted as error:
                return error.reason
        return "in"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(8))) == ["in", *["used"] * 7]


def test_who_was_revoked_stays_revoked_whoever_is_told_later(at: At) -> None:
    with closing(Register(at("register"))) as register:
        register.record(NODE)
        register.revoke("mill-3", 5.0, "stolen")
        register.revoke("mill-3", 9.0, "stolen again")
        with pytest.raises(NotAdmitted):
            register.record(NODE)
        assert not register.learn(msgspec.structs.replace(NODE, site="other"))
        found = register.node("mill-3")
        assert found is not None
        assert (found.revoked, found.reason) == (5.0, "stolen again")


def test_an_account_that_goes_takes_its_sessions_along(at: At) -> None:
    with closing(PeopleStore(at("people"))) as people:
        people.add(ANNA, ("https://issuer", "s-1"))
        with pytest.raises(AccountProblem):
            people.add(ANNA)
        people.begin("token", Session("anna", "csrf", 1.0, 1.0))
        people.touch("token", 2.0)
        assert people.session("token") == Session("anna", "csrf", 1.0, 2.0)
        assert people.known_as("https://issuer", "s-1") == "anna"
        assert people.people() == [ANNA]
        people.change(Person("anna", frozenset({"viewer"}), "$other", disabled=True))
        assert people.session("token") is None
        people.begin("token", Session("anna", "csrf", 1.0, 1.0))
        people.remove("anna")
        assert (people.session("token"), people.known_as("https://issuer", "s-1")) == (None, None)


def test_a_proposal_is_decided_once(at: At) -> None:
    proposal = Proposal("p1", "runs.submit", "a run", "d" * 64, "anna", 1.0)
    with closing(PeopleStore(at("people"))) as people:
        people.propose(proposal, b"\0content")
        decided = msgspec.structs.replace(proposal, decided="approved", decided_by="ben", decided_at=2.0)
        assert people.decided(decided)
        assert not people.decided(msgspec.structs.replace(decided, decided="denied"))
        assert people.proposal("p1") == (decided, b"\0content")
        assert people.proposals() == [decided]


def test_an_event_is_kept_once_with_its_effect(at: At) -> None:
    def event(seq: int) -> Event:
        return Event("edge-1", "b1", seq, 1.0, "trained", "r1", 1, {"loss": 0.5})

    def effect(tables: Any) -> None:
        tables.execute("UPDATE events SET what = 'seen' WHERE seq = ?", (1,))

    with closing(EventLog(at("events"))) as log:
        assert log.record(event(1), effect)
        assert not log.record(event(1), effect)
        assert log.record(event(3))
        assert log.record(event(2))
        assert [each.seq for each in log.read("r1")] == [1, 3, 2]
        assert [each.seq for each in log.read("r1", 2)] == [2]
        assert log.counts() == {"seen": 1, "trained": 2}
        with pytest.raises(BadMessage):
            log.record(event(2**63))
        assert log.prune(1e12) == 3
        assert log.read("r1") == []


def test_the_last_word_on_each_project_is_kept_the_newest_of_them(at: At) -> None:
    with closing(EventLog(at("events"))) as log:
        for seq in range(MOST_LAST + 3):
            fields: dict[str, Setting] = {"project": f"p%_{seq % (MOST_LAST + 1)}"}
            log.record(Event("e1", "b", seq, 0.0, "watched", fields=fields), last=True)
        log.record(Event("e1", "b", 999, 0.0, "watch", fields={"project": "p"}), last=True)
        assert sorted(event.seq for _, event in log.last("watched")) == list(range(3, MOST_LAST + 3))
        assert [event.seq for _, event in log.last("watch")] == [999]


def test_an_event_of_a_hostile_node_is_no_reason_to_try_for_ever(at: At) -> None:
    with closing(EventLog(at("events"))) as log:
        try:
            log.record(Event("edge-1", "b\0", 1, 1.0, "trained", "r1", 1, {}))
        except BadMessage:
            assert log.read("r1") == []


def test_heads_are_only_ever_added_and_a_release_lets_another_ledger_begin(at: At) -> None:
    with closing(HeadStore(at("heads"))) as heads:
        first = Kept("reuna://f/mill-3", "l1", b"k", 4, 1.0, b"head", b"signed")
        heads.keep(first)
        heads.keep(first._replace(seq=9))
        with pytest.raises(ReunaError):
            heads.keep(first)
        assert heads.newest("reuna://f/mill-3") == first._replace(seq=9)
        assert heads.at("reuna://f/mill-3", "l1", 4) == first
        assert heads.release("reuna://f/mill-3") == 1
        assert heads.newest("reuna://f/mill-3") is None
        heads.keep(first._replace(ledger="l2"))
        assert [kept.ledger for kept in heads.every()] == ["l1", "l1", "l2"]


def test_the_server_has_every_table_and_column_that_the_files_have(
    tmp_path: Path, postgresql: PostgresqlServer
) -> None:
    files: dict[str, list[str]] = {}
    for name, store in (("r", Register), ("p", PeopleStore), ("e", EventLog), ("h", HeadStore)):
        store(tmp_path / name).close()
        with closing(sqlite3.connect(tmp_path / name)) as made:
            for (table,) in made.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                if not table.startswith("sqlite_"):
                    files[table] = [row[1] for row in made.execute(f"PRAGMA table_info({table})")]
    server: dict[str, list[str]] = {}
    with closing(PostgresqlDatabase(postgresql.url(), "any")) as database:
        query = """SELECT table_name, column_name FROM information_schema.columns
                   WHERE table_schema = 'reuna' AND table_name != 'schema_version' ORDER BY ordinal_position"""
        for table, column in database.rows(query):
            server.setdefault(table, []).append(column)
    assert server == files
