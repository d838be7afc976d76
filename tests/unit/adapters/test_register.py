"""The register: one use of a token however many ask, and everything there again after a restart."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from reuna.adapters.register import Alarm, Register
from reuna.core.errors import Corrupted, NotAdmitted
from reuna.trust.enrolment import Invite, Node

INVITE = Invite("i1", b"hash", "fog", "mill-3", created=100.0, expires=200.0, edges=4)
NODE = Node("mill-3", "fog", "mill-3", "5d", "k1", issued=0.0, expires=1_000.0)


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register.sqlite")


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Register(tmp_path / "r.sqlite")
    first.invite(INVITE)
    first.redeem("i1", NODE, 150.0)
    first.close()
    again = Register(tmp_path / "r.sqlite")
    assert again.node("mill-3") == NODE
    assert again.find(b"hash") == msgspec.structs.replace(INVITE, used=150.0)
    again.close()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    Register(tmp_path / "r.sqlite").close()
    assert stat.S_IMODE((tmp_path / "r.sqlite").stat().st_mode) & 0o077 == 0


def test_of_many_who_use_one_token_at_once_one_gets_in(tmp_path: Path) -> None:
    Register(tmp_path / "r.sqlite").invite(INVITE)

    def attempt(number: int) -> str:
        own = Register(tmp_path / "r.sqlite")  # as another process would
        try:
            own.redeem("i1", msgspec.structs.replace(NODE, serial=str(number)), 150.0)
        except NotAdmitted as error:
            return error.reason
        finally:
            own.close()
        return "in"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, range(16))) == ["in", *["used"] * 15]


def test_a_token_that_is_refused_admits_no_node(register: Register) -> None:
    register.invite(INVITE)
    with pytest.raises(NotAdmitted):
        register.redeem("i1", NODE, 200.0)
    assert register.nodes() == []


def test_a_cancelled_invitation_stays_listed_and_is_not_cancelled_twice(register: Register) -> None:
    register.invite(INVITE)
    register.cancel("i1", 120.0)
    assert [invite.state(130.0) for invite in register.invites()] == ["cancelled"]
    with pytest.raises(NotAdmitted):
        register.cancel("i1", 121.0)


def test_a_name_that_replaces_another_ends_it_in_the_same_moment(register: Register) -> None:
    register.record(NODE)
    register.invite(msgspec.structs.replace(INVITE, name="mill-4", replaces="mill-3"))
    assert register.node("mill-3") == NODE
    register.redeem("i1", msgspec.structs.replace(NODE, name="mill-4"), 150.0)
    old = register.node("mill-3")
    assert old is not None
    assert (old.revoked, old.reason) == (150.0, "renamed to mill-4")


def test_a_revoked_node_is_not_recorded_again_and_stays_revoked_from_the_first_time(
    register: Register,
) -> None:
    register.record(NODE)
    register.revoke("mill-3", 5.0, "stolen")
    register.revoke("mill-3", 9.0, "again")
    with pytest.raises(NotAdmitted, match="revoked"):
        register.record(NODE)
    found = register.node("mill-3")
    assert found is not None
    assert found.revoked == 5.0


def test_a_name_that_was_never_seen_can_be_revoked(register: Register) -> None:
    register.revoke("edge-1", 5.0, "")
    assert [node.state(6.0) for node in register.nodes()] == ["revoked"]


def test_a_fog_cannot_speak_of_a_name_of_another_site_or_of_a_fog(register: Register) -> None:
    register.record(NODE)
    edge = Node("press-1", "edge", "mill-3", "1", "k", 0.0, 10.0)
    assert register.learn(edge)
    assert not register.learn(msgspec.structs.replace(edge, site="mill-4"))
    assert not register.learn(msgspec.structs.replace(edge, name="mill-3"))
    assert register.node("mill-3") == NODE


def test_the_same_alarm_is_kept_once(register: Register) -> None:
    assert register.alarm(Alarm("edge-1", "b1", 5.0, "doubled"))
    assert not register.alarm(Alarm("edge-1", "b1", 6.0, "doubled"))
    assert register.alarms() == [Alarm("edge-1", "b1", 5.0, "doubled")]


def test_a_node_serves_under_its_newest_hosts(register: Register) -> None:
    register.serve_under("mill-3", ("a", "b"))
    register.serve_under("mill-3", ("b", "c"))
    assert register.hosts() == {"b": "mill-3", "c": "mill-3"}


def test_a_file_that_is_no_register_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_bytes(b"not a database, certainly" * 100)
    with pytest.raises(Corrupted, match=r"r\.sqlite"):
        Register(tmp_path / "r.sqlite")
