"""What examining a source finds, from what came of it."""

from __future__ import annotations

import pytest

from reuna.core.findings import (
    CHECKS,
    DOUBTFUL,
    FINE,
    LEVELS,
    MIB,
    WRONG,
    Heard,
    Listened,
    certificate,
    hear,
    judged,
    named,
    room,
)
from reuna.core.sources import BAD, NS, Batch, Gap, column

DAY = 86_400.0
T = 1_800_000_000 * NS


def found(listened: Listened, period_s: float | None = None) -> list[tuple[str, str, str]]:
    every = judged("press", listened, period_s)
    assert all(each.check in CHECKS and each.level in LEVELS for each in every)
    assert all(bool(each.next_step) is (each.level != FINE) for each in every)
    return [(each.check, each.level, each.what) for each in every]


def heard(*batches: Batch, seconds: float = 10.0) -> Listened:
    listened = Listened({"oil": Heard(), "heat": Heard()}, seconds=seconds)
    for batch in batches:
        hear(listened, batch)
    return listened


def both(values: list[float], received_ns: int = T, quality: list[int] | None = None, **more) -> Batch:
    times = [T + n for n in range(len(values))]
    codes = [7 if each else 0 for each in quality] if quality else None
    one = column(times, values, quality, codes)
    return Batch({"oil": one, "heat": column(times, [-each for each in values])}, received_ns, **more)


def test_a_source_that_is_well_is_fine() -> None:
    assert found(heard(both([2.0, 3.0]))) == [
        ("readings", FINE, "2 tags give readings"),
        ("clock", FINE, "its times are within 0.1 s of ours"),
    ]


def test_tags_that_give_nothing_or_only_bad_readings_are_named_with_their_code() -> None:
    oil = {"oil": column([T], [1.0], [BAD], [2])}
    assert found(heard(Batch(oil, T)))[:2] == [
        ("readings", WRONG, "no reading of heat"),
        ("quality", WRONG, "only bad readings of oil, code 2"),
    ]
    some = found(heard(both([2.0, 3.0], quality=[BAD, 0])))
    assert ("quality", DOUBTFUL, "some bad readings of oil") in some


@pytest.mark.parametrize(
    ("late_s", "level", "what"),
    [
        (-5.0, WRONG, "its times are 5.0 s ahead of this machine's clock"),
        (-1.0, FINE, "its times are within 1.0 s of ours"),
        (30.0, WRONG, "its newest reading was 30.0 s old when it came"),
    ],
)
def test_clocks_that_differ_are_told(late_s: float, level: str, what: str) -> None:
    told = found(heard(both([2.0], T + int(late_s * NS))))
    assert ("clock", level, what) in told


def test_readings_that_were_filled_in_later_tell_nothing_of_the_clock() -> None:
    assert "clock" not in [check for check, _, _ in found(heard(both([2.0], T + 90 * NS, historical=True)))]


def test_tags_that_are_slower_than_declared_are_named() -> None:
    listened = heard(both([2.0, 3.0]))
    assert ("rate", WRONG, "at most 2 readings where 10 are declared, of oil, heat") in found(listened, 1.0)
    assert "rate" not in [check for check, _, _ in found(listened, 4.0)]


def test_a_tag_that_is_stuck_is_told_unless_it_is_0_or_1() -> None:
    assert ("stuck", DOUBTFUL, "always the same value of oil, heat") in found(heard(both([2.5] * 10)))
    assert "heat" in found(heard(both([1.0] * 10)))[-1][2]  # -1
    for values in ([2.5] * 9, [0.0] * 10):
        assert "stuck" not in [check for check, _, _ in found(heard(both(values)))]


def test_gaps_are_told_once_each() -> None:
    gaps = (Gap(0, 1, "no column 'a'"), Gap(1, 2, "no column 'a'"))
    assert found(heard(both([2.0], gaps=gaps)))[0] == ("gap", DOUBTFUL, "no column 'a'")
    assert [check for check, _, _ in found(heard(both([2.0], gaps=gaps)))].count("gap") == 1


def test_a_certificate_that_ends_soon_is_doubtful() -> None:
    ends = [certificate("s", "ours", days * DAY) for days in (-3, 29, 31)]
    assert [each.level for each in ends] == [WRONG, DOUBTFUL, FINE]
    assert ends[0].what == "ours ended 3 days ago"


def test_a_store_that_cannot_grow_to_its_bound_is_told() -> None:
    assert room("/s", 2000 * MIB, 0, 1024 * MIB).level == FINE
    assert room("/s", 500 * MIB, 0, 1024 * MIB).level == DOUBTFUL
    assert room("/s", 500 * MIB, 600 * MIB, 1024 * MIB).level == FINE
    assert room("/s", 10 * MIB, 0, 1024 * MIB).level == WRONG


def test_long_lists_of_names_are_cut() -> None:
    assert named([str(n) for n in range(7)]) == "0, 1, 2, 3, 4 and 2 more"
