"""What of a changed contract breaks data that kept the old one."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.core.contract import Contract, Signal, Windows
from reuna.core.contract_changes import breaking, changes, unraised

OLD = {"unit": "degC", "min": 0.0, "max": 100.0, "max_gap_s": 60.0, "max_missing": 0.1, "every_s": 1.0}


def of(**said: Any) -> Contract:
    return Contract(time="at", signals=(Signal("t", **said),))


@pytest.mark.parametrize(
    ("said", "breaks", "text"),
    [
        ({"max": 120.0}, False, "compatible: t: max 100 -> 120"),
        ({"max": 80.0}, True, "breaking: t: max 100 -> 80"),
        ({"max": None}, False, "compatible: t: max 100 -> none"),
        ({"min": -5.0}, False, "compatible: t: min 0 -> -5"),
        ({"min": 5.0}, True, "breaking: t: min 0 -> 5"),
        ({"min": None}, False, "compatible: t: min 0 -> none"),
        ({"unit": "K"}, True, "breaking: t: unit degC -> K"),
        ({"unit": ""}, False, "compatible: t: unit degC -> none"),
        ({"max_gap_s": 30.0}, True, "breaking: t: max_gap_s 60 -> 30"),
        ({"max_gap_s": None}, False, "compatible: t: max_gap_s 60 -> none"),
        ({"max_missing": 0.5}, False, "compatible: t: max_missing 0.1 -> 0.5"),
        ({"max_bad": 0.0}, True, "breaking: t: max_bad 0.05 -> 0"),
        ({"every_s": 2.0}, True, "breaking: t: every_s 1 -> 2"),
        ({"every_s": None}, False, "compatible: t: every_s 1 -> none"),
        ({"type": "integer"}, True, "breaking: t: type float -> integer"),
        ({"type": "text"}, False, "compatible: t: type float -> text"),
        ({"quality": "q", "good": (0.0,)}, True, "breaking: t: quality none -> q"),
    ],
)
def test_one_change_of_a_signal_is_breaking_or_not(said: dict[str, Any], breaks: bool, text: str) -> None:
    (change,) = changes(of(**OLD), of(**{**OLD, **said}))
    assert (change.breaking, str(change)) == (breaks, text)


def test_another_spelling_of_a_unit_is_no_change() -> None:
    assert changes(of(**OLD), of(**{**OLD, "unit": "celsius"})) == ()


def test_good_values_that_only_grow_are_compatible() -> None:
    old, new = of(quality="q", good=(0.0,)), of(quality="q", good=(0.0, 1.0))
    assert not breaking(changes(old, new))
    assert breaking(changes(new, old))


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        (Contract(), Contract(signals=(Signal("t"),)), True),
        (Contract(signals=(Signal("t"),)), Contract(), False),
        (Contract(), Contract(label="y"), True),
        (Contract(label="y"), Contract(), False),
        (Contract(label="y"), Contract(label="y", max_unlabelled=0.5), False),
        (Contract(time="a"), Contract(time="b"), True),
        (Contract(), Contract(windows=Windows(rows=3)), True),
    ],
)
def test_a_change_of_the_whole_is_breaking_or_not(old: Contract, new: Contract, breaks: bool) -> None:
    found = changes(old, new)
    assert found
    assert breaking(found) is breaks


def test_a_change_under_the_same_version_is_said() -> None:
    assert (
        unraised(Contract(version=3), Contract(version=3, label="y"))
        == "[contract] version is 3; raise it to 4"
    )
    assert unraised(Contract(version=3), Contract(version=2)) == "[contract] version is 2; raise it to 4"
    assert not unraised(Contract(version=3), Contract(version=4, label="y"))
    assert not unraised(Contract(version=3), Contract(version=3))
