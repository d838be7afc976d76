"""`sources.toml`: what is read, and how much of it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.core.errors import SettingsError
from reuna.core.settings import Source, parse
from reuna.core.source_settings import SOURCES, StoreSettings, sources_of, store_of

TAG = {"unit": "bar", "scale": 2, "quality": "status", "good": [0, "ok"], "uncertain": [1]}


def read(**press: Any) -> Any:
    table = {"kind": "files", "folder": "/data", "time": "time", "tags": {"oil": TAG}, **press}
    kept = {key: value for key, value in table.items() if value is not None}
    return sources_of(parse(SOURCES, [Source("sources.toml", {"sources": {"press": kept}})]))


def test_a_source_has_its_tags_with_units_and_columns() -> None:
    (found,) = read()
    (oil,) = found.tags
    assert (found.name, found.kind, found.every_s) == ("press", "files", 1.0)
    assert (oil.name, oil.column, oil.unit, oil.scaling.scale) == ("oil", "oil", "bar", 2.0)
    assert (oil.good, oil.uncertain) == (("0", "ok"), ("1",))


@pytest.mark.parametrize(
    ("press", "said"),
    [
        ({"kind": None}, "sources.press has no kind, expected one of files, replay"),
        ({"kind": "opc"}, "sources.press.kind is 'opc', must be one of files, replay"),
        ({"folder": None}, "sources.press has no folder"),
        ({"tags": {}}, "sources.press has no tags"),
        ({"time": None}, "sources.press has no time"),
        ({"every": 1}, "sources.press.every is not a setting; did you mean every_s"),
        ({"every_s": 0.0}, "sources.press.every_s is 0.0, must be between"),
        ({"speed": 2.0}, "sources.press.speed is for a replay"),
        ({"kind": "replay", "every_s": 2.0}, "a replay gives its readings when they are due"),
        ({"tags": {"oil": {"units": "bar"}}}, "sources.press.tags.oil.units is not a setting"),
        ({"tags": {"oil": {"unit": 1}}}, "sources.press.tags.oil.unit is 1, expected text"),
        ({"tags": {"oil": 5}}, "sources.press.tags.oil is 5, expected a table"),
        ({"tags": {"oil": {"quality": "q"}}}, "sources.press.tags.oil names a column of quality but no good"),
        ({"tags": {"oil": {"good": [0]}}}, "sources.press.tags.oil says what is good but names no column"),
        ({"tags": {"o\n": {}}}, "printable"),
    ],
)
def test_a_mistake_names_the_setting(press: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said.replace(".", r"\.")):
        read(**press)


def test_no_source_at_all_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="sources is empty"):
        sources_of(parse(SOURCES, []))


def test_a_store_is_there_when_its_folder_is_named() -> None:
    assert store_of(parse(SOURCES, [])) is None
    said = {"store": {"folder": "/store", "mib": 64}}
    assert store_of(parse(SOURCES, [Source("sources.toml", said)])) == StoreSettings("/store", 30.0, 64)
