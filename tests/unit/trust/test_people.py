"""Who may do what, and what needs two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reuna.core.errors import PermissionDenied, UserError
from reuna.trust import people
from reuna.trust.people import ACTIONS, ROLES, Caller, Proposal, Session, decide, is_over, may, wait_s

ROLE_SETS = st.frozensets(st.sampled_from(sorted(ROLES)))
NOW = 1_000_000.0
PROPOSAL = Proposal("p1", "runs.submit", "run r-1", "d" * 64, "anna", NOW)


def caller(*roles: str, name: str = "ben") -> Caller:
    return Caller(name, frozenset(roles), "session")


@given(ROLE_SETS, ROLE_SETS, st.sampled_from(sorted(ACTIONS)))
def test_fewer_roles_never_allow_more(roles: frozenset[str], gone: frozenset[str], action: str) -> None:
    fewer, all_ = Caller("x", roles - gone, "session"), Caller("x", roles, "session")
    assert may(all_, action) or not may(fewer, action)


@given(ROLE_SETS, st.text())
def test_what_is_not_in_the_table_nobody_may(roles: frozenset[str], action: str) -> None:
    assert action in ACTIONS or not may(Caller("x", roles, "session"), action)


def test_without_a_role_nothing_is_allowed_and_unknown_roles_count_for_nothing() -> None:
    assert not any(may(caller(), action) or may(caller("root"), action) for action in ACTIONS)


@given(ROLE_SETS, st.sampled_from(["anna", "ben"]), st.booleans(), st.integers(-(10**7), 10**7))
def test_only_another_person_who_is_an_approver_decides_and_only_in_time(
    roles: frozenset[str], name: str, approve: bool, later: int
) -> None:
    good = "approver" in roles and name != "anna" and 0 <= later < people.PROPOSAL_S
    try:
        found = decide(PROPOSAL, Caller(name, roles, "session"), approve, "d" * 64, NOW + later)
    except (PermissionDenied, UserError):
        assert not good
    else:
        assert good
        assert (found.decided, found.decided_by) == ("approved" if approve else "rejected", name)


def test_a_word_is_on_what_was_seen_and_there_is_one() -> None:
    with pytest.raises(UserError, match="not what you have seen"):
        decide(PROPOSAL, caller("approver"), True, "e" * 64, NOW)
    once = decide(PROPOSAL, caller("approver"), False, "d" * 64, NOW)
    with pytest.raises(UserError, match="was rejected by ben"):
        decide(once, caller("approver", name="eva"), True, "d" * 64, NOW)


def test_waiting_grows_with_wrong_passwords_and_has_an_end() -> None:
    waits = [wait_s(count) for count in range(60)]
    assert waits[: people.FREE_TRIES + 1] == [0.0] * (people.FREE_TRIES + 1)
    assert waits == sorted(waits)
    assert waits[-1] == people.LONGEST_WAIT_S


def test_a_session_ends_unused_or_after_its_day_or_before_its_time() -> None:
    session = Session("anna", "c", NOW, NOW)
    assert not is_over(session, NOW + people.IDLE_S - 1)
    assert is_over(session, NOW + people.IDLE_S)
    assert is_over(replace(session, used=NOW + people.LIFE_S - 1), NOW + people.LIFE_S)
    assert is_over(session, NOW - 1)


@pytest.mark.parametrize("password", ["short", "x" * 11, "x" * 1025, "anna-lena-1234"])
def test_a_weak_password_is_refused(password: str) -> None:
    with pytest.raises(UserError):
        people.check_password(password, "anna-lena")


@pytest.mark.parametrize("name", ["", "Anna", "a b", "../x", "x" * 64, "-a"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        people.check_name(name)


@pytest.mark.parametrize("roles", [(), ("root",), ("viewer", "admn")])
def test_an_account_has_roles_that_exist(roles: tuple[str, ...]) -> None:
    with pytest.raises(UserError):
        people.check_roles(roles)
