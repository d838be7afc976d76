"""The source `files`: tables that grow, are replaced, or are not what they should be."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pyarrow import parquet

from reuna.adapters import file_source
from reuna.adapters.file_source import FileSource
from reuna.core.errors import DataError
from reuna.core.source_settings import SourceSettings, TagSettings
from reuna.core.sources import BAD, NS, Batch, Gap, check_batch
from reuna.sim.clock import InPlace, SimClock, run_virtual

TAGS = (TagSettings("oil", "oil", "bar"), TagSettings("heat", "heat", "degC"))


class Looks:
    """A source over a folder, looked at as often as a test says."""

    def __init__(self, folder: Path, after_ns: int | None = None, tags=TAGS) -> None:
        settings = SourceSettings("press", "files", str(folder), "time", tags)
        self.source = FileSource(settings, SimClock(), InPlace(), after_ns)
        self.after = after_ns

    def look(self) -> list[Batch]:
        async def one() -> list[Batch]:
            return list(self.source._look())

        found = run_virtual(one())
        for batch in found:
            check_batch(batch, self.source.tags)
        return found

    def values(self, tag: str = "oil") -> list[float]:
        return [
            value
            for batch in self.look()
            if tag in batch.columns
            for value in batch.columns[tag].values.tolist()
        ]

    def reasons(self) -> list[str]:
        return [gap.reason for batch in self.look() for gap in batch.gaps]


def test_a_file_is_read_on_from_where_it_was_read_to(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time;oil [bar];heat\n0;1,;20\n".replace("1,", "1.5"))
    looks = Looks(tmp_path)
    assert looks.values() == [1.5]
    with path.open("a") as file:
        file.write("1;2.5;21\n2;3")
    assert looks.values() == [2.5]
    with path.open("a") as file:
        file.write(".5;22\n")
    assert looks.values() == [3.5]
    assert looks.look() == []


def test_a_last_line_without_an_end_counts_once_the_file_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,oil,heat\n0,1,2\n1,5,6")
    looks = Looks(tmp_path)
    assert looks.values() == [1.0]
    assert looks.values() == [5.0]
    assert looks.values() == []


def test_a_long_file_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "CHUNK", 64)
    rows = "".join(f"{n},{n}.5,é\n" for n in range(100))
    (tmp_path / "a.csv").write_text("time,oil,heat\n" + rows, encoding="utf-8")
    batches = Looks(tmp_path).look()
    assert len(batches) > 10
    assert np.concatenate([batch.columns["oil"].values for batch in batches]).tolist() == [
        n + 0.5 for n in range(100)
    ]
    assert all((batch.columns["heat"].quality == BAD).all() for batch in batches)


def test_new_files_are_taken_by_name_and_hidden_ones_left_alone(tmp_path: Path) -> None:
    for name, value in (("b", 2), ("a", 1), (".c", 3)):
        (tmp_path / f"{name}.csv").write_text(f"time,oil,heat\n0,{value},0\n")
    looks = Looks(tmp_path)
    assert looks.values() == [1.0, 2.0]
    (tmp_path / "d.csv").write_text("time,oil,heat\n0,4,0\n")
    assert looks.values() == [4.0]


def test_a_file_that_is_replaced_is_read_anew_with_a_gap_each_time(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,oil,heat\n0,1,0\n1,1,0\n")
    looks = Looks(tmp_path)
    looks.look()
    for value in (7, 8):
        new = tmp_path / "new"
        new.write_text(f"time,oil,heat\n5,{value},0\n6,{value},0\n")
        new.replace(path)
        batches = looks.look()
        assert [gap.reason for batch in batches for gap in batch.gaps] == ["a.csv: replaced by another file"]
        assert batches[1].columns["oil"].values.tolist() == [value, value]


def test_broken_rows_are_counted_and_the_others_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('time,oil,heat\n0,1,0\n1,2\n2,"3"x,0\nsoon,4,0\n4,5,0\n')
    (batch,) = Looks(tmp_path).look()
    assert batch.columns["oil"].values.tolist() == [1.0, 5.0]
    assert [gap.reason for gap in batch.gaps] == ["a.csv: 3 rows cannot be read"]


def test_one_bad_file_does_not_stop_the_rest_and_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("when,oil,heat\n0,1,0\n")
    (tmp_path / "b.csv").write_bytes(b"time,oil,heat\n0,\xff,0\n")
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    (tmp_path / "d.csv").write_text("\n\n")
    (tmp_path / "e.csv").write_text("time,oil,heat\n0,1,0\n")
    looks = Looks(tmp_path)
    batches = looks.look()
    said = [gap.reason for batch in batches for gap in batch.gaps]
    assert said[:2] == ["a.csv: no column 'time'", "b.csv: is not UTF-8: invalid start byte"]
    assert said[2].startswith("c.parquet: cannot be read")
    assert len(said) == 3
    assert batches[-1].readings == 2
    assert looks.reasons() == []


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_source, "CHUNK", 64)
    (tmp_path / "a.csv").write_text("time,oil,heat\n" + "x" * 200 + "\n5,6,7\n")
    looks = Looks(tmp_path)
    said = [reason for _ in range(4) for reason in looks.reasons()]
    assert any("longer than 64 bytes" in reason for reason in said)
    with (tmp_path / "a.csv").open("a") as file:
        file.write("6,7,8\n")
    assert looks.values() == [7.0]


def test_a_tag_that_is_not_there_is_a_gap_of_that_tag(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,oil\n0,1\n")
    (batch,) = Looks(tmp_path).look()
    assert batch.columns.keys() == {"oil"}
    assert [(gap.reason, gap.tags) for gap in batch.gaps] == [("a.csv: no column 'heat'", ("heat",))]


def test_numbers_in_another_unit_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,oil [kPa],heat [°C]\n0,100,20\n")
    (batch,) = Looks(tmp_path).look()
    assert batch.columns.keys() == {"heat"}
    assert batch.gaps[0].reason == "a.csv: column 'oil' is in kPa, not in bar"


def test_a_quality_that_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,oil\n0,1\n")
    (batch,) = Looks(tmp_path, tags=(TagSettings("oil", "oil", quality="q", good=("0",)),)).look()
    assert batch.columns["oil"].quality.tolist() == [BAD]
    assert batch.gaps[0].reason == "a.csv: no column of quality 'q'"


def test_a_parquet_file_is_read_once_and_again_when_it_changed(tmp_path: Path) -> None:
    def write(value: float) -> None:
        table = arrow.table({"time": [0.0, 1.0], "oil": [value, None], "heat": [1.0, 2.0]})
        parquet.write_table(table, tmp_path / ".new")
        (tmp_path / ".new").rename(tmp_path / "a.parquet")

    write(1.0)
    looks = Looks(tmp_path)
    assert looks.values() == [1.0]
    assert looks.values() == []
    write(2.0)
    assert looks.values() == [2.0]


def test_what_was_kept_before_is_not_given_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,oil,heat\n0,1,0\n1,2,0\n2,3,0\n")
    assert Looks(tmp_path, after_ns=NS).values() == [3.0]
    assert Looks(tmp_path, after_ns=5 * NS).look() == []


def test_a_gap_of_broken_rows_lies_where_they_were_and_is_not_told_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,oil,heat\n5,1,0\nbroken\n9,2,0\n")
    (batch,) = Looks(tmp_path).look()
    assert batch.gaps == (Gap(5 * NS, 9 * NS, "a.csv: 1 rows cannot be read"),)
    assert Looks(tmp_path, after_ns=9 * NS).look() == []


HEADER = some.sampled_from(
    [b"time,oil,heat", b"time;heat", b"\xef\xbb\xbftime,oil", b"oil,oil,time", b'"time,oil', b""]
)


@given(
    header=HEADER | some.binary(max_size=20),
    data=some.binary(max_size=80) | some.text('0123456789.,;\n"e-n').map(str.encode),
)
def test_whatever_stands_in_a_file_is_readings_or_gaps(header: bytes, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.csv").write_bytes(header + b"\n" + data)
        looks = Looks(Path(folder))
        looks.look()
        looks.look()
        assert looks.look() == []


def test_a_folder_that_goes_away_is_a_gap_and_its_return_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.csv").write_text("time,oil,heat\n0,1,0\n")
    looks = Looks(folder)
    looks.look()
    folder.rename(tmp_path / "away")
    assert looks.reasons() == ["in: No such file or directory"]
    assert looks.reasons() == []
    (tmp_path / "away").rename(folder)
    with (folder / "a.csv").open("a") as file:
        file.write("1,2,0\n")
    assert looks.values() == [2.0]


def test_without_its_folder_a_source_does_not_begin(tmp_path: Path) -> None:
    async def begin() -> None:
        await anext(Looks(tmp_path / "none").source.batches())

    with pytest.raises(DataError, match="source press: there is no folder"):
        run_virtual(begin())


def test_it_looks_again_after_every_s(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("time,oil,heat\n0,1,0\n")

    async def two() -> list[float]:
        clock = SimClock()
        batches = Looks(tmp_path).source.batches()
        first = await anext(batches)
        with path.open("a") as file:
            file.write("1,2,0\n")
        before = clock.now()
        second = await anext(batches)
        await batches.aclose()
        return [*first.columns["oil"].values, *second.columns["oil"].values, clock.now() - before]

    assert run_virtual(two()) == [1.0, 2.0, 1.0]
