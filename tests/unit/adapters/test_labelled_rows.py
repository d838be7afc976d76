"""Labelled rows are known again by their cells, wherever they lie, and nothing else of them is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters import labelled_rows as rows_of
from reuna.adapters.labelled_rows import labelled_rows
from reuna.core.errors import DataError

CELL = st.sampled_from(["1.5", "2", "", "on", "-3e9"])
ROW = st.tuples(CELL, CELL, st.sampled_from(["", "0", "1", "nan"]))


def write(folder: Path, tables: dict[str, list[tuple[str, str, str]]], split: str = "train") -> Path:
    (folder / split).mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        lines = ["flow [m3/h],heat,fault", *(",".join(row) for row in rows)]
        (folder / split / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder


@given(rows=st.lists(ROW, max_size=12), cut=st.integers(0, 12), random=st.randoms())
def test_rows_are_the_same_in_whatever_files_and_order_they_lie(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], cut: int, random: object
) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one = write(tmp_path_factory.mktemp("one"), {"a": rows})
    two = write(tmp_path_factory.mktemp("two"), {"b": mixed[:cut], "c": mixed[cut:]})
    found = labelled_rows(one, "fault")
    assert found == labelled_rows(two, "fault")
    assert len(found) == len({row for row in rows if row[2] not in ("", "nan")})


def test_tables_for_tests_do_not_count_where_there_are_some_for_training(tmp_path: Path) -> None:
    write(tmp_path, {"a": [("1", "2", "0")]})
    write(tmp_path, {"a": [("1", "3", "0")]}, split="test")
    assert len(labelled_rows(tmp_path, "fault")) == 1


def test_a_label_is_found_by_its_name_without_the_unit(tmp_path: Path) -> None:
    write(tmp_path, {"a": [("1", "2", "0"), ("", "2", "1")]})
    assert len(labelled_rows(tmp_path, "flow")) == 1


def test_parquet_counts_too(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"flow": [1.0, 2.0, 3.0], "fault": [0, None, 1]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert len(labelled_rows(tmp_path, "fault")) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"flow\n1\n", "has no column 'fault'"),
        (b"flow,fault\n\xff,1\n", "is not UTF-8"),
        (b'flow,fault\n"1,1\n', "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_file(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"a.csv.* {said}"):
        labelled_rows(tmp_path, "fault")


def test_more_rows_than_can_be_kept_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "MOST", 3)
    write(tmp_path, {"a": [(str(at), "2", "0") for at in range(3)]})
    assert len(labelled_rows(tmp_path, "fault")) == 3
    write(tmp_path, {"b": [("9", "2", "0")]})
    with pytest.raises(DataError, match="more than 3 labelled rows"):
        labelled_rows(tmp_path, "fault")
