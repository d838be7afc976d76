"""Server strategies against their papers' equations, written out plainly."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from reuna.core.errors import PlanError, SettingsError
from reuna.core.project import BUFFERED, STRATEGY_NAMES, project_settings
from reuna.core.settings import Source, flags
from reuna.learn.strategies import STRATEGIES, TAKES, client_settings, strategy

MODEL = np.array([1.0, -2.0], np.float32)
DELTA = np.array([0.5, 0.25])
WHOLE = (
    "byzantine",
    "keep",
    "iterations",
    "buffer",
    "max_staleness",
)  #: settings that are numbers of something


def test_fedavg_adds_the_mean_difference() -> None:
    _, model = STRATEGIES["fedavg"].apply({}, MODEL, DELTA, 1, {"server_rate": 0.5})
    assert model.tolist() == [1.25, -1.875]


def test_the_settings_know_whose_steps_have_updates_of_several_rounds() -> None:
    assert set(BUFFERED) == {name for name, each in STRATEGIES.items() if each.buffered}


def test_fedavgm_keeps_a_velocity() -> None:
    fedavgm = STRATEGIES["fedavgm"]
    settings = {"momentum": 0.5, "server_rate": 1.0}
    state, model = fedavgm.apply(fedavgm.init(2), MODEL, DELTA, 1, settings)
    state, model = fedavgm.apply(state, model, DELTA, 2, settings)
    assert state["velocity"].tolist() == [0.75, 0.375]
    assert model.tolist() == [1.0 + 0.5 + 0.75, -2.0 + 0.25 + 0.375]


def test_fedadam_moves_by_the_ratio_of_its_moments() -> None:
    fedadam = STRATEGIES["fedadam"]
    settings = {"server_rate": 0.1, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3}
    state, model = fedadam.apply(fedadam.init(2), MODEL, DELTA, 1, settings)
    first, second = 0.1 * DELTA, 0.01 * DELTA**2
    assert np.allclose(model, MODEL + 0.1 * first / (np.sqrt(second) + 1e-3), atol=1e-6)
    assert np.allclose(state["second"], second, atol=1e-7)


def test_applying_leaves_its_arguments_as_they_are() -> None:
    fedavgm = STRATEGIES["fedavgm"]
    state, model, delta = fedavgm.init(2), MODEL.copy(), DELTA.copy()
    fedavgm.apply(state, model, delta, 1, {})
    assert model.tolist() == MODEL.tolist()
    assert delta.tolist() == DELTA.tolist()
    assert state["velocity"].tolist() == [0, 0]


def test_only_fedprox_tells_its_learners_of_a_proximal_term() -> None:
    settings = {"mu": 0.5, "epochs": 2}
    assert client_settings("fedprox", settings) == {"mu": 0.5, "epochs": 2}
    assert client_settings("fedavg", settings) == {"epochs": 2}
    assert client_settings("fedprox", {})["mu"] == 0.01


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PlanError, match="no strategy named 'fedmagic'; known are fedavg"):
        strategy("fedmagic")


def asked(**of_strategy: float | str) -> dict[str, Any]:
    """The settings of a project whose reuna.toml says this under [strategy]."""
    values = {"project": {"name": "p"}, "strategy": of_strategy}
    return dict(project_settings([Source("reuna.toml", values)], TAKES).settings)


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_a_project_leaves_out_is_the_strategys_own(name: str) -> None:
    chosen, settings = STRATEGIES[name], asked(name=name)
    assert chosen.server_settings(settings) == chosen.server
    assert {key: client_settings(name, settings)[key] for key in chosen.client} == chosen.client


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_project_may_set_every_setting_of_every_strategy(name: str) -> None:
    chosen = STRATEGIES[name]
    values = {key: 2 if key in WHOLE else 0.5 for key in [*chosen.server, *chosen.client]}
    settings = asked(name=name, **values)
    assert chosen.server_settings(settings) == {key: values[key] for key in chosen.server}
    assert all(client_settings(name, settings)[key] == 0.5 for key in chosen.client)


@pytest.mark.parametrize(
    ("setting", "wrong"), [("beta1", 1.0), ("beta2", -0.1), ("tau", 0.0), ("server_rate", -1.0)]
)
def test_a_setting_with_which_a_strategy_cannot_work_is_refused(setting: str, wrong: float) -> None:
    with pytest.raises(SettingsError, match=rf"strategy\.{setting} is .*, must be between"):
        asked(name="fedadam", **{setting: wrong})


ALL = {key: 2 if key in WHOLE else 0.5 for taken in TAKES.values() for key in taken}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_setting_that_the_chosen_strategy_does_not_use_is_refused_with_the_one_that_does(name: str) -> None:
    others = sorted(set(ALL) - set(STRATEGIES[name].server) - set(STRATEGIES[name].client))
    with pytest.raises(SettingsError) as caught:
        asked(name=name, **ALL)
    lines = caught.value.message.splitlines()
    assert sorted(line.split()[0] for line in lines) == [f"strategy.{each}" for each in others]
    for line in lines:
        said = re.fullmatch(rf"strategy\.(\w+) is set, but {name} does not use it; (.+) do(es)?", line)
        assert said is not None
        assert {each for each in TAKES if said[1] in TAKES[each]} == set(said[2].split(" and "))
    assert all(f"--set strategy.{each}=" in caught.value.next_step for each in others)


def test_a_setting_of_the_strategy_is_refused_also_when_it_is_the_strategys_default() -> None:
    with pytest.raises(SettingsError, match="strategy.momentum is set, but fedavg does not use it"):
        asked(momentum=0.9)


def test_a_flag_takes_back_what_the_file_sets_for_another_strategy() -> None:
    file = Source("reuna.toml", {"project": {"name": "p"}, "strategy": {"name": "fedavgm", "momentum": 0.5}})
    other = ["strategy.name=fedavg", "strategy.momentum="]
    assert "momentum" not in project_settings([file, flags(other)], TAKES).settings
    with pytest.raises(SettingsError, match="strategy.momentum is set, but fedavg does not use it"):
        project_settings([file, flags(other[:1])], TAKES)


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [("byzantine", -1), ("keep", -1), ("iterations", 0), ("smoothing", 0.0), ("radius", -1.0)],
)
def test_a_setting_with_which_a_robust_strategy_cannot_work_is_refused(setting: str, wrong: float) -> None:
    name = next(each for each in TAKES if setting in TAKES[each])
    with pytest.raises(SettingsError, match=rf"strategy\.{setting} is .*, must be between"):
        asked(name=name, **{setting: wrong})


def test_a_project_may_choose_every_strategy_and_no_other() -> None:
    assert tuple(STRATEGIES) == STRATEGY_NAMES


def test_centred_clipping_keeps_the_step_of_the_round_as_its_centre() -> None:
    clipping = STRATEGIES["centred-clipping"]
    state, model = clipping.apply(clipping.init(2), MODEL, DELTA, 1, {"server_rate": 0.5})
    assert state["centre"].tolist() == DELTA.tolist()
    assert model.tolist() == [1.25, -1.875]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_projects_own_key_never_takes_the_place_of_the_strategys(name: str) -> None:
    for own in TAKES[name]:
        values = {"project": {"name": "p"}, "strategy": {"name": name}, "train": {own: 0.1}}
        with pytest.raises(SettingsError, match=f"train.{own} has the name of another setting"):
            project_settings([Source("reuna.toml", values)], TAKES)
