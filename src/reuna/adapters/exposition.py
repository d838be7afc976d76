"""Figures as the text that Prometheus reads, and the small HTTP server that gives it to whoever asks.

https://prometheus.io/docs/instrumenting/exposition_formats/

Loads prometheus-client when it is asked to serve, so a place without metrics does not have it in memory.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from reuna.core.errors import ExtraMissing, PortInUse, SettingsError
from reuna.core.figures import BOUNDS, NODE, SERIES, Figure, Series
from reuna.core.ports import Clock

log = logging.getLogger("reuna.metrics")
PATH = "/metrics"
MAX_HEAD = 8192  #: bytes of a request
REQUEST_S = 5.0  #: for one request, whole
ENDING_S, AGAIN_S = 5.0, 0.2  #: for a port that somebody has, and between two tries
AT_ONCE = 4  #: connections that are served at a time; more wait
SETTING = "metrics.listen"
Page = Callable[[], Awaitable[bytes]]


async def listening(address: str, clock: Clock) -> socket.socket | None:
    """A socket that listens there, None for ''; nothing is answered before `serve`.

    Who was killed a moment ago may still have it: a port in use is tried again for `ENDING_S`.
    Raises `PortInUse`, `SettingsError`, each with the setting's name; `ExtraMissing`.
    """
    if not address:
        return None
    if importlib.util.find_spec("prometheus_client") is None:
        raise ExtraMissing(
            f"{SETTING}: prometheus-client is not installed", "Run `pip install 'reuna[metrics]'`."
        )
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise SettingsError(f"{SETTING}: {host} is no address of this machine: {error.strerror}") from error
    until = clock.now() + ENDING_S
    while True:
        try:
            sock = _bound(family, kind, where, address)
            break
        except PortInUse:
            if clock.now() >= until:
                raise
            await clock.sleep(AGAIN_S)
    if not _is_loopback(str(where[0])):
        log.warning("%s: whoever reaches %s reads this node's counts; nothing is encrypted", SETTING, address)
    return sock


def _bound(family: int, kind: int, where: Any, address: str) -> socket.socket:
    """Raises `PortInUse`, `SettingsError`."""
    sock = socket.socket(family, kind)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen()
    except OSError as error:
        sock.close()
        what = f"{SETTING}: cannot listen on {address}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(what, f"Stop what does, or choose another port in {SETTING}.") from None
        raise SettingsError(what, f"Choose an address of this machine in {SETTING}.") from None
    return sock


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def text(node: str, figures: Sequence[Figure]) -> bytes:
    """Figures of a node in the text format, by name."""
    from prometheus_client.core import CollectorRegistry, Metric
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import Collector

    class Told(Collector):
        def collect(self) -> Iterator[Metric]:
            for series in SERIES.values():
                found = [each for each in figures if each.name == series.name]
                if found:
                    yield _family(series, node, found)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Told())
    return generate_latest(registry)


def _family(series: Series, node: str, figures: Sequence[Figure]) -> Metric:  # type: ignore[name-defined]  # noqa: F821
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    labels = (NODE, *series.labels)
    if series.kind == "histogram":
        histogram = HistogramMetricFamily(series.name, series.help, labels=labels)
        for each in figures:
            histogram.add_metric((node, *each.labels), _summed(each.buckets), each.value)
        return histogram
    kind = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
    family = kind(series.name, series.help, labels=labels)
    for each in figures:
        family.add_metric((node, *each.labels), each.value)
    return family


def _summed(buckets: Sequence[int]) -> list[tuple[str, float]]:
    """Each bucket with those below it, as the format wants them."""
    ends = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")
    return [(end, float(sum(buckets[: number + 1]))) for number, end in enumerate(ends)]


async def serve(sock: socket.socket, page: Page) -> None:
    """Answer ``GET /metrics`` until cancelled. Each connection gets one answer and `REQUEST_S` at most."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with turns, asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await _answer(head, page))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("a request for metrics: %r", error)
        finally:
            with suppress(OSError):
                writer.close()

    server = await asyncio.start_server(one, sock=sock, limit=MAX_HEAD)
    async with server:
        await server.serve_forever()


async def _answer(head: bytes, page: Page) -> bytes:
    method, path = (*head.split(b"\r\n", 1)[0].split(b" "), b"", b"")[:2]
    if path.split(b"?")[0].decode("latin-1") != PATH:
        return _response("404 Not Found", b"there is /metrics\n")
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", b"it is only read\n", "Allow: GET, HEAD\r\n")
    return _response("200 OK", await page(), only_head=method == b"HEAD")


def _response(status: str, body: bytes, headers: str = "", only_head: bool = False) -> bytes:
    said = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
    )
    return said.encode() + (b"" if only_head else body)
