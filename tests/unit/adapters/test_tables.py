"""Tables of a node's folder: the same from CSV and Parquet, and clear about what is wrong."""

from __future__ import annotations

import datetime
import decimal
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reuna.adapters import tables
from reuna.adapters.tables import Table, per_table, read_folder, read_table, require, stuck
from reuna.core.errors import DataError, ExtraMissing


def csv(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parquet(folder: Path, columns: dict[str, Any], name: str = "t.parquet") -> Path:
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet as writer

    writer.write_table(arrow.table(columns), folder / name)
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n2,y\n",
        "a;b\n1;x\n2;y\n",
        "\ufeffa,b\r\n1,x\r\n2,y\r\n",
        ' a , "b"\n 1 ,"x"\n2,y',
        "a,b\n\n1,x\n\n2,y\n\n",
    ],
    ids=["comma", "semicolon", "mark and Windows lines", "blanks and quotes", "empty lines"],
)
def test_csv_in_its_usual_forms(tmp_path: Path, text: str) -> None:
    table = read_table(csv(tmp_path, text))
    assert table.columns["a"].tolist() == [1.0, 2.0]
    assert table.columns["a"].dtype == np.float64
    assert table.columns["b"].tolist() == ["x", "y"]
    assert len(table) == 2


def test_an_empty_cell_is_no_number_and_no_text(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, "a,b,c\n1,,\n,x,\n"))
    assert np.isnan(table.columns["a"][1])
    assert table.columns["b"].tolist() == ["", "x"]
    assert np.isnan(table.columns["c"]).all()


def test_names_with_digits_stay_names(tmp_path: Path) -> None:
    assert read_table(csv(tmp_path, "id\n1_000\n2_000\n")).columns["id"].tolist() == ["1_000", "2_000"]


def test_a_separator_in_quotes_is_part_of_the_cell(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, 'a,"pressure, bar"\n"x, y",2\n'))
    assert table.columns["pressure, bar"].tolist() == [2.0]
    assert table.columns["a"].tolist() == ["x, y"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,b\n1,2\n3\n", r"line 3: ends after column 'a', 1 cells of 2"),
        ("a,b\n\n1,2\n1,2,3\n", r"line 4: '3' beyond the last column 'b', 3 cells of 2"),
        ("a,b,a\n1,2,3\n", r"line 1: the column 'a' stands twice"),
        ('a,b\n"1,2\n', "cannot be read"),
        (b"a,b\n\xe4,2\n", "is not UTF-8"),
    ],
)
def test_a_malformed_file_is_named_with_line_and_column(tmp_path: Path, text: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv.*{said}"):
        read_table(csv(tmp_path, text))


def test_a_row_over_several_lines_keeps_the_count(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 4: ends"):
        read_table(csv(tmp_path, 'a,b\n"x\ny",2\n3\n'))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet='ab1.,;"\n\r \0é', max_size=30) | st.binary(max_size=30))
def test_no_file_raises_anything_else(tmp_path: Path, text: Any) -> None:
    try:
        read_table(csv(tmp_path, text))
    except DataError:
        return


def test_both_kinds_of_file_give_the_same_table(tmp_path: Path) -> None:
    text = "n,f,s,t,b,d,empty\n1,0.5,x,2026-01-02 03:04:05,1,1.50,\n,,,,,,\n"
    when = datetime.datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as plants write it
    path = parquet(
        tmp_path,
        {
            "n": [1, None],
            "f": [0.5, None],
            "s": ["x", None],
            "t": [when, None],
            "b": [True, None],
            "d": [decimal.Decimal("1.50"), None],
            "empty": pytest.importorskip("pyarrow").array([None, None], "float32"),
        },
    )
    one, other = read_table(csv(tmp_path, text)), read_table(path)
    assert one.columns.keys() == other.columns.keys()
    for name in one.columns:
        left, right = one.columns[name], other.columns[name]
        assert left.dtype.kind == right.dtype.kind, name
        if name != "t":  # a time is text, in the writer's own digits
            np.testing.assert_array_equal(left, right)
    assert other.columns["t"][0].startswith("2026-01-02 03:04:05")


def test_categories_and_wide_integers_are_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    columns = {"k": arrow.array(["x", "y"]).dictionary_encode(), "w": arrow.array([2**60, 1], "int64")}
    table = read_table(parquet(tmp_path, columns))
    assert table.columns["k"].tolist() == ["x", "y"]
    assert table.columns["w"].tolist() == [2.0**60, 1.0]


