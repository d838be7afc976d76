"""What the egress shows: what was told last, what left, and the processes of its place."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.core.errors import BadMessage, Unreachable
from reuna.core.figures import Figure, judged
from reuna.exchange import board
from reuna.exchange.board import Board, LeftCounts, keep_telling, of_processes, show
from reuna.exchange.link import Frames, LinkServer, RemoteLink
from reuna.trust.ledger import Entry


def made(own: Sequence[Figure] = ()) -> Board:
    return Board("edge", "1.2.3", lambda: own, SystemClock())


def of(figures: Sequence[Figure], name: str) -> dict[tuple[str, ...], float]:
    return {each.labels: each.value for each in figures if each.name == name}


def test_what_a_process_told_last_is_shown_beside_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "place_pid", os.getpid)
    shown = made([Figure("reuna_parent_connected", 1.0)])
    shown.tell("agent", [Figure("reuna_rounds_total", 1, ("train",))])
    shown.tell("agent", [Figure("reuna_rounds_total", 2, ("train",))])
    shown.tell("reader", [Figure("reuna_source_up", 1, ("press",))])
    figures = judged(shown.figures())
    assert of(figures, "reuna_rounds_total") == {("train",): 2}
    assert of(figures, "reuna_source_up") == {("press",): 1}
    assert of(figures, "reuna_parent_connected") == {(): 1}
    assert of(figures, "reuna_place_info") == {("edge", "1.2.3"): 1}
    told = of(figures, "reuna_told_timestamp_seconds")
    assert set(told) == {("agent",), ("reader",)}
    assert all(0 <= time.time() - at < 60 for at in told.values())


def test_who_is_no_process_of_a_place_and_what_is_no_series_is_refused() -> None:
    shown = made()
    with pytest.raises(BadMessage, match="no process 'worker'"):
        shown.tell("worker", [])
    with pytest.raises(BadMessage, match="no series 'reading'"):
        shown.tell("agent", [Figure("reading", 21.5)])


def test_what_left_is_counted_by_kind_and_messages_that_repeat_once_they_are_over() -> None:
    left = LeftCounts()
    left.take([7], [Entry(time_ms=0, kind="intent", flow="presence", messages=16, payload_bytes=688)])
    assert left.figures() == []
    left.take(
        range(8, 12),
        [
            Entry(time_ms=0, kind="intent", flow="log", payload_bytes=10),
            Entry(time_ms=0, kind="refused", flow="model_update", payload_bytes=10**9),
            Entry(time_ms=0, kind="outcome", intent=8, payload_bytes=10),
            Entry(time_ms=0, kind="outcome", intent=7, messages=3, payload_bytes=129),
        ],
    )
    figures = judged(left.figures())
    assert of(figures, "reuna_left_bytes_total") == {("log",): 10, ("presence",): 129}
    assert of(figures, "reuna_left_total") == {("log",): 1, ("presence",): 3}
    assert of(figures, "reuna_kept_back_total") == {("model_update",): 1}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_memory_and_age_of_the_processes_of_a_place_are_told() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            figures = judged(of_processes(os.getpid()))
        finally:
            child.kill()
    assert of(figures, "reuna_processes")["main",] == 1
    assert of(figures, "reuna_processes")["other",] >= 1
    assert of(figures, "reuna_process_memory_bytes")["main",] > 1 << 20
    began = of(figures, "reuna_process_start_timestamp_seconds")
    assert began["main",] <= began["other",] <= time.time() + 1


async def test_a_page_is_made_once_however_often_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(board, "of_processes", lambda _place: asked.append(1) or [])
    sock = socket.create_server(("127.0.0.1", 0))
    where = f"http://127.0.0.1:{sock.getsockname()[1]}/metrics"
    task = asyncio.create_task(show(made(), "pump-1", sock, ThreadOffload()))
    pages = [
        await asyncio.to_thread(lambda: urllib.request.urlopen(where, timeout=10).read()) for _ in range(3)
    ]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pages[0] == pages[1] == pages[2]
    assert b'reuna_place_info{node="pump-1",place="edge",version="1.2.3"} 1.0' in pages[0]
    assert len(asked) == 1


async def test_a_process_that_cannot_tell_says_so_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def collect() -> list[Figure]:
        return [Figure("reuna_edges", 1.0)]

    async def tell(process: str, _figures: Sequence[Figure]) -> None:
        told.append(process)
        if len(told) < 4:
            raise Unreachable("away")

    class Quick:
        def now(self) -> float:
            return 0.0

        async def sleep(self, _seconds: float) -> None:
            if len(told) == 5:
                raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await keep_telling("gateway", collect, tell, Quick())
    assert told == ["gateway"] * 5
    assert [each.getMessage() for each in caplog.records] == ["figures of gateway are not told: R304 away"]


async def test_a_place_tells_its_egress_over_their_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "place_pid", os.getpid)
    shown, ends = made(), socket.socketpair()
    place, egress = [await Frames.over(end) for end in ends]
    link, nothing = RemoteLink(place), SimpleNamespace(listen=listen)
    server = LinkServer(egress, nothing, nothing, nothing, nothing, nothing, shown)  # type: ignore[arg-type]
    running = [asyncio.create_task(link.run()), asyncio.create_task(server.run())]
    await link.tell("gateway", [Figure("reuna_edges", 3.0)])
    with pytest.raises(BadMessage, match="no series 'oil'"):
        await link.tell("gateway", [Figure("oil", 71.5)])
    place.close()
    egress.close()
    await asyncio.gather(*running)
    assert of(shown.figures(), "reuna_edges") == {(): 3}


async def listen(_handle: object) -> None:
    """No plans come."""
