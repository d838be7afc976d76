"""The page that Prometheus reads, and the server that gives it."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reuna.adapters import exposition
from reuna.adapters.clock import SystemClock
from reuna.adapters.exposition import listening, serve, text
from reuna.core.errors import ExtraMissing, PortInUse, SettingsError
from reuna.core.figures import BOUNDS, SERIES, Figure

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics-1.txt"
TIMES = (*range(len(BOUNDS)), 2)


def every() -> list[Figure]:
    """One of each series there is."""
    return [
        Figure(
            each.name,
            2.5,
            tuple(f"{name}-1" for name in each.labels),
            TIMES if each.kind == "histogram" else (),
        )
        for each in SERIES.values()
    ]


def test_the_page_is_as_it_was_published() -> None:
    assert text("pump-1", every()).decode() == GOLDEN.read_text()


def test_prometheus_own_reader_finds_every_figure() -> None:
    page = text("pump-1", [*every(), Figure("reuna_source_up", 0.0, ('a "quoted"\n\\name',))]).decode()
    found = {each.name: each for each in text_string_to_metric_families(page)}
    assert {name.removesuffix("_total") for name in SERIES} == set(found)
    assert [each.labels["source"] for each in found["reuna_source_up"].samples] == [
        "source-1", 'a "quoted"\n\\name',
    ]  # fmt: skip
    buckets = [each for each in found["reuna_live_seconds"].samples if each.name.endswith("_bucket")]
    assert [each.labels["le"] for each in buckets] == [*(f"{end:g}" for end in BOUNDS), "+Inf"]
    assert [each.value for each in buckets] == [sum(TIMES[: number + 1]) for number in range(len(TIMES))]
    assert {each.labels["node"] for family in found.values() for each in family.samples} == {"pump-1"}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    sock = await listening("127.0.0.1:0", SystemClock())
    assert sock is not None
    number = sock.getsockname()[1]
    task = asyncio.create_task(serve(sock, page))
    yield number
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def page() -> bytes:
    return b"reuna_edges 2\n"


async def asked(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_the_page_is_given_to_whoever_asks(port: int) -> None:
    for line in (b"GET /metrics HTTP/1.1", b"GET /metrics?x=1 HTTP/1.0"):
        head, _, body = (await asked(port, line + b"\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
        assert head.startswith(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        )
        assert b"Content-Length: 14" in head
        assert body == b"reuna_edges 2\n"
    assert (await asked(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET\r\n\r\n", b"404"),
        (b"\xff\xfe \xff\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 9000 + b"\r\n", b""),
    ],
)
async def test_anything_else_gets_no_page(port: int, request_: bytes, status: bytes) -> None:
    try:
        answer = await asked(port, request_)
    except ConnectionError:  # closed before all of it was sent
        answer = b""
    assert answer[9:12] == status
    assert b"reuna_edges" not in answer


async def test_who_says_nothing_is_hung_up_on_and_others_are_served(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "REQUEST_S", 0.1)
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(exposition.AT_ONCE)]
    assert b"reuna_edges" in await asked(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    for reader, writer in silent:
        assert await reader.read() == b""
        writer.close()


class Passing:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


async def test_a_port_in_use_is_named_with_its_setting_once_nobody_gives_it_up() -> None:
    clock = Passing()
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        task = asyncio.create_task(listening(f"127.0.0.1:{number}", clock))
        with pytest.raises(
            PortInUse, match=rf"metrics\.listen: cannot listen on 127\.0\.0\.1:{number}: "
        ) as told:
            await task
    assert "metrics.listen" in told.value.next_step
    assert clock.at >= exposition.ENDING_S


async def test_a_port_of_who_was_killed_a_moment_ago_is_waited_for() -> None:
    other = socket.create_server(("127.0.0.1", 0))

    class Later(SystemClock):
        async def sleep(self, seconds: float) -> None:
            other.close()

    sock = await listening(f"127.0.0.1:{other.getsockname()[1]}", Later())
    assert sock is not None
    sock.close()


async def test_an_address_that_is_not_ours_is_named_with_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"metrics\.listen: cannot listen on 203\.0\.113\.7:9464"):
        await listening("203.0.113.7:9464", SystemClock())

    def unknown(*_asked: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SettingsError, match=r"metrics\.listen: nowhere is no address"):
        await listening("nowhere:9464", SystemClock())


async def test_what_the_network_can_read_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for address in ("127.0.0.1:0", "[::1]:0", "0.0.0.0:0"):
            sock = await listening(address, SystemClock())
            assert sock is not None
            sock.close()
    (said,) = [each.getMessage() for each in caplog.records]
    assert said.startswith("metrics.listen: whoever reaches 0.0.0.0:0 reads")


async def test_nothing_listens_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert await listening("", SystemClock()) is None
    with pytest.raises(ExtraMissing, match="prometheus-client is not installed"):
        await listening("127.0.0.1:0", SystemClock())
