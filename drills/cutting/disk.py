"""Follows what a process does to one folder, and cuts the power at the moment that was asked for.

Every step on the way to the disk is a moment: a file opened, written, forced, given its name, its folder
forced. At the cut the whole process group is gone at once, and the folder is as a disk may have it then:

    kill     as the system had it in memory, all of it
    lost     a file whose bytes were not forced is empty; a name whose folder was not forced is the one before
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

ENDING = ".part"


class Disk:
    """Stands in for the system's calls in this process. ``at``: number of the moment, 0: never."""

    def __init__(self, folder: Path, at: int, lost: bool, journal: Path) -> None:
        self._folder = str(folder)
        self._at = at
        self._lost = lost
        self._journal = journal.open("a", buffering=1)
        self._count = 0
        self._open: dict[int, str] = {}
        self._dirty: set[str] = set()  #: files whose bytes are not all on the disk
        self._renamed: list[
            tuple[str, bytes | None]
        ] = []  #: names that are not on the disk, and what was there
        self._real = (os.open, os.write, os.fsync, os.replace, os.close)

    def watch(self) -> None:
        """From now on."""
        os.open, os.write, os.fsync = self._opens, self._writes, self._forces  # type: ignore[assignment]
        os.replace, os.close = self._renames, self._closes  # type: ignore[assignment]

    def _opens(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        fd = self._real[0](path, flags, *more, **named)
        if self._ours(path):
            self._open[fd] = str(path)
            if flags & os.O_WRONLY:
                self._dirty.add(str(path))
                self._moment(f"{self._name(path)} opened")
        return fd

    def _closes(self, fd: int) -> None:
        self._open.pop(fd, None)
        self._real[4](fd)

    def _writes(self, fd: int, data: Any) -> int:
        path, half = self._open.get(fd), len(data) // 2
        if path is None or not half:
            return self._real[1](fd, data)
        done = self._real[1](fd, data[:half])
        self._moment(f"half of {self._name(path)} written")
        return done

    def _forces(self, fd: int) -> None:
        self._real[2](fd)
        path = self._open.get(fd)
        if path is None:
            return
        if Path(path).is_dir():
            self._renamed = [each for each in self._renamed if str(Path(each[0]).parent) != path]
        self._dirty.discard(path)
        self._moment(f"{self._name(path)} forced")

    def _renames(self, source: Any, target: Any, **more: Any) -> None:
        if not self._ours(target):
            return self._real[3](source, target, **more)
        before = Path(target).read_bytes() if Path(target).exists() else None
        self._real[3](source, target, **more)
        self._renamed.append((str(target), before))
        if str(source) in self._dirty:
            self._dirty = self._dirty - {str(source)} | {str(target)}
        self._moment(f"{self._name(target)} named")
        return None

    def _ours(self, path: Any) -> bool:
        named = str(path) if isinstance(path, str | os.PathLike) else ""
        return named.startswith(self._folder) and "work-" not in named

    def _name(self, path: Any) -> str:
        if Path(path).is_dir():
            return "folder"
        name = Path(path).name
        return f"new {name.split('.')[1]}" if name.endswith(ENDING) else name

    def _moment(self, what: str) -> None:
        self._count += 1
        self._journal.write(f"{what}\n")
        if self._count == self._at:
            if self._lost:
                self._lose()
            os.kill(os.getpid(), signal.SIGKILL)  # the kernel takes its children along
            signal.pause()

    def _lose(self) -> None:
        for path in self._dirty:
            if Path(path).is_file():
                Path(path).write_bytes(b"")
        for path, before in reversed(self._renamed):
            if before is None:
                Path(path).unlink(missing_ok=True)
            else:
                Path(path).write_bytes(before)
