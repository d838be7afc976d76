"""Labels and the errors after them: together or not at all, each once, within a bound."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from reuna.adapters import label_store
from reuna.adapters.label_store import NAME, RELEASES, LabelStore, StoredLabels, Taken
from reuna.core.errors import Corrupted, NotUsable, StorageError
from reuna.core.labels import Errors, Label


def opened(folder: Path, free: int = 1 << 40) -> LabelStore:
    return LabelStore(folder, free=lambda: free)


def at(*moments: int) -> list[Label]:
    return [Label(moment, moment, 1.0) for moment in moments]


def test_what_was_taken_is_there_for_whoever_opens_it_and_not_new_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.take("lab", "pumps", at(1, 2), 1, {"r1": Errors(labels=1)})
    store.take("lab", "pumps", at(3), 0, {"r1": Errors(labels=2), "r2": Errors(labels=7)})
    other = StoredLabels(tmp_path)
    assert other.errors() == {"pumps": {"r1": Errors(labels=2), "r2": Errors(labels=7)}}
    assert other.taken() == [Taken("lab", 3, 1)]
    assert other.new("lab", at(4, 3, 1)) == at(4)
    assert other.new("elsewhere", at(1)) == at(1)
    other.close()
    with pytest.raises(NotUsable, match="another process writes"):
        opened(tmp_path)
    store.close()


def test_new_ones_are_in_order_of_time_and_of_one_moment_one_is(tmp_path: Path) -> None:
    store = opened(tmp_path)
    some = [Label(5, 5, 2.0), Label(3, 1, 1.0), Label(5, 5, 1.0), Label(5, 4, 1.0)]
    found = store.stored.new("lab", some)
    assert (
        found == store.stored.new("lab", some[::-1]) == [Label(3, 1, 1.0), Label(5, 4, 1.0), Label(5, 5, 1.0)]
    )
    store.close()


def test_errors_go_on_only_with_their_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)

    with monkeypatch.context() as patched:
        patched.setattr(label_store.msgspec.msgpack, "encode", lambda _: "no bytes")
        with pytest.raises(StorageError):
            store.take("lab", "pumps", at(1), 0, {"r1": Errors()})
    assert store.stored.new("lab", at(1)) == at(1)
    assert store.stored.taken() == []
    store.close()


def test_when_there_is_no_room_the_oldest_go_and_are_not_taken_again(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, mib=5, free=lambda: 1 << 40)
    for begin in range(0, 60_000, 10_000):
        store.take("a" * 60, "pumps", at(*range(begin, begin + 10_000)), 0, {"r1": Errors(labels=begin)})
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 5 << 20
    assert store.stored.new("a" * 60, at(0, 5, 59_999, 60_000)) == at(60_000)
    assert store.stored.errors()["pumps"]["r1"].labels == 50_000
    store.close()


def test_the_newest_releases_of_a_project_are_kept(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(RELEASES + 3):
        store.take("lab", "pumps", [], 0, {f"r{number}": Errors(labels=number)})
    store.take("lab", "presses", [], 0, {"other": Errors()})
    assert list(store.stored.errors()["pumps"]) == [f"r{number}" for number in range(3, RELEASES + 3)]
    store.close()


def test_without_a_store_the_error_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(NotUsable, match="there are no labels in"):
        StoredLabels(tmp_path)


def test_errors_that_cannot_be_read_are_said_with_the_file(tmp_path: Path) -> None:
    opened(tmp_path).close()
    db = sqlite3.connect(tmp_path / NAME)
    db.execute("INSERT INTO errors (project, release, errors) VALUES ('p', 'r', x'93')")
    db.commit()
    db.close()
    store = StoredLabels(tmp_path)
    with pytest.raises(Corrupted, match=NAME):
        store.errors()
    store.close()
