"""Refusals are said often enough to be seen and seldom enough to fill no disk."""

from __future__ import annotations

from reuna.core.tally import EACH, KEPT, Tally


def test_the_first_refusals_get_a_line_each_and_a_million_get_few() -> None:
    tally = Tally()
    said = [times for _ in range(1_000_000) if (times := tally.count("edge-7", "weight"))]
    assert said[:EACH] == list(range(1, EACH + 1))
    assert len(said) < 2 * EACH + 20


def test_a_peer_that_is_refused_often_does_not_silence_another() -> None:
    tally = Tally()
    for _ in range(EACH + 1):
        tally.count("edge-7", "weight")
    assert tally.count("edge-7", "weight") == 0
    assert tally.count("edge-7", "range") == tally.count("edge-8", "weight") == 1


def test_what_is_counted_stays_bounded() -> None:
    tally = Tally()
    for number in range(KEPT + 10):
        tally.count(f"edge-{number}", "weight")
    assert len(tally.counts) <= KEPT
