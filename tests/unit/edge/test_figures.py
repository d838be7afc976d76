"""What an edge's processes tell of themselves: the numbers that are there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from reuna.adapters.answer_store import AnswerStore
from reuna.adapters.clock import SystemClock
from reuna.adapters.local_store import LocalStore
from reuna.core.errors import BadMessage, Unreachable
from reuna.core.figures import Figure, Worked, judged
from reuna.core.live import Shape, begun
from reuna.core.operating import Operating
from reuna.core.outcomes import Outcome
from reuna.core.sinks import Progress
from reuna.core.source_settings import StoreSettings
from reuna.core.sources import BAD, NS, UNCERTAIN, Batch, Gap, Tag, column
from reuna.edge import figures as module
from reuna.edge.figures import EdgeFigures, of_sources, of_store, tell_agent, told_by
from reuna.edge.read import Live, Seen, note
from reuna.edge.reading import lines
from reuna.edge.sinks import progress_file

TAG = Tag("oil", "degC")
ONE = Outcome("pumps", 3, "0" * 64, 0, 10, "answered", 1.0, (0.2, 0.8), took_ms=4.0)


def values(figures: Sequence[Figure], name: str) -> dict[tuple[str, ...], float]:
    return {each.labels: each.value for each in judged(list(figures)) if each.name == name}


def seen(*batches: Batch) -> Seen:
    made = Seen(None, {"oil": Live(TAG)})
    for each in batches:
        note(made, each)
    return made


def batch(*quality: int, gaps: tuple[Gap, ...] = ()) -> Batch:
    times = [number * NS for number in range(len(quality))]
    return Batch({"oil": column(times, [1.0] * len(quality), list(quality))}, gaps=gaps, received_ns=7 * NS)


def test_a_source_tells_counts_and_no_reading() -> None:
    gap, other = Gap(0, NS, "away"), Gap(NS, 2 * NS, "away")
    press = seen(batch(0, BAD, UNCERTAIN, gaps=(gap,)), batch(0, gaps=(gap, other)))
    told = of_sources([("press", press)])
    at = ("press",)
    assert values(told, "reuna_source_readings_total")[at] == 4
    assert values(told, "reuna_source_uncertain_total")[at] == 1
    assert values(told, "reuna_source_bad_total")[at] == 1
    assert values(told, "reuna_source_gaps_total")[at] == 2, "the same gap counts once"
    assert values(told, "reuna_source_received_timestamp_seconds")[at] == 7
    assert values(told, "reuna_source_up")[at] == 1
    press.error = Unreachable("away")
    assert values(of_sources([("press", press)]), "reuna_source_up")[at] == 0
    assert not values(of_sources([("new", seen())]), "reuna_source_received_timestamp_seconds")


def test_the_store_tells_its_size_and_age(tmp_path: Path) -> None:
    store = LocalStore(StoreSettings(str(tmp_path), 30.0, 64))
    try:
        assert not values(of_store(store.stored), "reuna_store_oldest_timestamp_seconds")
        store.append("press", [TAG], batch(0, 0, 0), 3 * NS)
        told = of_store(store.stored)
    finally:
        store.close()
    assert values(told, "reuna_store_oldest_timestamp_seconds") == {(): 0.0}
    assert values(told, "reuna_store_bytes")[()] >= 4096
    assert values(told, "reuna_store_readings_total")["kept",] == 3


async def test_what_a_reader_says_arrives_at_its_agent_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setblocking(False)
    came: asyncio.Queue[bytes] = asyncio.Queue()

    class Stored:
        def extent(self) -> tuple[int, int | None, dict[str, int]]:
            return 8192, None, {"kept": 3}

    told = asyncio.create_task(tell_agent(theirs, {"press": seen(batch(0))}, Stored(), SystemClock()))  # type: ignore[arg-type]
    heard = asyncio.create_task(lines(ours, came.put))
    for _ in range(3):
        figures = told_by(await asyncio.wait_for(came.get(), 10))
        assert values(figures, "reuna_source_readings_total") == {("press",): 1}
        assert values(figures, "reuna_store_bytes") == {(): 8192}
    told.cancel()
    await asyncio.gather(told, return_exceptions=True)
    theirs.close()
    await asyncio.wait_for(heard, 10)
    ours.close()


async def test_a_reader_that_says_no_end_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reuna.edge.reading.MOST_TOLD", 10)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.sendall(b"x" * 11)
    came: list[bytes] = []

    async def on_told(line: bytes) -> None:
        came.append(line)

    task = asyncio.create_task(lines(ours, on_told))
    while waits_to_be_read(ours):
        await asyncio.sleep(0)
    theirs.sendall(b"\n[]\n")
    theirs.close()
    await asyncio.wait_for(task, 10)
    ours.close()
    assert came == []


def waits_to_be_read(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("line", [b"", b"\xff", b"{}", b'[["reuna_edges","many"]]', b"[" * 5000])
def test_what_a_reader_cannot_have_said_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessage, match="reader"):
        told_by(line)


async def test_an_agent_tells_what_runs_what_waits_and_how_far_its_sinks_are(tmp_path: Path) -> None:
    worked = Worked()
    told = EdgeFigures(["archive", "new"], tmp_path, tmp_path / "answers", worked)
    assert await told.collect() == []
    mark = begun(Shape(NS, 10, 5), None, 0)
    store = AnswerStore(tmp_path / "answers", 30.0, 16)
    store.keep("pumps", mark, [("live", ONE), ("live", ONE)], 0)
    store.close()
    file = progress_file(tmp_path, "archive")
    file.path.parent.mkdir()
    file.write(Progress(1, sent=1, refused=2, dropped=3))

    class Asking:
        def waiting(self) -> dict[str, int]:
            return {"pumps": 4}

    told.runs(lambda: [Operating("pumps", 3, "0" * 64, "trial")], Asking())  # type: ignore[arg-type]
    watched: list[int] = []

    async def watch(_held: object, _rows: object, outcomes: Sequence[Outcome]) -> None:
        watched.append(len(outcomes))

    await told.also(watch)(None, None, [ONE, msgspec.structs.replace(ONE, state="safe")])  # type: ignore[arg-type]
    worked.count("train", 2.0)
    figures = await told.collect()
    assert watched == [2]
    assert values(figures, "reuna_live_windows_total")["pumps", "safe"] == 1
    assert values(figures, "reuna_live_waiting") == {("pumps",): 4}
    assert values(figures, "reuna_release_info") == {("pumps", "3", "trial"): 1}
    assert values(figures, "reuna_rounds_total") == {("train",): 1}
    assert values(figures, "reuna_sink_waiting") == {("archive",): 1}
    assert values(figures, "reuna_sink_answers_total") == {
        ("archive", "sent"): 1, ("archive", "refused"): 2, ("archive", "dropped"): 3,
    }  # fmt: skip
