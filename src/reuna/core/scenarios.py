"""What ``[test]`` in ``reuna.toml`` may say: which faults `reuna test` plants, and what it holds a run to.

dropout       one site is silent from the second half of the rounds on
poisoned      one site sends updates that are made up, or trains on wrong labels
late-labels   one site lacks a part of its labels during the first half of the rounds
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.settings import Check, Option, between, one_of

FAULTS = ("dropout", "poisoned", "late-labels")
POISONS = ("updates", "labels")


def each_of(*words: str) -> Check:
    """A check that every entry of a list is one of ``words``."""
    return lambda found: "" if all(each in words for each in found) else f"may hold {', '.join(words)}"


SCENARIOS: tuple[Option, ...] = (
    Option(
        "test.rounds", int, None, "rounds of each scenario; else as strategy.rounds", "", between(1, 100_000)
    ),
    Option("test.faults", list, list(FAULTS), "faults that are planted", check=each_of(*FAULTS)),
    Option("test.required", list, [], "faults of which a warning fails too", check=each_of(*FAULTS)),
    Option("test.site", str, "", "site that the faults hit; else the one whose updates weigh most"),
    Option(
        "test.min_score",
        float,
        None,
        "what the metric must reach at the worst site; else it must beat chance at each",
        check=between(-1e12, 1e12),
    ),
    Option(
        "test.max_lost",
        float,
        0.25,
        "largest part of what a site has gained over chance that a fault may cost it",
        check=between(0, 1),
    ),
    Option("test.poison", str, "updates", "what is false at a poisoned site", check=one_of(*POISONS)),
    Option(
        "test.poison_factor",
        float,
        -10.0,
        "what a poisoned site multiplies its updates by; below 0 they point the other way",
        check=between(-1e6, 1e6),
    ),
    Option(
        "test.late_part",
        float,
        0.5,
        "part of a site's training samples, the last ones, whose labels are late",
        check=between(0.01, 1),
    ),
)


@dataclass(frozen=True)
class ScenarioSettings:
    """``[test]``, checked. ``rounds`` and ``min_score`` are None where nothing is said."""

    rounds: int | None
    faults: tuple[str, ...]
    required: tuple[str, ...]
    site: str
    min_score: float | None
    max_lost: float
    poison: str
    poison_factor: float
    late_part: float


def scenario_settings(values: Mapping[str, Any]) -> ScenarioSettings:
    """The section out of all values of a project; every fault once, in the order of `FAULTS`."""
    return ScenarioSettings(
        rounds=values["test.rounds"],
        faults=tuple(fault for fault in FAULTS if fault in values["test.faults"]),
        required=tuple(fault for fault in FAULTS if fault in values["test.required"]),
        site=values["test.site"],
        min_score=values["test.min_score"],
        max_lost=values["test.max_lost"],
        poison=values["test.poison"],
        poison_factor=values["test.poison_factor"],
        late_part=values["test.late_part"],
    )
