"""Tables for training from what was read: the rows that live inference would have had."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters.local_store import LocalStore
from reuna.adapters.tables import read_table
from reuna.cli import app
from reuna.core.project import TASKS
from reuna.core.source_settings import StoreSettings
from reuna.core.sources import BAD, GOOD, NS, Batch, Tag, column
from reuna.edge import export as exporting
from reuna.template import make_project

BEGAN = 1_800_000_000
TAGS = [
    Tag("vibration_mm_s", "mm/s"),
    Tag("temperature_c", "degC"),
    Tag("flow_m3_h", "m3/h"),
    Tag("current_a", "A"),
]
SOURCES = """
[sources.pump]
kind = "files"
folder = "/none"
time = "t"
[sources.pump.tags]
vibration_mm_s = { unit = "mm/s" }
temperature_c = { unit = "degC" }
flow_m3_h = { unit = "m3/h" }
current_a = { unit = "A" }
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_project(tmp_path / "pumps", sample=False, task=TASKS[0])
    (tmp_path / "sources.toml").write_text(SOURCES + f'[store]\nfolder = "{tmp_path / "store"}"\n')
    return tmp_path


def read(place: Path, *rows: int) -> None:
    """Readings of all tags at these rows of the pumps' grid of ten seconds, the row's number as value."""
    store = LocalStore(StoreSettings(str(place / "store"), 30.0, 64), lambda: 1 << 40)
    for row in rows:
        at = (BEGAN + 10 * row) * NS
        quality = [BAD if row == 3 else GOOD]
        found = {tag.name: column([at], [row + 0.25], quality) for tag in TAGS}
        if row == 2:
            del found["flow_m3_h"]
        store.append("pump", TAGS, Batch(found, 0), at)
    store.close()


def export(place: Path, *more: str) -> dict[str, int]:
    words = [
        "source",
        "export",
        str(place / "sources.toml"),
        str(place / "out"),
        "--project",
        str(place / "pumps"),
    ]
    done = CliRunner().invoke(app, [*words, "--json", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return {Path(each["file"]).name: each["rows"] for each in json.loads(done.stdout)["tables"]}


def test_rows_of_the_contract_s_grid_become_tables_that_keep_the_contract(place: Path) -> None:
    read(place, *range(6), 7, 8, *range(40, 43))
    assert export(place) == {"2027-01-15T080000Z.csv": 9, "2027-01-15T080640Z.csv": 3}
    table = read_table(place / "out" / "2027-01-15T080000Z.csv")
    assert list(table.columns)[1:] == [
        "current_a [A]",
        "flow_m3_h [m3/h]",
        "temperature_c [degC]",
        "vibration_mm_s [mm/s]",
        "fault",
    ]
    flow = table.columns["flow_m3_h [m3/h]"].tolist()
    assert [str(each) for each in flow] == [
        "0.25",
        "1.25",
        "nan",
        "nan",
        "4.25",
        "5.25",
        "nan",
        "7.25",
        "8.25",
    ]
    assert table.columns["second"][1] - table.columns["second"][0] == 10
    with (place / "out" / "2027-01-15T080000Z.csv").open() as file:
        assert {row["fault"] for row in csv.DictReader(file)} == {""}


def test_a_time_span_and_pieces_change_no_cell(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(place, *range(30))
    monkeypatch.setattr(exporting, "PIECE", 7)
    found = export(place, "--from", "2027-01-15T08:00:50", "--to", "2027-01-15T08:02:30")
    assert found == {"2027-01-15T080050Z.csv": 10}
    table = read_table(place / "out" / "2027-01-15T080050Z.csv")
    assert table.columns["current_a [A]"].tolist() == [row + 0.25 for row in range(5, 15)]


def test_a_long_stretch_becomes_several_tables(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(place, *range(30))
    monkeypatch.setattr(exporting, "MOST_CELLS", 4 * 12)
    assert list(export(place).values()) == [12, 12, 6]


def test_nothing_in_that_time_and_a_table_that_is_there_are_said(place: Path) -> None:
    read(place, 0, 1)
    words = [
        "source",
        "export",
        str(place / "sources.toml"),
        str(place / "out"),
        "--project",
        str(place / "pumps"),
    ]
    none = CliRunner().invoke(app, [*words, "--from", "2028-01-01"])
    assert "no reading of the contract's signals" in str(none.exception)
    export(place)
    again = CliRunner().invoke(app, words)
    assert "is there already" in str(again.exception)
    odd = CliRunner().invoke(app, [*words, "--to", "noon"])
    assert "'noon', which is no time" in str(odd.exception)


def test_parquet_has_the_same_cells_and_says_units(place: Path) -> None:
    pytest.importorskip("pyarrow")
    read(place, *range(6))
    export(place)
    export(place, "--parquet")
    one, two = (read_table(place / "out" / f"2027-01-15T080000Z{suffix}") for suffix in (".csv", ".parquet"))
    for name in two.columns:
        if name != "fault":
            found = one.columns[one.find(name) or ""]
            assert found.tobytes() == two.columns[name].tobytes()
            assert one.unit(one.find(name) or "") == two.unit(name)
    assert two.unit("flow_m3_h") == "m3/h"
    assert sorted(path.name for path in (place / "out").iterdir()) == [one.path.name, two.path.name]
