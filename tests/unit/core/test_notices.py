"""An alarm of a node is told when it begins, when more moves, and when it ends; once each."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import BadMessage
from reuna.core.notices import (
    KINDS,
    LONGEST,
    MOST_KEPT,
    MOST_SIGNALS,
    Book,
    Found,
    begun_anew,
    least_rows,
    noticed,
    told,
)

OIL = Found("inputs", "pumps", "ab", alarm=True, regime="1", signals=("oil",), rows=600)
QUIET = msgspec.structs.replace(OIL, alarm=False, signals=())
LOOKS = st.lists(
    st.builds(
        Found,
        st.sampled_from(KINDS),
        st.just("pumps"),
        st.just("ab"),
        alarm=st.booleans(),
        regime=st.sampled_from(["", "1"]),
        signals=st.lists(st.sampled_from("abc"), unique=True).map(tuple),
        rows=st.just(600),
    ),
    max_size=40,
)


def after(*looks: Found) -> Book:
    book = Book()
    for at, found in enumerate(looks, 1):
        book = noticed(book, found, at)
    return book


def test_what_goes_on_as_before_is_no_news() -> None:
    assert after(QUIET) == Book()
    assert after(OIL, OIL, OIL) == after(OIL)


def test_an_alarm_that_grows_is_told_again_and_keeps_its_beginning() -> None:
    more = msgspec.structs.replace(OIL, signals=("heat", "oil"))
    first, second, end = (each.notice for each in after(OIL, more, OIL, QUIET).kept)
    assert (first.state, first.signals, first.since_ns) == ("raised", ("oil",), 1)
    assert (second.state, second.signals, second.since_ns, second.at_ns) == ("raised", ("oil", "heat"), 1, 2)
    assert (end.state, end.since_ns, end.at_ns, end.going) == ("ended", 1, 4, 0)


def test_each_regime_and_kind_is_an_alarm_of_its_own_and_they_are_counted() -> None:
    answers = Found("answers", "pumps", "ab", alarm=True, rows=60)
    book = after(OIL, answers, QUIET)
    assert [(each.notice.kind, each.notice.going) for each in book.kept] == [
        ("inputs", 1),
        ("answers", 2),
        ("inputs", 1),
    ]
    assert list(book.going) == ["pumps/answers/"]


def test_with_another_release_no_alarm_goes_on() -> None:
    book = begun_anew(after(OIL), "pumps", 9)
    assert (book.going, book.kept[-1].notice.state, book.kept[-1].notice.at_ns) == ({}, "ended", 9)
    assert begun_anew(book, "pumps", 10) is book
    assert begun_anew(after(OIL), "other", 9) == after(OIL)


@given(LOOKS)
def test_notices_are_numbered_without_a_gap_and_say_how_many_alarms_go_on(looks: list[Found]) -> None:
    book = after(*looks)
    assert [each.number for each in book.kept] == list(range(1, len(book.kept) + 1))
    going: set[tuple[str, str]] = set()
    for each in book.kept:
        about = (each.notice.kind, each.notice.regime)
        if each.notice.state == "ended":
            going.remove(about)
        else:
            going.add(about)
        assert each.notice.going == len(going)
    assert {tuple(key.split("/")[1:]) for key in book.going} == going


@given(LOOKS)
def test_a_look_twice_is_a_look(looks: list[Found]) -> None:
    book = after(*looks)
    if looks:
        assert noticed(book, looks[-1], 99) is book


def test_what_is_kept_is_bounded_and_numbers_go_on() -> None:
    book = after(*[OIL, QUIET] * MOST_KEPT)
    assert len(book.kept) == MOST_KEPT
    assert book.newest == 2 * MOST_KEPT
    assert [each.number for each in book.after(0, 2)] == [MOST_KEPT + 1, MOST_KEPT + 2]
    many = msgspec.structs.replace(OIL, signals=tuple(map(str, range(99))))
    assert len(after(many).kept[0].notice.signals) == MOST_SIGNALS
    assert after(many, many) == after(many)


def test_what_leaves_says_which_node_and_which_alarm() -> None:
    raised, ended = (told("edge-1", each.notice) for each in after(OIL, QUIET).kept)
    assert (raised.id, ended.id) == ("edge-1/pumps/inputs/1/1-1", "edge-1/pumps/inputs/1/1-2")
    assert raised.alarm == ended.alarm == "edge-1/pumps/inputs/1/1"
    assert least_rows([raised, msgspec.structs.replace(ended, rows=5)]) == 5


@pytest.mark.parametrize(
    "wrong", [{"signals": ("x" * (LONGEST + 1),)}, {"signals": ("x",) * 65}, {"regime": "x" * 300}]
)
def test_a_notice_that_says_too_much_does_not_leave(wrong: dict[str, object]) -> None:
    notice = msgspec.structs.replace(after(OIL).kept[0].notice, **wrong)
    with pytest.raises(BadMessage):
        told("edge-1", notice)
