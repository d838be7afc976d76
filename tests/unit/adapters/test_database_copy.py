"""A copy of a database that others write: one moment of it, and nobody waits."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from reuna.adapters.database_copy import PAGES, Moment, is_database
from reuna.core.errors import Corrupted, NotUsable


def database(path: Path) -> sqlite3.Connection:
    made = sqlite3.connect(path, isolation_level=None, timeout=0)
    made.execute("PRAGMA journal_mode=WAL")
    made.execute("CREATE TABLE rows (number INTEGER, filler BLOB)")
    return made


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as found:
        return int(found.execute("SELECT count(*) FROM rows").fetchone()[0])


def test_the_copy_is_of_its_moment_however_much_is_written_meanwhile(tmp_path: Path) -> None:
    told: list[int] = []
    with closing(database(tmp_path / "a.sqlite")) as writer:
        insert = "INSERT INTO rows VALUES (?, zeroblob(4000))"
        for number in range(2 * PAGES):
            writer.execute(insert, (number,))
        moment = Moment.of(tmp_path / "a.sqlite")

        def write_more(count: int) -> None:
            told.append(count)
            writer.execute(insert, (-1,))  # with no time to wait: a lock would be an error
            writer.execute("DELETE FROM rows WHERE number = ?", (len(told),))

        moment.copy(tmp_path / "b.sqlite", write_more)
        moment.close()
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert len(told) > 2, "progress is told on the way"
    assert sum(told) == moment.size == (tmp_path / "b.sqlite").stat().st_size
    assert count(tmp_path / "b.sqlite") == 2 * PAGES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sqlite", "b.sqlite"]


def test_a_damaged_database_is_named_and_one_that_is_none_too(tmp_path: Path) -> None:
    with closing(database(tmp_path / "a.sqlite")) as writer:
        for number in range(200):
            writer.execute("INSERT INTO rows VALUES (?, zeroblob(4000))", (number,))
    data = bytearray((tmp_path / "a.sqlite").read_bytes())
    data[4096 * 3 : 4096 * 9] = b"\xa5" * 4096 * 6
    (tmp_path / "a.sqlite").write_bytes(data)
    moment = Moment.of(tmp_path / "a.sqlite")
    with pytest.raises(Corrupted, match=r"a\.sqlite"):
        moment.copy(tmp_path / "b.sqlite", lambda _count: None)
    moment.close()
    (tmp_path / "c.sqlite").write_text("no database, and long enough for its header" * 40)
    assert not is_database(tmp_path / "c.sqlite")
    with pytest.raises(Corrupted, match=r"c\.sqlite"):
        Moment.of(tmp_path / "c.sqlite")
    with pytest.raises(NotUsable, match=r"none\.sqlite"):
        Moment.of(tmp_path / "none.sqlite")