def test_the_folders_name_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "site=7").mkdir()
    assert set(read_table(parquet(tmp_path / "site=7", {"a": [1]})).columns) == {"a"}


@pytest.mark.parametrize("columns", [{"a": [[1], [2]]}, {"a": [{"b": 1}]}])
def test_columns_of_columns_are_refused(tmp_path: Path, columns: Any) -> None:
    with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
        read_table(parquet(tmp_path, columns))


def test_parquet_without_rows_or_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        read_table(parquet(tmp_path, {"a": []}))
    with pytest.raises(DataError, match="cannot be read"):
        read_table(csv(tmp_path, "no parquet", "t.parquet"))
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "absent.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")


def test_parquet_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissing, match=r"t\.parquet is Parquet") as caught:
        read_table(tmp_path / "t.parquet")
    assert "reuna[parquet]" in caught.value.next_step


# --- what is asked of a table ----------------------------------------------------------------------


def test_a_matrix_is_in_the_order_asked_for(tmp_path: Path) -> None:
    matrix = read_table(csv(tmp_path, "a,b,c\n1,2,x\n3,,y\n")).matrix(["b", "a"])
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.array([[2, 1], [np.nan, 3]], np.float32))


@pytest.mark.parametrize(
    ("cell", "advice"), [("1,5", "decimal sign as a point"), ("n/a", "cell empty"), ("1_0", "cell empty")]
)
def test_text_among_numbers_is_named_with_its_place(tmp_path: Path, cell: str, advice: str) -> None:
    table = read_table(csv(tmp_path, f"a;b\n1;1\n\n2;{cell}\n"))
    with pytest.raises(DataError, match=rf"t\.csv, line 4, column 'b': '{cell}' where a number") as caught:
        table.matrix(["a", "b"])
    assert advice in caught.value.next_step


def test_a_place_in_parquet_is_a_row(tmp_path: Path) -> None:
    table = read_table(parquet(tmp_path, {"a": ["1", "x"]}))
    with pytest.raises(DataError, match="row 2, column 'a': 'x'"):
        table.matrix(["a"])


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, "a,b,c\n1,1,1\n2.0,1.5,\n"))
    assert table.whole("a").tolist() == [1, 2]
    assert table.whole("a").dtype == np.int64
    with pytest.raises(DataError, match=r"line 3, column 'b': 1\.5 where a whole number"):
        table.whole("b")
    with pytest.raises(DataError, match=r"line 3, column 'c': nan where a whole number"):
        table.whole("c")


def test_missing_columns_are_named_with_those_that_may_be_meant() -> None:
    table = Table(Path("t.csv"), {"Pressure": np.zeros(1), "flow": np.zeros(1), "état": np.zeros(1)})
    require(table, ["flow"])
    with pytest.raises(DataError) as caught:
        require(table, ["presure", "flow", "zzz"])
    assert caught.value.message == (
        "t.csv has no column 'presure' (did you mean 'Pressure'?), 'zzz'; it has Pressure, flow, état"
    )
    assert "data-folder.md" in caught.value.next_step


def test_a_long_list_is_cut() -> None:
    table = Table(Path("t.csv"), {f"c{number:02}": np.zeros(1) for number in range(40)})
    with pytest.raises(DataError, match=r"and 3 more; it has c00.*c11, …$"):
        require(table, [f"x{number}!" for number in range(8)])


# --- folders ---------------------------------------------------------------------------------------


def test_splits_are_folders(tmp_path: Path) -> None:
    for name in (
        "train/b.csv",
        "train/a.csv",
        "test/a.csv",
        "extra/a.csv",
        "train/.hidden.csv",
        "train/notes.txt",
    ):
        csv(tmp_path, "a\n1\n", name)
    found = read_folder(tmp_path)
    assert {split: [table.path.name for table in tables] for split, tables in found.items()} == {
        "train": ["a.csv", "b.csv"],
        "test": ["a.csv"],
    }


