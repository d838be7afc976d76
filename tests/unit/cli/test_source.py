"""`reuna source`: live values, recording, and what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from reuna.adapters.local_store import StoredReadings
from reuna.cli import app
from reuna.core.errors import DataError, NoReadings, NotUsable, SettingsError

SOURCES = """
[sources.press]
kind = "files"
folder = "{folder}/in"
time = "time"
every_s = 0.05
[sources.press.tags]
oil = {{ unit = "bar", quality = "status", good = [0], uncertain = [1] }}
heat = {{ unit = "degC" }}
[store]
folder = "{folder}/store"
"""
ROWS = "time,oil,status,heat\n2027-01-15T08:00:00Z,1.5,0,20\n2027-01-15T08:00:01Z,1.25,1,\n"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text(ROWS)
    path = tmp_path / "sources.toml"
    path.write_text(SOURCES.format(folder=tmp_path))
    return path


def source(*words: object) -> Result:
    return CliRunner().invoke(app, ["source", *map(str, words)])


def told(*words: object) -> dict:
    done = source(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_live_values_are_shown_with_unit_quality_and_time(settings: Path) -> None:
    done = source("test", settings, "--seconds", "0.3")
    assert done.exit_code == 0
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("press")]
    assert rows == [
        ["press", "oil", "1.25", "bar", "uncertain", "2027-01-15", "08:00:01.000Z", "2"],
        ["press", "heat", "20", "degC", "good", "2027-01-15", "08:00:00.000Z", "1"],
    ]


def test_the_same_for_scripts(settings: Path) -> None:
    (settings.parent / "in" / "b.csv").write_text("time,oil\n5,6\n")
    press = told("test", settings, "--seconds", "0.3")["sources"]["press"]
    assert press["tags"]["heat"]["value"] == 20.0
    assert press["tags"]["oil"]["bad"] == 1
    assert press["error"] is None
    assert press["gaps"][0]["reason"] == "b.csv: no column of quality 'status'"


def test_a_tag_that_gives_nothing_is_an_error_that_names_it(settings: Path) -> None:
    (settings.parent / "in" / "a.csv").write_text("time,oil,status\n1,2,0\n")
    done = source("test", settings, "--seconds", "0.3")
    assert isinstance(done.exception, NoReadings)
    assert str(done.exception) == "no reading of press: heat"
    assert "gap in press (heat): a.csv: no column 'heat'" in done.stdout


def test_a_source_that_cannot_begin_is_its_own_error(settings: Path) -> None:
    (settings.parent / "in" / "a.csv").unlink()
    (settings.parent / "in").rmdir()
    done = source("test", settings, "--seconds", "0.3")
    assert isinstance(done.exception, DataError)
    assert "source press: there is no folder" in str(done.exception)


def test_a_mistake_in_the_settings_is_told_at_its_line(settings: Path) -> None:
    settings.write_text(settings.read_text().replace('time = "time"\n', 'speed = 2.0\ntime = "time"\n'))
    done = source("test", settings)
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith("sources.toml:5:1: sources.press.speed is for a replay")


def test_what_is_recorded_is_stored_once_however_often_it_begins(settings: Path) -> None:
    for _ in range(2):
        state = told("record", settings, "--seconds", "0.3")
        assert (state["readings"], state["kept"]) == (3, 3)
    stored = told("stored", settings, "--last", "60")
    assert stored["store"]["readings"] == 3
    assert stored["sources"]["press"]["tags"]["oil"]["quality"] == "uncertain"
    assert "store: 3 readings" in source("stored", settings).stdout
    beside = StoredReadings(settings.parent / "store")
    assert [tag.unit for tag in beside.tags()["press"]] == ["bar", "degC"]
    beside.close()


def test_what_is_stored_is_looked_at_in_pieces(settings: Path) -> None:
    rows = "".join(f"2027-01-15T{hour:02d}:00:00Z,{hour},0,20\n" for hour in range(24))
    (settings.parent / "in" / "a.csv").write_text("time,oil,status,heat\n" + rows)
    told("record", settings, "--seconds", "0.3")
    assert told("stored", settings, "--last", "7200.5")["sources"]["press"]["tags"]["oil"]["readings"] == 3
    assert told("stored", settings, "--last", "1e9")["sources"]["press"]["tags"]["oil"]["readings"] == 24


def test_nothing_is_stored_before_it_is_recorded(settings: Path) -> None:
    assert isinstance(source("stored", settings).exception, NotUsable)


def test_without_a_folder_for_the_store_nothing_is_recorded(settings: Path) -> None:
    settings.write_text(settings.read_text().partition("[store]")[0])
    for command in ("record", "stored"):
        done = source(command, settings)
        assert isinstance(done.exception, SettingsError)
        assert "there is no store.folder" in str(done.exception)
