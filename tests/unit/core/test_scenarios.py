"""``[test]`` in ``reuna.toml``."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.core.errors import SettingsError
from reuna.core.project import PROJECT, project_settings
from reuna.core.scenarios import ScenarioSettings
from reuna.core.settings import Source, environment, flags
from reuna.learn.strategies import TAKES


def asked(*sources: Source, **values: Any) -> ScenarioSettings:
    file = Source("reuna.toml", {"project": {"name": "p"}, "test": values})
    return project_settings([file, *sources], TAKES).test


def test_without_a_word_every_fault_is_played_and_none_is_required() -> None:
    found = asked()
    assert (found.faults, found.required) == (("dropout", "poisoned", "late-labels"), ())
    assert (found.rounds, found.min_score, found.site) == (None, None, "")


def test_faults_are_played_once_each_and_in_one_order() -> None:
    assert asked(faults=["late-labels", "dropout", "dropout"]).faults == ("dropout", "late-labels")
    assert asked(faults=[]).faults == ()


def test_environment_and_flags_name_faults_with_commas() -> None:
    assert asked(environment(PROJECT, "REUNA_", {"REUNA_TEST_FAULTS": "poisoned, dropout"})).faults == (
        "dropout",
        "poisoned",
    )
    assert asked(flags(["test.faults=", "test.required=dropout"])).required == ("dropout",)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"faults": ["storm"]}, r"test.faults is \['storm'\], may hold dropout, poisoned, late-labels"),
        ({"faults": [["dropout"], 3]}, "test.faults is"),
        ({"required": ["storm"]}, "test.required"),
        ({"poison": "rows"}, "must be one of updates, labels"),
        ({"late_part": 0.0}, "must be between 0.01 and 1"),
        ({"max_lost": -0.1}, "must be between 0 and 1"),
        ({"poison_factor": float("nan")}, "test.poison_factor"),
        ({"min_score": float("inf")}, "test.min_score"),
        ({"rounds": 0}, "test.rounds"),
        ({"round": 3}, "test.round is not a setting; did you mean test.rounds?"),
    ],
)
def test_a_mistake_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        asked(**values)
