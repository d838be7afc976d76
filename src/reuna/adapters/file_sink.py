"""The sink ``file``: lines of JSON or CSV in files of a folder, rotated, and bounded together.

``NAME-00000001.jsonl`` and so on. A delivery is on the disk when `send` returns; what a crash or a full
disk left of one is cut off again before the next, so that every line is whole.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import storage_error, sync_folder, write_all
from reuna.core.notices import NodeAlarm
from reuna.core.ports import Offload
from reuna.core.sink_settings import FileTarget
from reuna.core.sinks import Answer, Said

MIB = 1 << 20
TAIL = 1 << 16  #: bytes that are looked at for the last line's end at once


class FileSink:
    """The `Sink` port on a folder, which is made if need be."""

    def __init__(
        self, name: str, target: FileTarget, offload: Offload, record: type[Answer | NodeAlarm] = Answer
    ) -> None:
        self._heading = (",".join(record.__struct_fields__) + "\n").encode()
        self._folder = Path(target.folder)
        self._csv = target.format == "csv"
        self._pattern = re.compile(rf"{re.escape(name)}-(\d{{8}})\.{target.format}")
        self._named = f"{name}-{{:08d}}.{target.format}"
        self._most, self._one = target.mib * MIB, target.file_mib * MIB
        self._offload = offload

    def encode(self, said: Said) -> tuple[bytes, ...]:
        """See `Sink.encode`."""
        if self._csv:
            return (_as_csv(said),)
        return (b"".join(msgspec.json.encode(each) + b"\n" for each in said),)

    async def send(self, messages: Sequence[bytes]) -> bool:
        """See `Sink.send`. Raises `DiskFull`, `NotUsable`, `Corrupted`."""
        await self._offload(lambda: self._append(b"".join(messages)))
        return True

    async def close(self) -> None:
        """No file stays open."""

    def _append(self, data: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._current(len(data))
            is_new = not path.exists()
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                at = _whole_lines(fd)
                self._write(fd, at, self._heading + data if self._csv and not at else data)
            finally:
                os.close(fd)
            if is_new:
                sync_folder(self._folder)
        except OSError as error:
            raise storage_error(error, self._folder / "answers") from error

    def _write(self, fd: int, at: int, data: bytes) -> None:
        """All of it behind the whole lines, or nothing."""
        os.ftruncate(fd, at)
        os.lseek(fd, at, os.SEEK_SET)
        try:
            write_all(fd, data)
            os.fsync(fd)
        except OSError:
            os.ftruncate(fd, at)
            raise

    def _current(self, size: int) -> Path:
        """The file that so many bytes more go into; the oldest are removed to make room."""
        numbers = sorted(int(found[1]) for each in os.listdir(self._folder)
                         if (found := self._pattern.fullmatch(each)))  # fmt: skip
        newest = numbers[-1] if numbers else 1
        path = self._folder / self._named.format(newest)
        if path.exists() and path.stat().st_size + size > self._one:
            newest += 1
            path = self._folder / self._named.format(newest)
        sizes = [(number, (self._folder / self._named.format(number)).stat().st_size) for number in numbers]
        total = size + sum(each for _, each in sizes)
        for number, each in sizes:
            if total <= self._most or number == newest:
                break
            (self._folder / self._named.format(number)).unlink()
            total -= each
        return path


def _whole_lines(fd: int) -> int:
    """Bytes of the file up to the end of its last whole line."""
    end = os.fstat(fd).st_size
    while end:
        begin = max(0, end - TAIL)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def _as_csv(said: Said) -> bytes:
    """A line for each; numbers of the output, and signals, have a space between them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(map(_cell, msgspec.structs.astuple(each)) for each in said)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    return " ".join("" if each is None else each if isinstance(each, str) else repr(each) for each in value)
