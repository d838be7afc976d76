"""The law of the local store: what was appended and not forgotten comes back, in any order, after any restart."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reuna.adapters.local_store import DAY_NS, LocalStore
from reuna.core.source_settings import StoreSettings
from reuna.core.sources import NS, Batch, Tag, column

TAGS = (Tag("a", "bar"), Tag("b"))
HOUR = 3600 * NS
HOURS = 24 * 5
TIME = some.integers(0, HOURS * 4).map(lambda quarter: quarter * HOUR // 4)
READINGS = some.lists(some.tuples(TIME, some.floats(width=32), some.integers(0, 2)), max_size=8)


class Kept(RuleBasedStateMachine):
    """The store beside a dictionary: (tag, time) -> value, quality, whether it is historical."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.days = 2.0
        self.open()
        self.model: dict[tuple[str, int], tuple[float, int, bool]] = {}
        self.given = 0
        self.now = 0

    def open(self) -> None:
        self.store = LocalStore(StoreSettings(self.folder.name, self.days, 16), lambda: 1 << 40)

    @rule(a=READINGS, b=READINGS, historical=some.booleans(), now=TIME)
    def append(self, a, b, historical: bool, now: int) -> None:
        batch = Batch(
            {name: self._column(name, rows, historical) for name, rows in (("a", a), ("b", b))},
            now,
            (),
            historical,
        )
        self.given += batch.readings
        self.now = max(self.now, now)
        assert self.store.append("s", TAGS, batch, self.now) == batch.readings

    def _column(self, name: str, rows, historical: bool):
        found = column(*(list(part) for part in zip(*rows, strict=True))) if rows else column([], [])
        for time, value, quality in zip(
            found.times.tolist(), found.values.tolist(), found.quality.tolist(), strict=True
        ):
            before = self.model.get((name, time))
            if before is None or before[2] or not historical:
                self.model[name, time] = (value, quality, historical)
        return found

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.open()

    @rule()
    def fewer_days(self) -> None:
        self.days = 1.0
        self.restart()

    @rule(start=TIME, length=TIME)
    def a_window_is_what_the_whole_has_in_that_time(self, start: int, length: int) -> None:
        whole = self.store.stored.window("s", ["a"], 0, HOURS * HOUR + 1).columns["a"]
        part = self.store.stored.window("s", ["a"], start, start + length).columns["a"]
        inside = (whole.times >= start) & (whole.times < start + length)
        assert part.times.tolist() == whole.times[inside].tolist()
        np.testing.assert_array_equal(part.values, whole.values[inside])

    @invariant()
    def what_is_young_comes_back_as_it_was(self) -> None:
        found = self.store.stored.window("s", ["a", "b"], 0, HOURS * HOUR + 1)
        there = {
            (name, time): (value, quality)
            for name, each in found.columns.items()
            for time, value, quality in zip(
                each.times.tolist(), each.values.tolist(), each.quality.tolist(), strict=True
            )
        }
        for key, (value, quality) in there.items():  # what was forgotten live may leave a historical one
            assert key in self.model
            if key[1] >= self.now - int(self.days * DAY_NS):
                np.testing.assert_equal((value, quality), self.model[key][:2])
        young = {key for key in self.model if key[1] >= self.now - int(self.days * DAY_NS)}
        assert young <= there.keys()
        times = found.columns["a"].times
        assert (np.diff(times) > 0).all()

    @invariant()
    def every_reading_is_accounted_for(self) -> None:
        state = self.store.stored.state()
        assert state.kept == self.given == state.readings + state.forgotten_by_age
        assert state.forgotten_by_size == state.refused == 0

    def teardown(self) -> None:
        self.store.close()
        assert Path(self.folder.name).is_dir()
        self.folder.cleanup()


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=100, stateful_step_count=15, deadline=None)


@given(sizes=some.lists(some.integers(1, 4000), min_size=1, max_size=25), pages=some.integers(64, 200))
@settings(max_examples=30)
def test_within_its_bytes_the_newest_remain_and_all_is_accounted_for(sizes: list[int], pages: int) -> None:
    rng = np.random.default_rng(len(sizes))
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(StoreSettings(folder, 30.0, 16), lambda: 1 << 40)
        store._file._bytes = pages * store._file._page  # as if the bound were that low
        for place, size in enumerate(sizes):
            found = column(place * NS + np.arange(size), rng.normal(size=size))
            store.append("s", TAGS, Batch({"a": found}, 0), 0)
            state = store.stored.state()
            assert state.size <= max(store._file._bytes, 64 * 4096)
            assert state.kept == sum(sizes[: place + 1]) == state.readings + state.forgotten_by_size
        times = store.stored.window("s", ["a"], 0, len(sizes) * NS).columns["a"].times
        first = len(sizes) if not len(times) else int(times[0]) // NS
        assert len(times) == sum(sizes[first:]), "what is left is the newest, without a hole"
        assert first < len(sizes)
        store.close()
