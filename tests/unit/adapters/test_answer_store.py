"""Answers and the mark behind them: together or not at all, within days and bytes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from reuna.adapters import bounded_file
from reuna.adapters.answer_store import DAY_NS, LIVE, NAME, SHADOW, AnswerStore, StoredAnswers
from reuna.core.errors import Corrupted, DiskFull, NotUsable
from reuna.core.live import Mark
from reuna.core.outcomes import Outcome
from reuna.core.sources import NS

MARK = Mark(0, NS, 3, 1)


def outcome(number: int, why: str = "") -> Outcome:
    return Outcome("p", 1, "d" * 64, number * NS, (number + 2) * NS, "answered", 1.0, (0.25, 0.75), why)


def opened(folder: Path, days: float = 30.0, mib: int = 16, free: int = 1 << 40) -> AnswerStore:
    return AnswerStore(folder, days, mib, lambda: free)


def test_what_was_kept_is_there_for_whoever_opens_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.keep("p", MARK, [(LIVE, outcome(0)), (SHADOW, outcome(0))], 5)
    store.keep("q", MARK, [], 6)
    other = StoredAnswers(tmp_path)
    assert [(each.number, each.role, each.kept_ns) for each in other.newest(9)] == [
        (1, LIVE, 5),
        (2, SHADOW, 5),
    ]
    assert other.after(1, 9)[0].outcome == outcome(0)
    assert other.newest(1)[0].number == 2
    assert other.mark("p") == MARK
    assert other.mark("z") is None
    assert [name for name, _ in other.marks()] == ["p", "q"]
    other.close()
    with pytest.raises(NotUsable, match="another process writes"):
        opened(tmp_path)
    store.close()


def test_the_mark_goes_on_only_with_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    store.keep("p", MARK, [(LIVE, outcome(0))], 0)

    def full(_work: object, _need: int) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(store._file, "put", full)
        with pytest.raises(DiskFull):
            store.keep("p", Mark(0, NS, 3, 1, next=7), [(LIVE, outcome(1))], 0)
    assert store.stored.mark("p") == MARK
    assert len(store.stored.newest(9)) == 1
    store.close()


def test_the_oldest_make_room_and_marks_stay(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for start in range(0, 20_000, 500):
        store.keep(
            "p", MARK, [(LIVE, outcome(number, "x" * 1200)) for number in range(start, start + 500)], 0
        )
    kept = store.stored.after(0, 1 << 20)
    assert 5000 < len(kept) < 15_000
    assert kept[-1].outcome.first_ns == 19_999 * NS
    assert [each.number for each in kept] == list(range(kept[0].number, kept[0].number + len(kept)))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 16 << 20
    assert store.stored.mark("p") == MARK
    store.close()


def test_answers_older_than_the_days_go(tmp_path: Path) -> None:
    store = opened(tmp_path, days=1.0)
    store.keep("p", MARK, [(LIVE, outcome(0))], 0)
    store.keep("p", MARK, [(LIVE, outcome(1))], 2 * DAY_NS)
    assert [each.number for each in store.stored.newest(9)] == [2]
    store.close()


def test_with_little_left_on_the_disk_it_forgets_and_does_not_grow(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.keep("p", MARK, [(LIVE, outcome(number, "x" * 900)) for number in range(3000)], 0)
    size = (tmp_path / NAME).stat().st_size
    store._file._free = lambda: bounded_file.RESERVE
    for start in range(3000, 9000, 300):
        store.keep("p", MARK, [(LIVE, outcome(number, "x" * 900)) for number in range(start, start + 300)], 0)
    assert (tmp_path / NAME).stat().st_size <= size + (1 << 20)
    assert store.stored.newest(1)[0].outcome.first_ns == 8999 * NS
    store.close()


def test_what_is_none_of_ours_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotUsable, match="there are no answers in"):
        StoredAnswers(tmp_path)
    store = opened(tmp_path)
    store.keep("p", MARK, [(LIVE, outcome(0))], 0)
    store._file.db.execute("UPDATE answers SET outcome = x'c1'")
    with pytest.raises(Corrupted):
        store.stored.newest(1)
    store._file.db.execute("PRAGMA user_version = 9")
    with pytest.raises(NotUsable, match="has format 9"):
        StoredAnswers(tmp_path)
    store.close()
