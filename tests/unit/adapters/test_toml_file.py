"""Settings files: every mistake is told at its line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from reuna.adapters.toml_file import read_toml
from reuna.core.errors import SettingsError
from reuna.core.project import project_settings
from reuna.core.settings import flags
from reuna.learn.strategies import TAKES

MISTAKEN = """\
[project]
name = "pumps"
task = "anomaly-detektion"
metrik = "all"

[strategy]
rounds = "20"
name = "fedavgm"
momentum = 3
mu = 0.1

[signals]
flow = { unit = "m3/h", min = 5, maks = 9 }
heat = { min = 9, max = 1 }
power = 3

[train]
layers = [3, 4]

[telemetry]
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "reuna.toml"
    file.write_text(text)
    return file


def test_every_mistake_of_a_file_is_told_at_its_line_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as told:
        project_settings([read_toml(written(tmp_path, MISTAKEN))], TAKES)
    assert told.value.message.splitlines() == [
        "reuna.toml:3:1: project.task is 'anomaly-detektion', must be one of fault-classification, "
        "anomaly-detection, remaining-useful-life; did you mean anomaly-detection?",
        "reuna.toml:4:1: project.metrik is not a setting; did you mean project.metric?",
        "reuna.toml:7:1: strategy.rounds is '20', expected a whole number; write it without quotes",
        "reuna.toml:9:1: strategy.momentum is 3, must be between 0 and 0.9999",
        "reuna.toml:13:34: signals.flow.maks is not a setting; did you mean max?",
        "reuna.toml:14:1: signals.heat has min 9, which is not below max 1",
        "reuna.toml:15:1: signals.power is 3, expected a table with unit, type, min, max, rate_hz, every_s, "
        "max_gap_s, max_missing, quality, good, max_bad",
        "reuna.toml:20:2: telemetry is not a setting",
        "reuna.toml:10:1: strategy.mu is set, but fedavgm does not use it; fedprox does",
        "reuna.toml:18:1: train.layers is [3, 4], expected a plain value",
    ]


def test_a_section_may_be_empty_and_no_plain_value(tmp_path: Path) -> None:
    file = written(tmp_path, 'train = 1\nstrategy = "fedavg"\n[project]\nname = "p"\n[data]\n[round]\n')
    with pytest.raises(SettingsError) as told:
        project_settings([read_toml(file)], TAKES)
    assert told.value.message.splitlines() == [
        "reuna.toml:1:1: train is 1, expected a section [train]",
        "reuna.toml:2:1: strategy is 'fedavg', expected a section [strategy]",
    ]


def test_a_missing_setting_is_told_at_its_section(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"reuna\.toml:2:2: project\.name is missing: name of the project"
    ):
        project_settings([read_toml(written(tmp_path, '\n[project]\nmetric = "all"\n'))], TAKES)


def test_a_setting_of_another_section_is_recognised(tmp_path: Path) -> None:
    text = '[project]\nname = "p"\n[train]\n[run]\nmomentum = 0.5\n'
    with pytest.raises(
        SettingsError, match=r":5:1: run\.momentum is not a setting; did you mean strategy\.mom"
    ):
        project_settings([read_toml(written(tmp_path, text))], TAKES)


def test_where_the_last_word_comes_from_is_known(tmp_path: Path) -> None:
    file = read_toml(written(tmp_path, '[project]\nname = "p"\n[train]\nrate = 1\n'))
    places = project_settings([file, flags(["strategy.rounds=3"])], TAKES).places
    assert (places["train.rate"], places["strategy.rounds"]) == ("reuna.toml:4:1", "flags")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[project]\nname = pumps\n", "2:8", "Invalid value; text stands in quotes"),
        ("[run]\nlocal = True\n", "2:9", "true and false, in small letters"),
        ('name = "a\n', "1:10", "a quote is not closed"),
        ("a = 1\na = 2\n", "2:6", "the key is there twice"),
        ("[a]\n[a]\n", "2:3", "the section is there twice"),
        ("[project]\nname\n", "2:5", "a line is `key = value`"),
        ("a = 1 2\n", "1:7", "a list stands in [brackets]"),
        ("[project", "1:9", "Expected ']'"),
    ],
)
def test_what_is_no_toml_is_told_at_its_line_with_what_is_behind_it(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    with pytest.raises(SettingsError) as told:
        read_toml(written(tmp_path, text))
    assert f"reuna.toml:{where}: is not valid TOML: " in told.value.message
    assert what in told.value.message


def test_brackets_without_end_are_one_message(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not valid TOML"):
        read_toml(written(tmp_path, "a = " + "[" * 100_000))


def test_brackets_at_the_edge_of_the_reader_are_read_or_refused(tmp_path: Path) -> None:
    """The search for places may not be the one that gives up with a trace."""
    for depth in range(100, 1000, 50):
        file = written(tmp_path, "a = " + "[" * depth + "]" * depth)
        with suppress(SettingsError):
            assert "a" in read_toml(file).places
