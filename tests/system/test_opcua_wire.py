"""What a source of kind `opcua` puts on the wire, as seen between it and a server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import Server, ua

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.opcua.connection import READS, ReadOnly, opened
from reuna.adapters.opcua.source import OpcUaSource
from reuna.core.sources import NS, ns_of
from reuna.fleet.ports import free_ports
from tests.opcua import URI, Machine, Reader, settings, tag

pytestmark = [pytest.mark.system]
#: Kinds of requests by the number of their binary encoding (OPC UA part 6, annex A), which change nothing.
READING = {
    428: "GetEndpoints", 446: "OpenSecureChannel", 452: "CloseSecureChannel", 461: "CreateSession",
    467: "ActivateSession", 473: "CloseSession", 554: "TranslateBrowsePathsToNodeIds", 631: "Read",
    664: "HistoryRead", 751: "CreateMonitoredItems", 787: "CreateSubscription", 826: "Publish",
    847: "DeleteSubscriptions",
}  # fmt: skip


class Tap:
    """Passes bytes to a server and counts the kinds of requests in them; ``cut`` breaks the line."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.kinds: Counter[str] = Counter()
        self.lines: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, thither = await asyncio.open_connection("127.0.0.1", self.to)
        self.lines += [writer, thither]
        back = asyncio.create_task(self._back(there, writer))
        try:
            while True:
                head = await reader.readexactly(8)
                body = await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
                if head[:3] in (b"OPN", b"MSG", b"CLO"):
                    self.kinds[self._kind(head, body)] += 1
                thither.write(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            thither.close()
            await back
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
        except ConnectionError:
            pass

    @staticmethod
    def _kind(head: bytes, body: bytes) -> str:
        """Of an unsecured message: its type is a node of namespace 0 in four bytes, behind the headers."""
        if head[:3] == b"OPN":
            return "OpenSecureChannel"
        assert body[16:18] == b"\x01\x00"
        number = int.from_bytes(body[18:20], "little")
        return READING.get(number, f"forbidden {number}")

    def cut(self) -> None:
        for line in self.lines:
            line.transport.abort()
        self.lines.clear()


@asynccontextmanager
async def tapping(port: int) -> AsyncIterator[tuple[Tap, str]]:
    (front,) = free_ports(1)
    tap = Tap(port)
    async with await asyncio.start_server(tap.serve, "127.0.0.1", front):
        yield tap, f"opc.tcp://127.0.0.1:{front}"
        tap.cut()


@asynccontextmanager
async def served(**limits: int) -> AsyncIterator[tuple[Server, Tap, str]]:
    """A server of asyncua with six nodes, which keeps history and says limits, behind a tap."""
    (port,) = free_ports(1)
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(URI)
    prefix = "Server_ServerCapabilities_OperationLimits_"
    for name, most in limits.items():
        limit = server.get_node(ua.NodeId(getattr(ua.ObjectIds, prefix + name)))
        await limit.write_value(ua.UInt32(most))
    for number in range(6):
        await server.nodes.objects.add_variable(ua.NodeId(f"t{number}", index), f"t{number}", float(number))
    async with server:
        async with tapping(port) as (tap, url):
            yield server, tap, url


def reader(url: str, after_ns: int | None = None) -> Reader:
    tags = [tag(f"t{number}", "bar") for number in range(6)]
    said = settings(url, tags, unchanged_s=0.2)  # so that batches come for as long as is waited
    return Reader(OpcUaSource(said, SystemClock(), ThreadOffload(), after_ns))


async def test_no_request_that_could_change_something_ever_leaves() -> None:
    nodes = [{"node": f"t{number}", "value": float(number)} for number in range(6)]
    machine = Machine(nodes=nodes).start()
    try:
        async with tapping(machine.port) as (tap, url):
            reading = reader(url)
            await reading.until(lambda it: all(it.values(f"t{number}") for number in range(6)))
            tap.cut()
            await reading.until(lambda it: any("until now" in gap.reason for gap in it.gaps))
            await reading.until(lambda _: tap.kinds["HistoryRead"] > 0)
            await reading.stream.aclose()
            assert set(tap.kinds) <= set(READING.values())
            assert {"Read", "HistoryRead", "CreateMonitoredItems", "Publish", "CloseSession"} <= set(
                tap.kinds
            )
            async with opened(settings(url, []), SystemClock(), ThreadOffload(), strict=True) as session:
                with pytest.raises(PermissionError):
                    await session.client.get_node(ua.NodeId("t0", 2)).write_value(5.0)
        assert not any(kind.startswith("forbidden") for kind in tap.kinds)
    finally:
        machine.kill()


async def test_requests_are_no_larger_than_the_server_says_and_its_history_is_read() -> None:
    """With a server of asyncua: the one of open62541 lets nobody set limits."""
    limits = {
        "MaxMonitoredItemsPerCall": 2,
        "MaxNodesPerTranslateBrowsePathsToNodeIds": 3,
        "MaxNodesPerHistoryReadData": 4,
    }
    async with served(**limits) as (server, tap, url):
        now = datetime.now(UTC)
        place = server.get_node(ua.NodeId("t0", await server.get_namespace_index(URI)))
        await server.historize_node_data_change(place, period=None)
        for ago in (40, 30, 20, 10):
            value = ua.DataValue(ua.Variant(float(ago)), SourceTimestamp=now - timedelta(seconds=ago))
            await place.write_value(value)
        reading = reader(url, after_ns=ns_of(now.timestamp()) - 35 * NS)
        await reading.until(lambda it: all(it.values(f"t{number}") for number in range(6)))
        await reading.until(lambda it: 10.0 in it.values("t0", historical=True))
        await reading.until(lambda _: tap.kinds["HistoryRead"] >= 2)
        kept = reading.values("t0", historical=True)
        await reading.stream.aclose()
    assert 40.0 not in kept
    assert {30.0, 20.0, 10.0} <= set(kept)
    assert tap.kinds["CreateMonitoredItems"] == 3
    assert tap.kinds["TranslateBrowsePathsToNodeIds"] == 2


@pytest.mark.parametrize("name", ["Write", "Call", "AddNodes", "DeleteNodes", "HistoryUpdate"])
def test_a_request_that_writes_is_stopped_before_it_leaves(name: str) -> None:
    with pytest.raises(PermissionError, match=f"a source only reads: {name}Request"):
        ReadOnly().observe_request(getattr(ua, f"{name}Request")())
    assert f"{name}Request" not in READS