def test_without_splits_everything_is_all(tmp_path: Path) -> None:
    csv(tmp_path, "a\n1\n", "b.csv")
    csv(tmp_path, "a\n2\n", "a.csv")
    (tmp_path / "train").mkdir()
    assert [table.path.name for table in read_folder(tmp_path)["all"]] == ["a.csv", "b.csv"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "holds no CSV or Parquet file"),
        (["notes.txt", ".hidden.csv"], "holds no CSV or Parquet file"),
        (["train/notes.txt"], "holds no CSV or Parquet file"),
        (["train/a.csv", "loose.csv"], "has loose.csv beside its folders train"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        csv(tmp_path, "a\n1\n", name)
    with pytest.raises(DataError, match=said):
        read_folder(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder .*absent"):
        read_folder(tmp_path / "absent")


def test_a_unit_comes_from_the_field_or_from_the_brackets(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet as writer

    fields = [
        arrow.field("t", arrow.float32(), metadata={"unit": "K"}),
        arrow.field("p [bar]", arrow.int32()),
    ]
    writer.write_table(arrow.table([[1.0], [2]], schema=arrow.schema(fields)), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert [table.unit(name) for name in table.columns] == ["K", "bar"]
    assert table.matrix(["p", "t"]).tolist() == [[2.0, 1.0]]


def test_a_name_that_two_columns_have_before_their_units_is_missing(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, "t [K],t [degC]\n1,2\n"))
    assert table.matrix(["t [K]"]).tolist() == [[1.0]]
    with pytest.raises(DataError, match=r"has no column 't'"):
        table.matrix(["t"])


def test_a_column_in_another_unit_is_no_other_name_for_it(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, "t [K]\n1\n"))
    with pytest.raises(DataError, match=r"has no column 't \[degC\]'"):
        table.matrix(["t [degC]"])


ROWS = 60_000_000
GREEDY = """
import sys, resource
from reuna.adapters.tables import read_table, stuck
from reuna.core.errors import DataError
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
try:
    read_table(__import__("pathlib").Path(sys.argv[1]))
except DataError as error:
    print(error)
"""


def dense(arrow: Any) -> Any:
    """One number, again and again: three columns of 0.45 GiB, in some kilobytes."""
    column = arrow.DictionaryArray.from_arrays(arrow.array(np.zeros(ROWS, np.int8)), arrow.array([1.5]))
    return arrow.table(dict.fromkeys("abc", column))


def wordy(arrow: Any) -> Any:
    """One long text in each of 100,000 rows."""
    places = arrow.array(np.zeros(100_000, np.int32))
    return arrow.table({"a": arrow.DictionaryArray.from_arrays(places, arrow.array(["x" * 100_000]))})


@pytest.mark.parametrize("make", [dense, wordy])
def test_a_small_file_that_would_fill_the_memory_is_refused_in_little(tmp_path: Path, make: Any) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet as writer

    writer.write_table(make(arrow), tmp_path / "t.parquet", store_schema=False)
    assert (tmp_path / "t.parquet").stat().st_size < 1 << 20
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, str(tmp_path / "t.parquet")],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert re.search(r"t\.parquet takes \d+ MiB when it is read; a table may take 1024 MiB", done.stdout), (
        done.stderr
    )


def test_a_table_of_many_batches_is_read_whole(tmp_path: Path) -> None:
    rows = 150_000
    table = read_table(parquet(tmp_path, {"n": np.arange(rows), "t": [str(n % 1000) for n in range(rows)]}))
    assert table.columns["n"].tolist() == list(range(rows))
    assert table.columns["t"][-1] == "999"
    assert len(table) == rows


def test_a_stuck_sensor_has_its_first_value_in_every_row_and_only_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("flow [m3/h],state\n,\n7,worn\n9,ok\n")
    with stuck("flow") as flow, stuck("state") as state, stuck("heat") as heat:
        table = read_table(file)
    assert table.columns["flow [m3/h]"].tolist() == [7, 7, 7]
    assert table.columns["state"].tolist() == ["", "", ""]
    assert [sum(each.values()) for each in (flow, state, heat)] == [1, 1, 0]
    assert read_table(file).columns["flow [m3/h]"].tolist()[1:] == [7, 9]


def test_what_is_made_of_a_table_is_made_once_while_it_is_in_memory(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    @per_table
    def rows(table: Table, factor: int) -> int:
        calls.append((table.path.name, factor))
        return len(table) * factor

    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x\n1\n2\n")
    one, two = read_table(tmp_path / "a.csv"), read_table(tmp_path / "b.csv")
    assert [rows(one, 2), rows(one, 2), rows(one, 3), rows(two, 2)] == [4, 4, 6, 4]
    assert calls == [("a.csv", 2), ("a.csv", 3), ("b.csv", 2)]
    with stuck("x"):
        assert rows(read_table(tmp_path / "a.csv"), 2) == 4
    assert len(calls) == 4, "a table that is read again is another one"
    for factor in range(1000):
        rows(one, factor)
    assert len(tables._of_tables[id(one)]) <= tables.MOST_KEPT
    known = len(tables._of_tables)
    del one, two
    assert len(tables._of_tables) <= known - 2, "it is forgotten with its table"
