"""The local store: bounded, crash-safe, read by time."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reuna.adapters import local_store
from reuna.adapters.bounded_file import LOG, RESERVE
from reuna.adapters.local_store import DAY_NS, NAME, LocalStore, StoredReadings
from reuna.core.errors import Corrupted, DataError, DiskFull, NotUsable
from reuna.core.source_settings import MIB, StoreSettings
from reuna.core.sources import NS, Batch, Gap, Tag, column

TAGS = (Tag("t", "degC"), Tag("p", "bar"))
NOW = 1_800_000_000 * NS


def second(number: int, value: float = 1.0, **rest) -> Batch:
    """Ten readings of both tags within a second."""
    times = NOW + number * NS + np.arange(10) * (NS // 10)
    return Batch({"t": column(times, np.full(10, value)), "p": column(times, np.arange(10.0))}, NOW, **rest)


def noise(number: int, count: int = 20_000) -> Batch:
    """Values that hardly compress: 160 kB."""
    rng = np.random.default_rng(number)
    times = NOW + number * NS + np.arange(count)
    return Batch({"t": column(times, rng.normal(size=count))}, NOW)


def opened(folder: Path, mib: int = 16, days: float = 30.0, free: int = 1 << 40) -> LocalStore:
    return LocalStore(StoreSettings(str(folder), days, mib), lambda: free)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    made = opened(tmp_path)
    yield made
    made.close()


def test_a_window_has_what_lies_in_its_time_and_no_more(store: LocalStore) -> None:
    for number in range(5):
        store.append("press", TAGS, second(number, float(number)), NOW)
    found = store.stored.window("press", ["t", "nothing"], NOW + NS + 1, NOW + 3 * NS)
    assert found.columns["t"].values.tolist() == [1.0] * 9 + [2.0] * 10
    assert found.columns["t"].times[0] == NOW + NS + NS // 10
    assert len(found.columns["nothing"]) == 0
    assert found.units == {"t": "degC", "nothing": ""}


def test_only_the_frames_of_that_time_are_decoded(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        store.append("press", TAGS, second(number), NOW)
    decoded = []
    true = local_store.decode
    monkeypatch.setattr(local_store, "decode", lambda *given: decoded.append(given) or true(*given))
    store.stored.window("press", ["t"], NOW + 5 * NS, NOW + 7 * NS)
    assert len(decoded) == 2


def test_windows_follow_each_other(store: LocalStore) -> None:
    for number in range(5):
        store.append("press", TAGS, second(number, float(number)), NOW)
    found = list(store.stored.windows("press", ["t"], NOW, NOW + 5 * NS, 2 * NS))
    assert [len(each.columns["t"]) for each in found] == [20, 20, 10]


def test_sources_with_the_same_tags_stay_apart(store: LocalStore) -> None:
    store.append("press", TAGS, second(0, 1.0), NOW)
    store.append("pump", TAGS, second(0, 2.0), NOW)
    assert set(store.stored.window("pump", ["t"], NOW, NOW + NS).columns["t"].values) == {2.0}
    assert store.stored.tags() == {"press": TAGS, "pump": TAGS}


def test_gaps_come_with_the_windows_they_touch(store: LocalStore) -> None:
    gap = Gap(NOW - NS, NOW, "no connection", ("p",))
    store.append("press", TAGS, second(0, gaps=(gap,)), NOW)
    assert store.stored.window("press", ["t"], NOW, NOW + NS).gaps == (gap,)
    assert store.stored.window("press", ["t"], NOW + 1, NOW + NS).gaps == ()
    assert store.stored.window("pump", ["t"], NOW, NOW + NS).gaps == ()


def test_what_is_filled_in_later_does_not_replace_what_came_live(store: LocalStore) -> None:
    store.append("press", TAGS, second(0, 1.0), NOW)
    store.append("press", TAGS, second(0, 9.0, historical=True), NOW)
    assert set(store.stored.window("press", ["t"], NOW, NOW + NS).columns["t"].values) == {1.0}


def test_a_unit_that_changed_is_told_and_nothing_is_converted(store: LocalStore) -> None:
    store.append("press", TAGS, second(0), NOW)
    store.append("press", (Tag("t", "K"), Tag("p", "bar")), second(1), NOW)
    with pytest.raises(DataError, match="'t' is in degC and in K"):
        store.stored.window("press", ["t"], NOW, NOW + 2 * NS)
    assert store.stored.window("press", ["t"], NOW + NS, NOW + 2 * NS).units == {"t": "K"}


def test_a_batch_that_no_source_may_give_is_not_kept(store: LocalStore) -> None:
    with pytest.raises(DataError, match="no such tag"):
        store.append("press", TAGS, Batch({"x": column([1], [1])}, 1), NOW)
    assert store.stored.state().frames == 0


def test_what_is_older_than_the_days_is_forgotten(tmp_path: Path) -> None:
    store = opened(tmp_path, days=1.0)
    store.append("press", TAGS, second(0, gaps=(Gap(NOW, NOW, "began"),)), NOW)
    store.append("press", TAGS, second(86_400 + 5), NOW + DAY_NS + 5 * NS)
    state = store.stored.state()
    assert (state.readings, state.forgotten_by_age, state.oldest_ns) == (20, 20, NOW + 86_405 * NS)
    assert store.stored.window("press", ["t"], 0, NOW + NS).gaps == ()
    store.close()


def test_a_clock_that_runs_ahead_forgets_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, days=1.0)
    store.append("press", TAGS, second(0), NOW)
    store.append("press", TAGS, second(1), NOW + 40_000 * DAY_NS)
    assert store.stored.state().readings == 40
    store.close()


def test_the_files_stay_within_their_bytes_and_the_newest_is_there(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in range(120):  # 19 MB of values
        store.append("press", TAGS, noise(number), NOW)
        assert size_of(tmp_path) <= 16 * MIB
    state = store.stored.state()
    assert state.kept == 120 * 20_000
    assert state.kept == state.readings + state.forgotten_by_size
    assert size_of(tmp_path) > 8 * MIB
    assert len(store.stored.window("press", ["t"], NOW + 119 * NS, NOW + 120 * NS).columns["t"]) == 20_000
    assert state.oldest_ns is not None
    assert state.oldest_ns > NOW
    store.close()


def test_a_lower_bound_gives_space_back(tmp_path: Path) -> None:
    store = opened(tmp_path, mib=32)
    for number in range(120):
        store.append("press", TAGS, noise(number), NOW)
    store.close()
    assert size_of(tmp_path) > 17 * MIB
    store = opened(tmp_path, mib=16)
    assert size_of(tmp_path) <= 16 * MIB
    assert len(store.stored.window("press", ["t"], NOW + 119 * NS, NOW + 120 * NS).columns["t"]) == 20_000
    store.close()


def test_on_a_disk_that_is_nearly_full_the_store_does_not_grow_but_keeps_the_newest(tmp_path: Path) -> None:
    store = opened(tmp_path, mib=64)
    for number in range(20):
        store.append("press", TAGS, noise(number), NOW)
    store._file._free = lambda: RESERVE
    before = store.stored.state().size
    for number in range(20, 40):
        store.append("press", TAGS, noise(number), NOW)
    state = store.stored.state()
    assert state.size <= before
    assert state.forgotten_by_size
    assert state.refused == 0
    assert len(store.stored.window("press", ["t"], NOW + 39 * NS, NOW + 40 * NS).columns["t"]) == 20_000
    store._file._free = lambda: 1 << 40
    for number in range(40, 60):
        store.append("press", TAGS, noise(number), NOW)
    assert store.stored.state().size > before
    store.close()


def test_where_forgetting_does_not_help_it_is_an_error_that_is_counted_and_passes(tmp_path: Path) -> None:
    store = opened(tmp_path, free=0)
    with pytest.raises(DiskFull, match="no space left for readings.db"):
        store.append("press", TAGS, noise(0), NOW)
    assert store.stored.state().readings == 0
    store._file._free = lambda: 1 << 40
    store.append("press", TAGS, noise(0), NOW)
    state = store.stored.state()
    assert (state.readings, state.kept) == (20_000, 20_000)
    store.close()


def test_a_disk_that_refuses_although_the_file_has_room_costs_no_more_than_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path)
    for number in range(60):
        store.append("press", TAGS, noise(number), NOW)

    def refused(*given) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(store, "_insert", refused)
    for _ in range(5):
        with pytest.raises(DiskFull):
            store.append("press", TAGS, noise(99), NOW)
    state = store.stored.state()
    assert state.refused == 5 * 20_000
    assert state.frames >= 50
    store.close()


def test_one_process_writes(tmp_path: Path, store: LocalStore) -> None:
    with pytest.raises(NotUsable, match="another process writes"):
        opened(tmp_path)
    store.append("press", TAGS, second(0), NOW)
    beside = StoredReadings(tmp_path)
    assert beside.state().readings == 20
    beside.close()


def test_a_store_that_could_not_be_opened_is_held_by_nobody(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"no database" * 100)
    for _ in range(2):
        with pytest.raises(Corrupted) as raised:
            opened(tmp_path)
        assert raised.value.next_step.startswith("Move the file away")


def test_a_file_of_another_format_is_left_alone(tmp_path: Path) -> None:
    opened(tmp_path).close()
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(NotUsable, match="format 9"):
        opened(tmp_path)


def test_where_there_is_no_store_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NotUsable, match="there is no store"):
        StoredReadings(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_frame_is_told(tmp_path: Path, store: LocalStore) -> None:
    store.append("press", TAGS, second(0), NOW)
    store._file.db.execute("UPDATE frames SET numbers = x'00'")
    with pytest.raises(Corrupted, match=r"readings\.db: a block of a frame"):
        store.stored.window("press", ["t"], NOW, NOW + NS)


def test_what_was_kept_is_forced_to_the_disk(store: LocalStore) -> None:
    assert store._file.db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._file.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_the_log_is_a_part_of_the_bytes(store: LocalStore) -> None:
    assert store._file._bytes == 16 * MIB - LOG


WRITER = """
import sys
from tests.unit.adapters.test_local_store import NOW, TAGS, opened, second
from pathlib import Path
store = opened(Path(sys.argv[1]))
for number in range(100_000):
    store.append("press", TAGS, second(number, float(number)), NOW)
    print(number, flush=True)
"""


def test_what_append_has_kept_is_there_after_a_kill(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(30)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    last = max(int(line) for line in lines if line.endswith(b"\n"))
    store = opened(tmp_path)
    found = store.stored.window("press", ["t"], NOW, NOW + (last + 1) * NS).columns["t"]
    assert found.values[::10].tolist() == [float(number) for number in range(last + 1)]
    store.close()
