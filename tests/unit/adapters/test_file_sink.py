"""Answers in files: whole lines, rotated, and never more than they may take."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from reuna.adapters import file_sink
from reuna.adapters.clock import ThreadOffload
from reuna.adapters.file_sink import FileSink
from reuna.core.errors import DiskFull, NotUsable
from reuna.core.outcomes import Outcome
from reuna.core.sink_settings import FileTarget
from reuna.core.sinks import Answer, told


def answer(number: int, answered: float | None = 1.0) -> Answer:
    return told("edge-1", Outcome("p", 1, "d" * 64, number, number + 2, "answered", answered, (0.25, 0.75)))


def opened(folder: Path, **more: object) -> FileSink:
    return FileSink("archive", FileTarget(str(folder), **more), ThreadOffload())  # type: ignore[arg-type]


async def put(sink: FileSink, *numbers: int) -> bool:
    return await sink.send(sink.encode([answer(number) for number in numbers]))


def ids(folder: Path) -> list[str]:
    lines = [line for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]
    return [json.loads(line)["id"] for line in lines]


async def test_lines_of_json_follow_each_other_also_after_a_restart(tmp_path: Path) -> None:
    assert await put(opened(tmp_path / "a"), 1, 2)
    assert await put(opened(tmp_path / "a"), 3)
    assert ids(tmp_path / "a") == ["edge-1/p/1-3", "edge-1/p/2-4", "edge-1/p/3-5"]
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["archive-00000001.jsonl"]


async def test_csv_has_one_heading_and_the_numbers_of_the_output(tmp_path: Path) -> None:
    sink = opened(tmp_path, format="csv")
    await put(sink, 1)
    await sink.send(sink.encode([answer(2, None)]))
    first, second = csv.DictReader((tmp_path / "archive-00000001.csv").read_text().splitlines())
    assert (first["id"], first["answer"], first["output"]) == ("edge-1/p/1-3", "1.0", "0.25 0.75")
    assert (second["node"], second["answer"]) == ("edge-1", "")


async def test_what_a_crash_left_of_a_line_is_cut_off_before_the_next(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    await put(sink, 1)
    with (tmp_path / "archive-00000001.jsonl").open("ab") as file:
        file.write(b'{"id":"edge-1/p/2' + b"x" * (file_sink.TAIL + 5))
    await put(sink, 2)
    assert ids(tmp_path) == ["edge-1/p/1-3", "edge-1/p/2-4"]


async def test_files_are_rotated_and_the_oldest_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sink, "MIB", 256)  # an answer is some 220 bytes
    sink = opened(tmp_path, mib=4, file_mib=1)
    (tmp_path / "other-00000001.jsonl").write_bytes(b"not ours")
    for number in range(8):
        await put(sink, number)
        own = list(tmp_path.glob("archive-*"))
        assert sum(each.stat().st_size for each in own) <= 4 * 256
    assert max(each.name for each in own) == "archive-00000008.jsonl"
    assert (tmp_path / "other-00000001.jsonl").exists()


async def test_a_full_disk_leaves_whole_lines_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = opened(tmp_path)
    await put(sink, 1)

    def half(fd: int, data: bytes) -> None:
        os.write(fd, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(file_sink, "write_all", half)
        with pytest.raises(DiskFull):
            await put(sink, 2)
    assert ids(tmp_path) == ["edge-1/p/1-3"]
    await put(sink, 2)
    assert ids(tmp_path) == ["edge-1/p/1-3", "edge-1/p/2-4"]


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(NotUsable, match="a"):
        await put(opened(tmp_path / "a" / "b"), 1)
