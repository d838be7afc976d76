"""Which answers go out to a sink: in order, each once, old ones dropped and counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.outcomes import Outcome
from reuna.core.sinks import (
    MOST_NUMBERS,
    NS,
    Chosen,
    Progress,
    begun,
    counted,
    following,
    numbers,
    slim,
    told,
    wrong_address,
)


@dataclass(frozen=True)
class Kept:
    number: int
    outcome: Outcome
    role: str = "live"
    kept_ns: int = 0


def outcome(number: int, answer: float | None = 1.0, **more: object) -> Outcome:
    said = Outcome("p", 1, "d" * 64, number * NS, (number + 2) * NS, "answered", answer, (0.25, 0.75))
    return msgspec.structs.replace(said, **more)


def answers(*values: float | None, first: int = 1) -> list[Kept]:
    return [Kept(first + place, outcome(first + place, value)) for place, value in enumerate(values)]


def sent(found: list[Outcome]) -> list[int]:
    return [each.first_ns // NS for each in found]


def test_all_answers_go_out_in_order_and_the_place_is_behind_them() -> None:
    out, after = following(Progress(0), answers(1.0, 0.0, 0.0), Chosen(), 0)
    assert (sent(out), after.number, after.dropped) == ([1, 2, 3], 3, 0)


def test_answers_of_a_release_on_trial_and_of_another_project_stay() -> None:
    trial = Kept(1, outcome(1), "shadow")
    other = Kept(2, outcome(2, project="q"))
    out, after = following(Progress(0), [trial, other, *answers(1.0, first=3)], Chosen(project="p"), 0)
    assert (sent(out), after.number, after.dropped) == ([3], 3, 0)


def test_only_changes_of_answer_or_state_go_out_where_that_is_asked() -> None:
    safe = Kept(5, outcome(5, 1.0, state="safe"))
    waiting = [*answers(0.0, 0.0, 1.0, 1.0), safe]
    out, after = following(Progress(0), waiting, Chosen("changes"), 0)
    assert sent(out) == [1, 3, 5]
    out, _ = following(after, [Kept(6, outcome(6, 1.0, state="safe"))], Chosen("changes"), 0)
    assert out == [], "what was said before a restart is no change"


def test_an_answer_that_is_no_number_is_one_change_and_not_each_time_another() -> None:
    out, _ = following(Progress(0), answers(math.nan, math.nan), Chosen("changes"), 0)
    assert sent(out) == [1]


def test_what_waited_longer_than_it_may_is_dropped_and_counted() -> None:
    old, young = Kept(1, outcome(1), kept_ns=0), Kept(2, outcome(2), kept_ns=90 * NS)
    out, after = following(Progress(0), [old, young], Chosen(keep_s=60), 100 * NS)
    assert (sent(out), after.dropped) == ([2], 1)


def test_what_the_store_forgot_meanwhile_is_counted_as_dropped() -> None:
    _, after = following(Progress(4), answers(1.0, first=10), Chosen(), 0)
    assert (after.number, after.dropped) == (10, 5)


def test_a_new_sink_begins_with_the_next_answer_and_a_new_store_at_its_beginning() -> None:
    assert begun(None, 17) == Progress(17)
    assert begun(Progress(17, sent=3), 20) == Progress(17, sent=3)
    assert begun(Progress(17, sent=3), 5) == Progress(0, sent=3)


def test_a_delivery_counts_as_sent_or_as_refused() -> None:
    waits = Progress(3, why="R304 away")
    assert counted(waits, 2, "") == Progress(3, sent=2)
    assert counted(waits, 2, "no") == Progress(3, refused=2, why="no")


@given(st.lists(st.integers(1, 4), max_size=8), st.integers(0, 30))
def test_however_answers_are_read_in_pieces_each_is_sent_or_dropped_once(pieces: list[int], now: int) -> None:
    total = sum(pieces)
    every = [Kept(number, outcome(number), kept_ns=number * NS) for number in range(1, total + 1)]
    progress, found = Progress(0), list[int]()
    for piece in pieces:
        waiting = every[progress.number : progress.number + piece]
        out, after = following(progress, waiting, Chosen(keep_s=10), now * NS)
        found += sent(out)
        progress = counted(after, len(out), "")
    assert found == sorted(set(found))
    assert progress.sent + progress.dropped == total
    assert (progress.sent, progress.number) == (len(found), total)


def test_what_leaves_has_an_id_of_its_window_and_no_word_of_the_code() -> None:
    said = told("edge-1", outcome(1, math.inf, output=(math.nan, 1.0), why="secret"))
    assert said.id == "edge-1/p/1000000000-3000000000"
    assert (said.answer, said.output, said.confidence) == (None, (None, 1.0), None)
    assert b"secret" not in msgspec.json.encode(said)
    assert numbers([said, said]) == 6


def test_free_text_and_a_long_output_do_not_reach_the_egress() -> None:
    long = outcome(1, output=(0.0,) * (MOST_NUMBERS + 1), why="secret")
    assert slim(long) == outcome(1, output=())
    out, _ = following(Progress(0), [Kept(1, long)], Chosen(), 0)
    assert out == [slim(long)]


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("https://alarms.plant/reuna", True),
        ("file:/var/lib/answers", True),
        ("mqtts://broker:8883/reuna/answers", True),
        ("spiffe://line-4/cloud/cloud", False),
        ("https://alarms plant/", False),
        ("https://" + "a" * 200, False),
    ],
)
def test_an_address_is_of_a_sink_and_fits_the_ledger(address: str, good: bool) -> None:
    assert (not wrong_address(address)) == good
