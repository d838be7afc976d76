"""The rules by which a node keeps a release or goes back."""

from __future__ import annotations

import pytest

from reuna.core.errors import SettingsError
from reuna.core.health import KEY, Health, as_settings, health
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.learn.strategies import TAKES


def declared(**rules: object) -> Health:
    values = {"project": {"name": "pumps"}, "operate": rules}
    return health(project_settings([Source("reuna.toml", values)], TAKES).settings)


def test_a_project_that_says_nothing_has_rules_all_the_same() -> None:
    assert declared() == Health()
    assert as_settings(Health()) == {}


def test_what_reuna_toml_says_travels_among_the_settings() -> None:
    assert declared(trial_s=30, max_safe=0.1, min_windows=5, max_restarts=0) == Health(30, 5, 0.1, 1000, 0)


@pytest.mark.parametrize("wrong", [{"max_safe": 1.5}, {"min_windows": 0}, {"max_restarts": -1}, {"trial": 3}])
def test_a_rule_that_cannot_be_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=f"operate.{next(iter(wrong))}"):
        declared(**wrong)


@pytest.mark.parametrize("text", ["", "[]", '{"max_safe": "much"}', "\udc80"])
def test_a_text_that_is_none_of_ours_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="rules of health"):
        health({KEY: text})
