"""What releases answered on an edge, within some days and bytes, and which window is next.

An answer and the mark of what comes after it are written in one transaction. So a window that was answered is
not answered again, whatever ends the process, and none is passed over.

One process writes (`AnswerStore`), any number reads (`StoredAnswers`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.bounded_file import BoundedFile, StoredFile
from reuna.core.errors import Corrupted
from reuna.core.foreign import UNREADABLE
from reuna.core.live import Mark
from reuna.core.outcomes import Outcome
from reuna.core.sources import NS

NAME = "answers.db"
FORMAT = 1  #: of the file, in SQLite's user_version
TOGETHER = 1000  #: answers that are read at once
FORGOTTEN = 256  #: answers in a transaction that forgets
DAY_NS = 86_400 * NS
LIVE, SHADOW = "live", "shadow"  #: whose answer counts, and that of a release on trial beside it

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  id INTEGER PRIMARY KEY AUTOINCREMENT, project TEXT NOT NULL, role TEXT NOT NULL, last INTEGER NOT NULL,
  kept INTEGER NOT NULL, outcome BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS answers_by_time ON answers (project, role, last);
CREATE TABLE IF NOT EXISTS marks (project TEXT PRIMARY KEY, mark BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Kept:
    """An answer as it is kept: its number, which goes up, its role, and when it was, ns since the epoch."""

    number: int
    role: str
    kept_ns: int
    outcome: Outcome


class StoredAnswers(StoredFile):
    """What there is, to be read. Safe for several threads. Raises `NotUsable`, `Corrupted`."""

    def __init__(self, folder: Path) -> None:
        missing = f"there are no answers in {folder}"
        super().__init__(folder / NAME, FORMAT, missing, "Name the edge's state folder.")

    def after(self, number: int, most: int) -> list[Kept]:
        """The oldest answers after that number, in order."""
        return self._kept("WHERE id > ? ORDER BY id LIMIT ?", number, most)

    def newest(self, most: int) -> list[Kept]:
        """The newest answers, in order."""
        return self._kept("ORDER BY id DESC LIMIT ?", most)[::-1]

    def mark(self, project: str) -> Mark | None:
        """How far a project is, None when it has not begun."""
        found = [mark for name, mark in self.marks() if name == project]
        return found[0] if found else None

    def marks(self) -> list[tuple[str, Mark]]:
        """Every project, and how far it is."""
        rows = self._rows("SELECT project, mark FROM marks ORDER BY project")
        return [(project, self._decoded(data, Mark)) for project, data in rows]

    def newest_ns(self, project: str) -> int | None:
        """Source time of the last row of the newest window that was answered live, None where none was."""
        query = "SELECT MAX(last) FROM answers WHERE project = ? AND role = ?"
        ((found,),) = self._rows(query, project, LIVE)
        return None if found is None else int(found)

    def at(self, project: str, time_ns: int, within_ns: int) -> Outcome | None:
        """The live answer to the newest window that was over by then, at most so long before; None: none."""
        found = self._kept(
            "WHERE project = ? AND role = ? AND last BETWEEN ? AND ? ORDER BY last DESC, id LIMIT 1",
            project,
            LIVE,
            time_ns - within_ns,
            time_ns,
        )
        return found[0].outcome if found else None

    def within(self, project: str, first_ns: int, last_ns: int) -> Iterator[Outcome]:
        """The live answers to all windows that lie between, in order; some of them in memory at a time."""
        begin, number = first_ns, 0
        while True:
            found = self._kept(
                "WHERE project = ? AND role = ? AND last BETWEEN ? AND ? AND (last > ? OR id > ?) "
                "ORDER BY last, id LIMIT ?",
                project,
                LIVE,
                begin,
                last_ns,
                begin,
                number,
                TOGETHER,
            )
            yield from (each.outcome for each in found if each.outcome.first_ns >= first_ns)
            if len(found) < TOGETHER:
                return
            begin, number = found[-1].outcome.last_ns, found[-1].number

    def _kept(self, which: str, *values: Any) -> list[Kept]:
        rows = self._rows(f"SELECT id, role, kept, outcome FROM answers {which}", *values)  # noqa: S608 - ours
        return [Kept(number, role, kept, self._decoded(data, Outcome)) for number, role, kept, data in rows]

    def _decoded(self, data: bytes, kind: Any) -> Any:
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except UNREADABLE as error:
            raise Corrupted(f"{self._path}: {error}", "Move the file away: a new one is made.") from error


class AnswerStore:
    """The store, to be written by one process. ``free`` says how many bytes the disk has left.

    Raises `NotUsable` (also when another process writes it), `DiskFull`, `Corrupted`.
    """

    def __init__(self, folder: Path, days: float, mib: int, free: Callable[[], int] | None = None) -> None:
        self._days_ns = int(days * DAY_NS)
        self._file = BoundedFile(folder / NAME, SCHEMA, FORMAT, mib, self._forget, free)
        try:
            self.stored = StoredAnswers(folder)
            with self._file.own_errors():
                self._file.shrink()
        except BaseException:
            self._file.close()
            raise
        self._lock = threading.Lock()

    def keep(self, project: str, mark: Mark, answers: Iterable[tuple[str, Outcome]], now_ns: int) -> None:
        """Some answers, each with its role, and the mark after them: all durably, or none."""
        rows = [(project, role, each.last_ns, now_ns, msgspec.msgpack.encode(each)) for role, each in answers]
        need = sum(len(row[-1]) for row in rows)
        with self._lock, self._file.own_errors():
            self._file.put(lambda: self._write(project, mark, rows, now_ns), need)

    def close(self) -> None:
        """After the last call of anything else."""
        self.stored.close()
        self._file.close()

    def _write(self, project: str, mark: Mark, rows: Sequence[tuple[Any, ...]], now_ns: int) -> None:
        db = self._file.db
        db.executemany("INSERT INTO answers (project, role, last, kept, outcome) VALUES (?,?,?,?,?)", rows)
        db.execute("INSERT OR REPLACE INTO marks VALUES (?,?)", (project, msgspec.msgpack.encode(mark)))
        db.execute(
            "DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY id LIMIT ?) AND kept < ?",
            (FORGOTTEN, now_ns - self._days_ns),
        )

    def _forget(self, wanted: int) -> int:
        """Let the oldest answers go, at most `FORGOTTEN`; how many bytes they took."""
        del wanted
        db = self._file.db
        rows = db.execute(
            "SELECT id, LENGTH(outcome) FROM answers ORDER BY id LIMIT ?", (FORGOTTEN,)
        ).fetchall()
        if rows:
            db.execute("DELETE FROM answers WHERE id <= ?", (rows[-1][0],))
        return sum(size for _, size in rows)
