"""What is left of a node's tables when some columns alone may be read."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.columns import project_folder
from reuna.adapters.tables import read_folder
from reuna.core.errors import DataError


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    (tmp_path / "whole" / "train").mkdir(parents=True)
    return tmp_path / "whole"


def test_the_copy_reads_as_the_original_does_without_the_other_columns(whole: Path, tmp_path: Path) -> None:
    text = '\ufeffminute; flow ;"shift; leader";note\n0;1,5;Ann;"a; b"\n\n1;;Bob;"say ""no"""\n'
    (whole / "train" / "pump.csv").write_text(text, encoding="utf-8")
    withheld = project_folder(whole, ("note", "flow", "not there"), tmp_path / "part")
    assert withheld == ("minute", "shift; leader")
    (full,), (part,) = read_folder(whole)["train"], read_folder(tmp_path / "part")["train"]
    assert list(part.columns) == ["flow", "note"]
    for name, cells in part.columns.items():
        assert cells.tolist() == full.columns[name].tolist()
    written = (tmp_path / "part" / "train" / "pump.csv").read_text(encoding="utf-8")
    assert "Ann" not in written
    assert "leader" not in written


WORDS = st.text(alphabet='ab1.,; "', max_size=6)


@given(st.data(), st.sampled_from(",;"), st.integers(1, 4))
def test_whatever_the_names_and_cells_the_copy_reads_as_the_original_does(
    data: st.DataObject, separator: str, width: int
) -> None:
    names = data.draw(
        st.lists(WORDS.map(str.strip).filter(bool), min_size=width, max_size=width, unique=True)
    )
    rows = data.draw(st.lists(st.lists(WORDS, min_size=width, max_size=width), min_size=1, max_size=3))
    kept = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder, "whole"), Path(folder, "part")
        whole.mkdir()
        with (whole / "pump.csv").open("w", newline="") as file:
            written = separator if width > 1 else ","  # of one name no other can be told
            csv.writer(file, delimiter=written, quoting=csv.QUOTE_ALL).writerows([names, *rows])
        withheld = project_folder(whole, kept, part)
        (full,), (copy,) = read_folder(whole)["all"], read_folder(part)["all"]
    assert withheld == tuple(sorted(set(names) - set(kept)))
    assert list(copy.columns) == [name for name in names if name in kept]
    for name, cells in copy.columns.items():
        assert cells.tolist() == pytest.approx(full.columns[name].tolist(), nan_ok=True)


def test_one_column_with_decimal_commas_stays_one_column(whole: Path, tmp_path: Path) -> None:
    (whole / "pump.csv").write_text("minute;flow\n0;1,5\n1;2\n")
    project_folder(whole, ("flow",), tmp_path / "part")
    (part,) = read_folder(tmp_path / "part")["all"]
    assert part.columns["flow"].tolist() == ["1,5", "2"]


def test_separators_in_quoted_names_separate_nothing(whole: Path, tmp_path: Path) -> None:
    (whole / "pump.csv").write_text('"a;b;c",d\n1,2\n')
    project_folder(whole, ("a;b;c", "d"), tmp_path / "part")
    for folder in (whole, tmp_path / "part"):
        (table,) = read_folder(folder)["all"]
        assert list(table.columns) == ["a;b;c", "d"]


def test_a_table_without_the_columns_and_a_file_that_is_no_table_are_not_shown(
    whole: Path, tmp_path: Path
) -> None:
    (whole / "train" / "pump.csv").write_text("flow\n1\n")
    (whole / "people.csv").write_text("name\nAnn\n")
    (whole / "notes.txt").write_text("Ann")
    (whole / "train" / "link.txt").symlink_to(whole / "notes.txt")
    project_folder(whole, ("flow",), tmp_path / "part")
    shown = sorted(p.relative_to(tmp_path / "part").as_posix() for p in (tmp_path / "part").rglob("*.*"))
    assert shown == ["train/pump.csv"]


def test_what_was_shown_before_under_other_terms_is_gone(whole: Path, tmp_path: Path) -> None:
    (whole / "pump.csv").write_text("flow,heat\n1,2\n")
    for column in ("flow", "heat"):
        project_folder(whole, (column,), tmp_path / "part")
    assert (tmp_path / "part" / "pump.csv").read_text() == "heat\n2\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"flow,heat\n1\n", "line 2"), (b'flow\n"a', "cannot be read"), (b"\xff\n", "cannot be read")],
)
def test_a_table_that_cannot_be_read_is_named(whole: Path, tmp_path: Path, text: bytes, said: str) -> None:
    (whole / "pump.csv").write_bytes(text)
    with pytest.raises(DataError, match=f"pump.csv.*{said}"):
        project_folder(whole, ("flow",), tmp_path / "part")


def test_parquet_keeps_its_types_and_loses_what_its_metadata_tell_of_the_others(
    whole: Path, tmp_path: Path
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"flow": np.arange(3, dtype=np.int16), "leader": ["Ann", "Bob", "Ann"]})
    parquet.write_table(table.replace_schema_metadata({"note": "by Ann"}), whole / "pump.parquet")
    assert project_folder(whole, ("flow",), tmp_path / "part") == ("leader",)
    part = tmp_path / "part" / "pump.parquet"
    assert parquet.read_table(part).schema.field("flow").type == arrow.int16()
    assert parquet.read_table(part).column("flow").to_pylist() == [0, 1, 2]
    assert b"Ann" not in part.read_bytes()
    assert b"leader" not in part.read_bytes()
