"""Another unit or a gap in a node's tables is one message, before anything is trained."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reuna.adapters.worker import Desk, Worker
from reuna.core.errors import ContractBroken, DataError
from reuna.fleet.check import check_project
from reuna.fleet.open_project import open_settings
from reuna.template import make_project

AI4I = Path(__file__).parents[3] / "examples" / "ai4i"
AIR = "Air temperature [K]"
RECORDING = "pump-2/train/fault-0-1.csv"


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A fresh project with its sample data."""
    make_project(tmp_path / "pumps", sample=True)
    return tmp_path / "pumps"


def change(path: Path, edit: Callable[[list[list[str]]], None]) -> None:
    """Edit the cells of a CSV file, its header among them."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    edit(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def in_kelvin(header: str) -> Callable[[list[list[str]]], None]:
    """The mistake: a temperature column in kelvin, under the header given."""

    def edit(rows: list[list[str]]) -> None:
        place = rows[0].index("temperature_c")
        rows[0][place] = header
        for row in rows[1:]:
            row[place] = f"{float(row[place]) + 273.15:.3f}"

    return edit


def test_the_sample_is_as_its_project_declares(sample: Path) -> None:
    assert len(check_project(sample, None)["nodes"]) == 4


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("temperature_c", "column 'temperature_c': its median is 324"),
        ("temperature_c [K]", "column 'temperature_c [K]': its unit is 'K', the contract says 'degC'"),
    ],
    ids=["the range tells", "the header tells"],
)
def test_kelvin_in_place_of_degrees_is_one_message_with_the_next_step(
    sample: Path, header: str, said: str
) -> None:
    change(sample / "data" / RECORDING, in_kelvin(header))
    with pytest.raises(DataError) as caught:
        check_project(sample, None)
    (line,) = caught.value.message.splitlines()
    assert line.startswith("pump-2: unit of 'temperature_c': 240 of 4800 fail, none may; ")
    assert f"{sample / 'data' / RECORDING}, {said}" in line
    assert "degC" in line
    assert caught.value.next_step == ContractBroken.default_next_step


async def test_a_node_refuses_kelvin_before_it_trains(sample: Path, tmp_path: Path) -> None:
    change(sample / "data" / RECORDING, in_kelvin("temperature_c"))
    settings = open_settings(sample, [])
    made = tmp_path / "made"
    made.mkdir()
    desk = Desk(sample, sample / "data" / "pump-2", tmp_path / "lent", made)
    (tmp_path / "lent").mkdir()
    worker = await Worker.start(desk, tmp_path / "log")
    try:
        with pytest.raises(
            ContractBroken, match=r"'temperature_c': its median is 324.*the contract says -20 to 150 degC"
        ):
            await worker.open(settings.entry, settings.settings)
    finally:
        await worker.close()


def test_an_empty_cell_of_the_sample_is_found_before_training(sample: Path) -> None:
    def empty(rows: list[list[str]]) -> None:
        rows[7][rows[0].index("flow_m3_h")] = rows[9][rows[0].index("current_a")] = ""

    change(sample / "data" / RECORDING, empty)
    with pytest.raises(DataError) as caught:
        check_project(sample, None)
    where = f"{sample / 'data' / RECORDING}, line 8, column 'flow_m3_h': an empty cell"
    assert f"missing of 'flow_m3_h': 1 of 4800 fail, none may; {where}" in caught.value.message


def machines(folder: Path, air: np.ndarray, name: str = AIR, unit: str = "") -> Path:
    """A node of AI4I with such air temperatures; ``unit`` goes to the Parquet field."""
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    pytest.importorskip("sklearn", reason="the extra `sklearn` is not installed")
    from pyarrow import parquet

    rng, rows = np.random.default_rng(1), len(air)
    columns = {
        name: air,
        "Process temperature [K]": rng.normal(310, 1.5, rows),
        "Rotational speed [rpm]": rng.normal(1500, 180, rows),
        "Torque [Nm]": rng.normal(40, 10, rows),
        "Tool wear [min]": rng.uniform(0, 250, rows),
        "Machine failure": rng.integers(0, 2, rows),
        "Type": ["L"] * rows,
    }
    table = arrow.table(columns)
    if unit:
        table = table.cast(table.schema.set(0, table.schema.field(0).with_metadata({"unit": unit})))
    for split in ("train", "validation", "test"):
        (folder / "type-l" / split).mkdir(parents=True)
        parquet.write_table(table, folder / "type-l" / split / "rows.parquet")
    return folder


KELVIN = np.random.default_rng(2).normal(300, 2, 50)


def test_machines_in_kelvin_are_as_declared(tmp_path: Path) -> None:
    assert check_project(AI4I, machines(tmp_path, KELVIN, unit="K"))["nodes"]


@pytest.mark.parametrize(
    ("name", "unit", "said"),
    [
        (AIR, "", "'Air temperature [K]': its median is 2"),
        (AIR, "degC", "'Air temperature [K]': its unit is 'degC', the contract says 'K'"),
        ("Air temperature [degC]", "", "'Air temperature [degC]': its unit is 'degC', the contract says 'K'"),
    ],
    ids=["the range tells", "the field's metadata tell", "the header tells"],
)
def test_machines_in_degrees_are_refused(tmp_path: Path, name: str, unit: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        check_project(AI4I, machines(tmp_path, KELVIN - 273.15, name, unit))
    assert f"{tmp_path}/type-l/train/rows.parquet, column {said}" in caught.value.message
    assert caught.value.next_step == ContractBroken.default_next_step
