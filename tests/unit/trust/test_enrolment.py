"""Tokens, invitations, renewals, clones: decided without a clock, a disk or a network."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import ADMISSION, NotAdmitted
from reuna.trust.enrolment import (
    CLOCK_SKEW,
    DAY,
    KEPT_BOOTS,
    Boots,
    Invite,
    Node,
    Token,
    fogs_over,
    hear,
    judge_hosts,
    judge_invite,
    judge_name,
    judge_renewal,
    judge_room,
    renew_at,
    retry_after,
    secret_hash,
    shape,
)

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
TOKEN = Token("10.0.0.5:8444", "ab" * 32, "c2VjcmV0", "fog", "mill-3")
INVITE = Invite("i1", b"h", "fog", "mill-3", created=100.0, expires=200.0)
NODE = Node("mill-3", "fog", "mill-3", "5d", "k1", issued=0.0, expires=7 * DAY)
GRACE = 90 * DAY


def refused(reason: str) -> object:
    assert reason in ADMISSION
    return pytest.raises(NotAdmitted, check=lambda error: error.reason == reason)


@given(NAMES, st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=60))
def test_a_token_is_read_as_it_was_written(name: str, secret: str) -> None:
    token = Token("[::1]:8444", "0f" * 32, secret, "edge", name)
    assert Token.parse(f"  {token.text()}\n") == token


def test_a_token_is_one_word_that_a_shell_leaves_alone() -> None:
    allowed = set(string.ascii_letters + string.digits + "-_")
    assert set(TOKEN.text()) <= allowed


def outcome(text: str) -> str | Token:
    try:
        return Token.parse(text)
    except NotAdmitted as error:
        return error.reason


@given(st.data())
def test_a_token_with_one_character_changed_is_refused(data: st.DataObject) -> None:
    text = TOKEN.text()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(string.ascii_letters + string.digits).filter(lambda c: c != text[at]))
    changed = text[:at] + other + text[at + 1 :]
    assert outcome(changed) in {"malformed", TOKEN}, "only unused bits of base64 may differ"


@pytest.mark.parametrize(
    "text", ["", "x", "reuna-1-", "reuna-1-????", "reuna-2-" + TOKEN.text()[8:], "a" * 2000]
)
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with refused("malformed"):
        Token.parse(text)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_of_tokens_fail_otherwise(data: bytes) -> None:
    with refused("malformed"):
        Token.parse("reuna-1-" + data.hex())


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x", "host:²"])
def test_a_token_without_a_whole_address_is_refused(address: str) -> None:
    with refused("malformed"):
        Token.parse(Token(address, "ab" * 32, "s", "fog", "mill-3").text())


def test_an_open_invitation_is_good_until_the_moment_it_expires() -> None:
    assert judge_invite(INVITE, 199.9) == INVITE
    with refused("expired"):
        judge_invite(INVITE, 200.0)


def test_a_used_or_cancelled_or_unknown_invitation_is_refused_with_its_reason() -> None:
    with refused("used"):
        judge_invite(Invite("i", b"h", "fog", "a", 0.0, 200.0, used=5.0), 100.0)
    with refused("cancelled"):
        judge_invite(Invite("i", b"h", "fog", "a", 0.0, 200.0, cancelled=5.0), 100.0)
    with refused("unknown"):
        judge_invite(None, 100.0)


def test_a_name_with_a_living_certificate_is_not_given_away() -> None:
    judge_name("mill-3", None, 0.0)
    judge_name("mill-3", NODE, 7 * DAY)
    with refused("taken"):
        judge_name("mill-3", NODE, 7 * DAY - 1)
    with refused("taken"):  # revoked, but its certificate would still convince a nats-server
        judge_name("mill-3", Node("mill-3", "fog", "", "5d", "k1", 0.0, 7 * DAY, revoked=1.0), 2.0)


@pytest.mark.parametrize("name", ["", "A", "a b", "a.b", "../a", "a" * 64])
def test_what_is_no_name_is_not_invited(name: str) -> None:
    with refused("malformed"):
        judge_name(name, None, 0.0)


def test_a_site_has_as_many_edges_as_it_may() -> None:
    judge_room(0, map(str, range(99)), "x")
    judge_room(2, ["a"], "b")
    judge_room(2, ["a", "b"], "b")
    with refused("limit"):
        judge_room(2, ["a", "b"], "c")


def test_a_living_certificate_renews_also_when_a_newer_one_exists() -> None:
    judge_renewal(NODE, "k0", 100.0, 99.0, GRACE, revoked=False)


def test_an_ended_certificate_renews_within_the_grace_period_if_it_is_the_newest() -> None:
    judge_renewal(NODE, "k1", 100.0, 100.0 + GRACE - 1, GRACE, revoked=False)
    with refused("expired"):
        judge_renewal(NODE, "k1", 100.0, 100.0 + GRACE, GRACE, revoked=False)
    with refused("certificate"):
        judge_renewal(NODE, "k0", 100.0, 101.0, GRACE, revoked=False)


@given(st.floats(0, 1e9), st.booleans())
def test_a_revoked_node_never_renews(now: float, known: bool) -> None:
    gone = Node("mill-3", "fog", "", "5d", "k1", 0.0, 100.0, revoked=1.0)
    with refused("revoked"):
        judge_renewal(gone if known else None, "k1", 100.0, now, GRACE, revoked=not known)


def test_a_host_is_certified_for_one_node_but_loopback_for_all() -> None:
    judge_hosts(
        ["gw.mill", "127.0.0.1", "localhost", "::1"], {"gw.mill": "mill-3", "127.0.0.1": "x"}, "mill-3"
    )
    with refused("taken"):
        judge_hosts(["gw.mill"], {"gw.mill": "mill-4"}, "mill-3")


@given(st.floats(0, 1e10), st.floats(1, 1e8))
def test_a_certificate_renews_at_two_thirds_of_its_life(begin: float, life: float) -> None:
    due = renew_at(begin - CLOCK_SKEW, begin + life)
    assert abs(due - begin - life * 2 / 3) <= 1e-5 * life + 1e-3


def test_a_certificate_that_ended_before_it_began_is_due_at_its_end() -> None:
    assert renew_at(100.0, 150.0) == 150.0


@given(st.integers(0, 10_000))
def test_a_failed_renewal_is_tried_again_within_the_hour_and_within_a_minute_once_it_matters(n: int) -> None:
    assert 5.0 <= retry_after(0.0, 1.0, n) <= 3600.0
    assert 5.0 <= retry_after(1.0, 1.0, n) <= 600.0


def heard(*boots: str) -> list[bool]:
    state, found = Boots(), []
    for boot in boots:
        state, doubled = hear(state, boot)
        found.append(doubled)
    return found


def test_restarts_raise_no_alarm_and_two_places_do() -> None:
    assert heard("a", "a", "b", "b", "c") == [False] * 5
    assert heard("a", "b", "a") == [False, False, True]
    assert heard("a", "b", "a", "b") == [False, False, True, True]


@given(st.lists(st.sampled_from("abcdef"), unique=True).flatmap(
    lambda order: st.lists(st.integers(1, 3), min_size=len(order), max_size=len(order)).map(
        lambda times: [boot for boot, n in zip(order, times, strict=True) for _ in range(n)]
    )
))  # fmt: skip
def test_a_node_that_only_restarts_is_never_taken_for_two(boots: list[str]) -> None:
    assert not any(heard(*boots))


def test_what_is_kept_of_earlier_starts_has_an_end() -> None:
    state = Boots()
    for number in range(1000):
        state, _ = hear(state, str(number))
    assert len(state.before) == KEPT_BOOTS


def test_a_secret_is_kept_as_a_hash_only() -> None:
    assert b"secret" not in secret_hash("secret")
    assert secret_hash("secret") == secret_hash("secret") != secret_hash("Secret")


def known(name: str, role: str, site: str, revoked: float | None = None, expires: float = 9.0) -> Node:
    return Node(name, role, site, "1", "ab", 0.0, expires, revoked)


def test_the_fleet_is_who_enrolled_and_who_a_fog_tells_of() -> None:
    nodes = [known("north", "fog", ""), known("press-1", "edge", "north"), known("south", "fog", "")]
    told = {"north": ("press-1", "press-2"), "listed": ("pump-1",)}
    assert shape(nodes, told, 1.0) == {
        "listed": ("pump-1",), "north": ("press-1", "press-2"), "south": (),
    }  # fmt: skip


def test_a_fog_that_tells_of_anothers_edge_does_not_get_it() -> None:
    nodes = [known("north", "fog", ""), known("south", "fog", ""), known("press-1", "edge", "north")]
    assert shape(nodes, {"south": ("press-1",)}, 1.0) == {"north": ("press-1",), "south": ()}


@pytest.mark.parametrize("gone", [{"revoked": 0.5}, {"expires": 0.5}])
def test_who_is_revoked_or_over_its_time_is_not_of_the_fleet(gone: dict[str, float]) -> None:
    edge = known("press-1", "edge", "north", **gone)
    assert shape([known("north", "fog", ""), edge], {"north": ("press-1",)}, 1.0) == {"north": ()}
    assert shape([known("north", "fog", "", **gone)], {"north": ("press-2",)}, 1.0) == {}


def test_fogs_under_fogs_are_of_the_fleet_while_those_over_them_are() -> None:
    nodes = [known("firm", "fog", "firm"), known("north", "fog", "firm"), known("press-1", "edge", "north")]
    told = {"firm": ("kiln", "north", "hall"), "hall": ("robot",), "north": ()}
    assert shape(nodes, told, 1.0) == {
        "firm": ("kiln",), "hall": ("robot",), "north": ("press-1",),
    }  # fmt: skip
    assert fogs_over(nodes, told) == {"north": "firm", "hall": "firm"}
    gone = [known("firm", "fog", "firm", revoked=0.5), *nodes[1:]]
    assert shape(gone, {}, 1.0) == {}
