"""Which labels were held against answers, and what came of it for each release: together or not at all.

A label and the errors after it are written in one transaction, so whatever ends the process, each counts
once. Of labels their moments are kept, by which one that comes again is known; when there is no room the
oldest go, and what is as old as they were is not taken any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.bounded_file import BoundedFile, StoredFile
from reuna.core.errors import Corrupted
from reuna.core.foreign import UNREADABLE
from reuna.core.labels import Errors, Label

NAME = "labels.db"
FORMAT = 1  #: of the file, in SQLite's user_version
MIB = 16  #: that it takes at most: some 300,000 labels
FORGOTTEN = 1024  #: labels in a transaction that forgets
RELEASES = 16  #: of a project, whose errors are kept

SCHEMA = """
CREATE TABLE IF NOT EXISTS labels (
  source TEXT NOT NULL, last INTEGER NOT NULL, first INTEGER NOT NULL,
  PRIMARY KEY (source, last, first)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sources (
  name TEXT PRIMARY KEY, taken INTEGER NOT NULL, stray INTEGER NOT NULL, floor INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS errors (
  id INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, release TEXT NOT NULL, errors BLOB NOT NULL,
  UNIQUE (project, release)) STRICT;
"""

ByRelease = Mapping[str, Errors]


@dataclass(frozen=True)
class Taken:
    """Of one source: labels that were taken, ``stray`` of which were of no answer."""

    source: str
    taken: int
    stray: int


class StoredLabels(StoredFile):
    """What there is, to be read. Safe for several threads. Raises `NotUsable`, `Corrupted`."""

    def __init__(self, folder: Path) -> None:
        missing = f"there are no labels in {folder}"
        advice = "Name the edge's state folder; docs/how-to/monitor.md says how labels come in."
        super().__init__(folder / NAME, FORMAT, missing, advice)

    def errors(self) -> dict[str, dict[str, Errors]]:
        """By project and release, the oldest release first."""
        found: dict[str, dict[str, Errors]] = {}
        for project, release, data in self._rows("SELECT project, release, errors FROM errors ORDER BY id"):
            found.setdefault(project, {})[release] = self._decoded(data)
        return found

    def taken(self) -> list[Taken]:
        """How many labels each source gave."""
        return [Taken(*row) for row in self._rows("SELECT name, taken, stray FROM sources ORDER BY name")]

    def new(self, source: str, labels: Iterable[Label]) -> list[Label]:
        """Those that were not taken before, in order of time, of each moment one."""
        found = self._rows("SELECT floor FROM sources WHERE name = ?", source)
        floor = found[0][0] if found else None
        first = {(each.last_ns, each.first_ns): each for each in sorted(labels, reverse=True)}
        some = sorted(each for each in first.values() if floor is None or each.last_ns > floor)
        if not some:
            return []
        known = set(
            self._rows(
                "SELECT last, first FROM labels WHERE source = ? AND last BETWEEN ? AND ?",
                source,
                some[0].last_ns,
                some[-1].last_ns,
            )
        )
        return [each for each in some if (each.last_ns, each.first_ns) not in known]

    def _decoded(self, data: bytes) -> Errors:
        try:
            return msgspec.msgpack.decode(data, type=Errors)
        except UNREADABLE as error:
            raise Corrupted(f"{self._path}: {error}", "Move the file away: a new one is made.") from error


class LabelStore:
    """The store, to be written by one process. ``free`` says how many bytes the disk has left.

    Raises `NotUsable` (also when another process writes it), `DiskFull`, `Corrupted`.
    """

    def __init__(self, folder: Path, mib: int = MIB, free: Callable[[], int] | None = None) -> None:
        self._file = BoundedFile(folder / NAME, SCHEMA, FORMAT, mib, self._forget, free)
        try:
            self.stored = StoredLabels(folder)
            with self._file.own_errors():
                self._file.shrink()
        except BaseException:
            self._file.close()
            raise
        self._lock = threading.Lock()

    def take(self, source: str, project: str, labels: Sequence[Label], stray: int, after: ByRelease) -> None:
        """Some labels, ``stray`` of them of no answer, and the errors after them: all durably, or none."""
        rows = [(source, each.last_ns, each.first_ns) for each in labels]
        states = [(project, release, msgspec.msgpack.encode(each)) for release, each in after.items()]
        need = 64 * len(rows) + sum(len(state[-1]) for state in states)
        with self._lock, self._file.own_errors():
            self._file.put(lambda: self._write(source, project, rows, stray, states), need)

    def close(self) -> None:
        """After the last call of anything else."""
        self.stored.close()
        self._file.close()

    def _write(
        self,
        source: str,
        project: str,
        rows: Sequence[tuple[Any, ...]],
        stray: int,
        states: Sequence[tuple[Any, ...]],
    ) -> None:
        db = self._file.db
        db.executemany("INSERT OR IGNORE INTO labels (source, last, first) VALUES (?,?,?)", rows)
        db.execute(
            "INSERT INTO sources VALUES (?,?,?,NULL) ON CONFLICT (name) DO UPDATE SET "
            "taken = taken + excluded.taken, stray = stray + excluded.stray",
            (source, len(rows), stray),
        )
        db.executemany(
            "INSERT INTO errors (project, release, errors) VALUES (?,?,?) "
            "ON CONFLICT (project, release) DO UPDATE SET errors = excluded.errors",
            states,
        )
        db.execute(
            "DELETE FROM errors WHERE project = ? AND id NOT IN "
            "(SELECT id FROM errors WHERE project = ? ORDER BY id DESC LIMIT ?)",
            (project, project, RELEASES),
        )

    def _forget(self, wanted: int) -> int:
        """Let the oldest labels go, at most `FORGOTTEN`, and take none again that are as old; their bytes."""
        del wanted
        db = self._file.db
        rows = db.execute(
            "SELECT source, last, first FROM labels ORDER BY last LIMIT ?", (FORGOTTEN,)
        ).fetchall()
        db.executemany("DELETE FROM labels WHERE source = ? AND last = ? AND first = ?", rows)
        db.executemany(
            "UPDATE sources SET floor = MAX(COALESCE(floor, ?2), ?2) WHERE name = ?1",
            [(source, last) for source, last, _ in rows],
        )
        return 48 * len(rows)
