"""Where a release answers: what `reuna.toml` may say, and which windows are for the fog."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import SettingsError
from reuna.core.inference import Inference, as_settings, doubt, inference
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.exchange.predict import held
from reuna.wire.release import About

NAMED = {"project.name": "pumps"}
LIVE = {**NAMED, "contract.every_s": 1.0, "signals": {"a": {"unit": "bar"}}}
TAKES: dict[str, Any] = {"fedavg": ()}


def read(**values: Any) -> Inference:
    said = {**NAMED, **{f"inference.{name}": value for name, value in values.items()}}
    return inference(project_settings([Source("reuna.toml", said)], TAKES).settings)


def test_without_a_word_a_release_answers_at_the_edge_and_its_lineage_says_nothing() -> None:
    assert read() == Inference()
    assert as_settings(Inference()) == {}
    assert not Inference().asks


def test_what_is_declared_comes_back_from_the_settings_of_the_run() -> None:
    said = read(place="edge-then-fog", fog_project="pumps-big", unsure_below=0.7, fog_timeout_s=3)
    assert said == Inference("edge-then-fog", "pumps-big", 0.7, 3.0)
    assert said.asks


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"place": "cloud"}, "inference.place"),
        ({"place": "edge-then-fog"}, "inference.fog_project is missing"),
        ({"place": "edge-then-fog", "fog_project": "pumps"}, "inference.fog_project is this project"),
        ({"fog_project": "big"}, 'inference.place is "edge": nothing would be asked'),
        ({"place": "fog", "fog_project": "big"}, 'inference.place is "fog": nothing would be asked'),
        ({"unsure_below": 1.1}, "inference.unsure_below"),
        ({"fog_timeout_s": 0}, "inference.fog_timeout_s"),
    ],
)
def test_a_mistake_names_its_setting(values: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as told:
        read(**values)
    assert line in str(told.value)


def test_a_release_whose_place_cannot_be_read_does_not_stand() -> None:
    said = project_settings([Source("reuna.toml", LIVE)], TAKES).settings
    with pytest.raises(SettingsError):
        held("d", About("pumps", 1, "r", "0" * 64), {**said, "inference": "no JSON"})


def test_a_text_that_is_none_of_ours_is_an_error() -> None:
    with pytest.raises(SettingsError, match="where a release answers cannot be read"):
        inference({"inference": '{"place": "moon"}'})


@given(st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1)))
def test_the_fog_is_asked_below_the_threshold_and_at_one_always(
    below: float, confidence: float | None
) -> None:
    asks = bool(doubt(Inference("edge-then-fog", "big", below), confidence))
    assert asks == (below == 1 or (confidence is not None and confidence < below))
    assert not doubt(Inference("edge", "", below), confidence)
    assert not doubt(Inference("fog", "", below), confidence)
