"""Who does not read, or takes long, costs neither the server's memory nor the others: bounded windows everywhere.

A real nats-server. A process of its own is stopped (SIGSTOP) where somebody is not to read, so that bytes wait
where they would in a plant.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from reuna.adapters import nats_bus
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.nats_server import MAX_PENDING, LeafConfig, NatsServer, find_server
from reuna.adapters.processes import peak_mib
from reuna.adapters.tls import client_context
from reuna.core.subjects import MAX_PAYLOAD
from reuna.fleet.ports import free_ports

pytestmark = [pytest.mark.asyncio, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
SOON_S = 30.0
WORD = bytes(MAX_PAYLOAD)
WORDS = 120  #: more than a server holds for one receiver when nobody tells it how much
MIB = 1 << 20
EVENT, EVENTS = 30_000, 500  #: bytes of each, and enough of them for almost two blocks of a stream
#: An edge that listens to its plans and says when it does.
EDGE = """
import asyncio, sys
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.tls import client_context
async def main():
    bus = await NatsBus.connect(sys.argv[1], client_context(*sys.argv[2:5]), "plant-1")
    async def heard(subject, data): pass
    await bus.subscribe("plan.plant-1", heard)
    print("listens", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Site:
    """A gateway's server, and who may speak to it."""

    def __init__(self, folder: Path) -> None:
        self._authority = CertificateAuthority.create(folder / "pki", "demo")
        (port,) = free_ports(1)
        tls = self._authority.issue("gateway", "north", ["127.0.0.1"], site="north")
        config = LeafConfig("demo", "north", ("plant-1", "plant-2"), "127.0.0.1", port, tls)
        self.url = f"tls://127.0.0.1:{port}"
        self.server = NatsServer(find_server(), config, folder / "nats")
        self._open: list[NatsBus] = []

    def files(self, name: str) -> tuple[Path, Path, Path]:
        pair = self._authority.pair("gateway", name)
        if name != "north":
            pair = self._authority.issue("edge", name, site="north")
        return pair.certificate, pair.key, pair.authority

    async def connect(self, name: str) -> NatsBus:
        self._open.append(await NatsBus.connect(self.url, client_context(*self.files(name)), name))
        return self._open[-1]

    @contextmanager
    def that_does_not_read(self) -> Iterator[None]:
        """The first edge listens to its plans, and stops."""
        command = [sys.executable, "-c", EDGE, self.url, *map(str, self.files("plant-1"))]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as edge:
            assert edge.stdout is not None
            try:
                assert edge.stdout.readline() == b"listens\n"
                os.kill(edge.pid, signal.SIGSTOP)
                yield
            finally:
                edge.kill()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The server itself takes nothing."""
        os.kill(self.server.pid, signal.SIGSTOP)
        tasks = Path(f"/proc/{self.server.pid}/task")
        while any("State:\tT" not in (each / "status").read_text() for each in tasks.iterdir()):
            pass  # each thread stops by itself
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    async def end(self) -> None:
        for bus in self._open:
            await bus.close()
        await self.server.stop()


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    await made.server.start()
    try:
        yield made
    finally:
        await made.end()


async def test_a_receiver_that_does_not_read_costs_the_server_a_bounded_piece_of_memory(site: Site) -> None:
    gateway, other = await site.connect("north"), await site.connect("plant-2")
    heard: list[bytes] = []
    reached = asyncio.Event()

    async def hear(_subject: str, data: bytes) -> None:
        heard.append(data)
        if len(heard) == WORDS:
            reached.set()

    await other.subscribe("plan.plant-2", hear)
    with site.that_does_not_read():
        before = peak_mib(site.server.pid)
        for number in range(WORDS):
            await gateway.publish("plan.plant-1", WORD)
            await gateway.publish("plan.plant-2", number.to_bytes(2))
        async with asyncio.timeout(SOON_S):
            await reached.wait()
        grown = peak_mib(site.server.pid) - before
    assert "Slow Consumer" in site.server.log_since(0)
    assert [int.from_bytes(each) for each in heard] == list(range(WORDS)), "others are not disturbed"
    # each word once in the queue of its receiver, once where it comes in; garbage of Go as much again
    assert grown < 4 * MAX_PENDING / MIB, "without a bound of ours it is 64 MiB and its garbage"


async def test_events_that_wait_cost_the_server_one_block_of_its_stream_and_little_garbage(
    site: Site,
) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    await gateway.keep_stream()
    await edge.append("event.plant-1", b"first", "first")
    before = peak_mib(site.server.pid)
    for number in range(EVENTS):
        await edge.append("event.plant-1", os.urandom(EVENT), str(number))
    grown = peak_mib(site.server.pid) - before
    assert grown < 20, "27 where garbage is as much again as what is in use, as Go has it"


async def test_a_sender_waits_once_a_window_is_on_its_way(site: Site) -> None:
    gateway = await site.connect("north")
    with site.stopped():
        sending = asyncio.ensure_future(_several(gateway, 8))
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        assert not done, "a server that takes nothing is sent no more than a window"
        assert gateway._client.stats["out_bytes"] <= nats_bus._IN_FLIGHT
    async with asyncio.timeout(SOON_S):
        assert await sending == 8


async def _several(bus: NatsBus, count: int) -> int:
    for _ in range(count):
        await bus.publish("plan.plant-1", WORD)
    return count


async def test_only_so_many_appends_are_on_their_way_at_a_time(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    await gateway.keep_stream()
    before = edge._client.stats["out_msgs"]
    with site.stopped():
        sending = [asyncio.ensure_future(edge.append("event.plant-1", b"e", f"m{i}")) for i in range(50)]
        for _ in range(50):
            await asyncio.sleep(0)
        assert edge._client.stats["out_msgs"] - before == nats_bus._APPENDS
    async with asyncio.timeout(SOON_S):
        await asyncio.gather(*sending)


async def test_a_handler_that_takes_long_holds_a_bounded_piece_of_memory(site: Site) -> None:
    gateway, edge = await site.connect("north"), await site.connect("plant-1")
    heard: list[bytes] = []
    begin = asyncio.Event()

    async def hear(_subject: str, data: bytes) -> None:
        await begin.wait()
        heard.append(data)

    await edge.subscribe("plan.plant-1", hear)
    await _several(gateway, 20)
    await edge._client.flush()  # its answer comes after all that was sent to it
    begin.set()
    await _several(gateway, 1)
    async with asyncio.timeout(SOON_S):
        while not heard:
            await asyncio.sleep(0)
    assert sum(map(len, heard)) <= nats_bus._HELD_BYTES + 2 * MAX_PAYLOAD
