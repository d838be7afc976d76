"""The demo's plants over a real OPC UA server: a process that plays what they recorded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.opcua.source import OpcUaSource
from reuna.adapters.toml_file import read_toml
from reuna.core.opcua_settings import OpcUaSettings
from reuna.core.settings import parse
from reuna.core.source_settings import SOURCES, sources_of
from reuna.demo.opcua_server import RUN, main, played
from reuna.demo.plants import PLANTS
from reuna.fleet.ports import free_ports
from tests.opcua import Reader

pytestmark = [pytest.mark.system]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[OpcUaSettings]:
    """Of plant 2, while its server runs."""
    (port,) = free_ports(1)
    words = ["--port", port, "--plant", 2, "--speed", 1800, "--run", "test/fault-01-0", "--sources", "s.toml"]
    process = subprocess.Popen(
        [sys.executable, "-m", "reuna.demo.opcua_server", *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"serving opc.tcp://127.0.0.1:{port}\n"
    (found,) = sources_of(parse(SOURCES, [read_toml(tmp_path / "s.toml")]))
    assert isinstance(found, OpcUaSettings)
    yield found
    process.terminate()
    process.communicate()
    assert process.returncode == 0


async def test_a_plants_recording_is_read_in_its_order_with_its_units(settings: OpcUaSettings) -> None:
    signals, (plant,) = played([2], ["test/fault-01-0"])
    assert [(tag.name, tag.unit) for tag in settings.tags] == [(each.name, each.unit) for each in signals]
    reader = Reader(OpcUaSource(settings, SystemClock(), ThreadOffload()))
    await reader.until(lambda it: len(it.values(signals[0].name)) >= 10)
    await reader.stream.aclose()
    assert not [gap for gap in reader.gaps if gap.tags], "every tag is there, in its unit"
    counts = [len(reader.values(each.name)) for each in signals]
    assert min(counts) >= 8, "a row has all signals, also those that never change"
    for place, each in enumerate(signals):
        recorded = iter(changes(plant.rows[:, place].tolist()))
        assert all(value in recorded for value in changes(reader.values(each.name))), each.name


def changes(values: list[float]) -> list[float]:
    """Without values that are said again."""
    return [value for value, _ in groupby(values)]


def test_every_plant_has_the_run_that_is_played_without_being_told() -> None:
    _, plants = played(range(PLANTS), [RUN])
    assert [each.rows.shape[1] for each in plants] == [53] * PLANTS


def test_a_run_that_no_plant_has_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--run", "train/none"], "plant 0 has no run train/none; it has train/normal"),
        (["--speed", "0"], "between"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert said in capsys.readouterr().err
