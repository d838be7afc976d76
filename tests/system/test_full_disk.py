"""A disk that is full in the middle of a run: said clearly, nothing lost, and the run goes on by itself.

The state of one place of a real fleet lies on a small file system of its own, which is filled to the
last byte after a few rounds. When there is space again, the run ends with the bits of an undisturbed one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.round import job_for
from drills.kill import count_members
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.tls import client_context
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import BusDown
from reuna.fleet.client import Operator
from reuna.fleet.data import spread
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.place import read_settings
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor, log_path
from reuna.fog import gateway
from reuna.fog.settings import FOG

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]

PARAMS = 100_000  #: 400 kB a model: it travels as freight and lies in every place's folder
ROUNDS = 8
FULL_AFTER = 3  #: rounds
BUSY_S = 0.3  #: each round at least: the run is not over before the disk is full
SIZE_MIB = 48
SAID = "R401"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of `SIZE_MIB` MiB in the place of ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take every byte that is left."""
    with (folder / "filler").open("ab", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


class Run:
    """One run over a fleet of a cloud, a fog and two edges."""

    def __init__(self, folder: Path) -> None:
        self.job = job_for(folder, PARAMS, 2, ROUNDS, 1, 32, 14, BUSY_S)
        self.fleet = make_fleet(folder / "fleet", "disk", spread(self.job.nodes, 1), announce_s=0.5)
        self.supervisor = Supervisor(self.fleet)
        self.closed: list[int] = []
        self.outcome: dict[str, Any] = {}

    async def carry_out(self, disturb: Any = None) -> dict[str, Any]:
        await self.supervisor.start()
        try:
            spec, parts = await asyncio.to_thread(prepare, self.job, self.fleet, "r-disk")
            self.spec = msgspec.structs.replace(spec, evaluate=True, deadline_s=600.0)
            operator = Operator.of(self.fleet)
            await ready(self.fleet, operator, self.supervisor)
            for part in parts:
                await asyncio.to_thread(operator.put_blob, part)
            await asyncio.to_thread(operator.submit, self.spec)
            disturbing = asyncio.create_task(disturb(self)) if disturb else None
            outcome = await follow(operator, self.spec.run, self._watch)
            if disturbing:
                await disturbing
        finally:
            await self.supervisor.stop()
        return outcome

    def _watch(self, event: dict[str, Any]) -> None:
        if event["what"] == "round":
            self.closed.append(int(event["fields"]["round"]))

    async def until(self, happened: Any, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not happened():
                await asyncio.sleep(0.05)


def logs(fleet: Fleet) -> dict[str, str]:
    """What every process of the fleet said, by place."""
    return {place.name: log_path(place).read_text() for place in fleet.places}


def said_by(fleet: Fleet, place: str) -> int:
    """How often a place said that its disk is full."""
    return logs(fleet)[place].count(SAID)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome of the run when nothing goes wrong."""
    return asyncio.run(Run(tmp_path_factory.mktemp("calm")).carry_out())


@pytest.mark.parametrize("place", ["edge-1", "fog-1", "cloud"])
def test_a_run_outlives_a_full_disk(place: str, calm: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "fleet" / place / "state"

    async def disturb(run: Run) -> None:
        await run.until(lambda: len(run.closed) >= FULL_AFTER)

        def said() -> bool:
            fill(state)
            return said_by(run.fleet, place) > 0

        await run.until(said)
        os.kill(run.supervisor.pids[place], signal.SIGKILL)
        said_before = said_by(run.fleet, place)

        def again() -> bool:
            fill(state)
            return said_by(run.fleet, place) > said_before

        await run.until(again)
        (state / "filler").unlink()

    with small_disk(state):
        run = Run(tmp_path)
        outcome = asyncio.run(run.carry_out(disturb))
        lost, double = count_members(run.fleet, run.spec)
    assert "Traceback" not in "".join(logs(run.fleet).values())
    assert (lost, double) == (0, 0)
    assert outcome["model"] == calm["model"]
    assert set(run.supervisor.restarts) == {place}


async def test_the_streams_of_a_site_take_events_again_after_a_full_disk(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", "disk", {"fog-1": {"edge-1": tmp_path}})
    fog, edge = fleet.of("fog")[0], fleet.of("edge")[0]
    settings = read_settings(FOG, "REUNA_FOG_", fog.settings, None)
    url = gateway.nats_url(settings)
    keys = {name: read_toml(place.settings).values for name, place in (("fog", fog), ("edge", edge))}
    heard: list[bytes] = []

    async def take(_subject: str, data: bytes) -> None:
        heard.append(data)

    with small_disk(tmp_path / "state"):
        async with AsyncExitStack() as stack:
            server = await gateway.start_nats(settings, tmp_path / "state", {"edge-1"}, stack)
            site = await NatsBus.connect(url, context(keys["fog"]["site"], keys["edge"]), "fog-1")
            stack.push_async_callback(site.close)
            node = await NatsBus.connect(
                url, context(keys["edge"]["tls"], keys["edge"]), "edge-1", append_timeout_s=3.0
            )
            stack.push_async_callback(node.close)
            await site.follow("event.>", "up", take)
            await node.append("event.edge-1", b"before", "1")
            fill(tmp_path / "state")
            with pytest.raises(BusDown):
                await node.append("event.edge-1", bytes(10_000), "2")
            (tmp_path / "state" / "filler").unlink()
            await asyncio.wait_for(appended(node, "event.edge-1", bytes(10_000), "2"), 60)
            async with asyncio.timeout(60):
                while len(heard) < 2:
                    await asyncio.sleep(0.05)
            assert server.pid
    assert heard == [b"before", bytes(10_000)]


async def appended(bus: NatsBus, subject: str, data: bytes, number: str) -> None:
    """Append, however often it takes, as an egress does."""
    while True:
        try:
            return await bus.append(subject, data, number)
        except BusDown:
            continue


def context(pair: Mapping[str, str], owner: Mapping[str, Any]) -> ssl.SSLContext:
    return client_context(Path(pair["certificate"]), Path(pair["key"]), Path(owner["tls"]["authority"]))
