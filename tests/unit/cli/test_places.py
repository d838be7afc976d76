"""What a place that starts says of files that are not there."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.cli import app
from reuna.cloud.settings import CLOUD
from reuna.core.errors import SettingsError
from reuna.core.settings import Option
from reuna.edge.settings import EDGE
from reuna.fleet import place
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.place import read_settings, there, waiting_for
from reuna.fog.settings import FOG

TABLES: dict[str, tuple[Option, ...]] = {"cloud": CLOUD, "fog": FOG, "edge": EDGE}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("idle")
    return make_fleet(folder / "fleet", "local", {"fog-1": {"edge-1": folder}})


def started(fleet: Fleet, place: str, *sets: str) -> dict[str, object]:
    file = fleet.of(place)[0].settings
    return read_settings(TABLES[place], f"REUNA_{place.upper()}_", file, list(sets), there)


@pytest.mark.parametrize("place", TABLES)
def test_a_place_whose_files_are_there_starts(fleet: Fleet, place: str) -> None:
    assert started(fleet, place)["fleet"] == "local"


@pytest.mark.parametrize(
    ("place", "name"),
    [(p, o.name) for p, table in TABLES.items() for o in table if o.there not in ("", "later")],
)
def test_a_file_or_folder_that_is_not_there_is_a_mistake(fleet: Fleet, place: str, name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is /nowhere, which is not there"):
        started(fleet, place, f"{name}=/nowhere")


def test_all_that_lacks_is_told_at_once_beside_other_mistakes(fleet: Fleet) -> None:
    with pytest.raises(SettingsError) as told:
        started(fleet, "edge", "tls.certificate=/a", "data=/b", "root=/c", "idle_s=-1")
    assert len(told.value.message.splitlines()) == 4


def test_a_file_where_a_folder_is_asked_for_is_a_mistake(fleet: Fleet) -> None:
    file = fleet.of("edge")[0].settings
    with pytest.raises(SettingsError, match="data is .*, which is no folder"):
        started(fleet, "edge", f"data={file}")


def test_a_node_that_trusts_already_needs_its_root_no_more(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "state").write_bytes(b"")
    assert started(fleet, "edge", "root=/nowhere", f"folder={tmp_path}")["root"] == "/nowhere"


def test_a_policy_may_come_later_and_one_line_says_so(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    settings = started(fleet, "edge", "policy=/nowhere/policy.toml")
    with caplog.at_level(logging.WARNING):
        waiting_for(EDGE, settings)
    assert [record.getMessage() for record in caplog.records] == [
        "waits for policy, /nowhere/policy.toml: it is not there yet"
    ]


@pytest.mark.parametrize("kind", ["cloud", "fog", "edge"])
def test_a_place_becomes_a_process_without_the_command_lines_libraries(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _python, words: became.append(words))
    CliRunner().invoke(app, [kind, "--settings", "p.toml", "--set", "name=a", "--set", "hello_s=2"])
    module = ["-P", "-m", "reuna.fleet.place"]
    said = [kind, "--settings", "p.toml", "--set", "name=a", "--set", "hello_s=2"]
    assert became == [[sys.executable, *module, *said]]


def test_what_starts_a_place_and_what_a_place_understands_are_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Path, list[str]]] = []
    monkeypatch.setattr(place, "serve", lambda kind, file, sets: asked.append((kind, file, sets)))
    place.main(place.command("edge", tmp_path, ["a=1", "b=2"])[4:])
    assert asked == [("edge", tmp_path, ["a=1", "b=2"])]
