"""Sources are read side by side; what they give is noted and kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from reuna.adapters.file_source import FileSource
from reuna.adapters.local_store import LocalStore
from reuna.adapters.replay_source import ReplaySource
from reuna.core.errors import Corrupted, DataError, DiskFull
from reuna.core.source_settings import SourceSettings, StoreSettings, TagSettings
from reuna.core.sources import NS, Batch, Gap, Tag, column
from reuna.edge import read
from reuna.edge.read import Recorder, begun, listen, note, opened
from reuna.sim.clock import EPOCH, InPlace, SimClock, run_virtual

START = int(EPOCH) * NS
LONG = StoreSettings("", 30.0, 16)


class Pump:
    """A source that gives a reading each second; it fails or ends after ``most``."""

    tags = (Tag("flow", "L/s"), Tag("heat", "degC"))

    def __init__(self, name: str, most: int = 10**9, error: Exception | None = None, size: int = 1) -> None:
        self.name = name
        self.most = most
        self.error = error
        self.size = size
        self.given = 0
        self.closed = False

    async def batches(self) -> AsyncGenerator[Batch, None]:
        try:
            while self.given < self.most:
                first = START + self.given * NS
                times = [first + n for n in range(self.size)]
                self.given += 1
                found = column(times, [float(self.given)] * self.size)
                yield Batch({"flow": found}, first, historical=self.given % 2 == 0)
                await asyncio.sleep(1)
            if self.error:
                raise self.error
        finally:
            self.closed = True


@pytest.fixture
def store(tmp_path: Path):
    made = LocalStore(StoreSettings(str(tmp_path / "store"), 30.0, 16), lambda: 1 << 40)
    yield made
    made.close()


def kept(store: LocalStore, name: str) -> list[float]:
    return store.stored.window(name, ["flow"], START, START + 3600 * NS).columns["flow"].values.tolist()


def test_what_is_seen_of_a_tag_is_its_count_and_its_last_reading() -> None:
    seen = begun([Pump("pump")])["pump"]
    note(seen, Batch({"flow": column([1, 2], [1, 2], [1, 0])}, 3, (Gap(0, 1, "began"),)))
    note(seen, Batch({"flow": column([4], [float("nan")])}, 5))
    live = seen.live["flow"]
    assert (live.readings, live.uncertain, live.bad, live.time_ns, live.quality) == (3, 1, 1, 4, 2)
    assert seen.live["heat"].readings == 0
    assert len(seen.gaps) == 1


def test_one_source_that_fails_does_not_stop_the_others() -> None:
    good, broken = Pump("good"), Pump("broken", 2, DataError("no such folder"))

    async def run():
        seen = begun([good, broken])
        await listen(seen, SimClock(), 5.5)
        return seen

    seen = run_virtual(run())
    assert seen["good"].live["flow"].readings == 6
    assert seen["good"].error is None
    assert seen["broken"].live["flow"].readings == 2
    assert str(seen["broken"].error) == "no such folder"
    assert good.closed
    assert broken.closed


def test_it_ends_early_when_all_sources_have_ended() -> None:
    async def run() -> float:
        clock = SimClock()
        await listen(begun([Pump("a", 2), Pump("b", 3)]), clock, 1000)
        return clock.now() - EPOCH

    assert run_virtual(run()) == 3


def test_what_comes_is_kept_each_second_and_the_rest_at_the_end(store: LocalStore) -> None:
    async def run() -> list[int]:
        seen = begun([Pump("a"), Pump("b", 2)])
        task = asyncio.create_task(Recorder(store, SimClock()).record(seen, 4.5))
        await asyncio.sleep(2.25)
        meanwhile = len(kept(store, "a"))
        await task
        return [meanwhile, len(kept(store, "a")), len(kept(store, "b"))]

    meanwhile, a, b = run_virtual(run())
    assert meanwhile >= 2
    assert (a, b) == (5, 2)


def test_what_came_is_kept_when_it_is_cancelled(store: LocalStore) -> None:
    async def run() -> None:
        task = asyncio.create_task(Recorder(store, SimClock()).record(begun([Pump("a")])))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(run())
    assert kept(store, "a") == [1.0]


def test_while_the_disk_is_full_what_came_waits_and_the_source_is_not_read_on(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MOST_WAITING", 50)
    pump = Pump("a", size=10)
    full = True
    append = store.append

    def refuse(*given):
        if full:
            raise DiskFull("no space left")
        return append(*given)

    monkeypatch.setattr(store, "append", refuse)

    async def run() -> int:
        nonlocal full
        task = asyncio.create_task(Recorder(store, SimClock()).record(begun([pump]), 30.5))
        await asyncio.sleep(20)
        waiting = pump.given
        full = False
        await task
        return waiting

    assert run_virtual(run()) == 5
    assert pump.given > 10
    assert len(kept(store, "a")) == 10 * pump.given


def test_a_store_that_is_damaged_ends_the_recording(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*given):
        raise Corrupted("readings.db")

    monkeypatch.setattr(store, "append", damaged)
    with pytest.raises(Corrupted):
        run_virtual(Recorder(store, SimClock()).record(begun([Pump("a")]), 60))


def test_a_kind_of_source_is_read_by_its_adapter() -> None:
    tags = (TagSettings("flow", "flow"),)
    files = opened(SourceSettings("a", "files", "x", "time", tags), SimClock(), InPlace(), 5)
    assert isinstance(files, FileSource)
    replay = opened(SourceSettings("a", "replay", "x", "time", tags), SimClock(), InPlace(), 5)
    assert isinstance(replay, ReplaySource)
