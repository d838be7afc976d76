"""A full disk is waited for, and a server whose disk was full is started again."""

from __future__ import annotations

import asyncio
import logging

import pytest

from reuna.core.errors import Corrupted, DiskFull
from reuna.exchange.room import when_there_is_room
from reuna.exchange.stored import ENOUGH, keep_stored
from reuna.sim.clock import SimClock, run_virtual

log = logging.getLogger("reuna.test")


class Disk:
    """Takes nothing for the first tries."""

    def __init__(self, full: int) -> None:
        self.full = full
        self.tries = 0

    async def write(self) -> str:
        self.tries += 1
        if self.tries <= self.full:
            raise DiskFull("no space left for it in the folder")
        return "written"


def waited(disk: Disk) -> list[float]:
    """Writes to the disk; the seconds told afterwards."""
    told: list[float] = []

    async def tell(seconds: float) -> None:
        told.append(seconds)

    assert run_virtual(when_there_is_room(disk.write, SimClock(), log, tell)) == "written"
    return told


def test_a_disk_with_room_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    assert waited(Disk(0)) == []
    assert caplog.messages == []


def test_a_full_disk_is_said_once_with_the_next_step_and_told_afterwards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    disk = Disk(5)
    assert waited(disk) == [pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6)]
    assert disk.tries == 6
    said, over = caplog.messages
    assert said.startswith("R401 no space left for it in the folder; waiting. Free space")
    assert over == "there is room on the disk again, after 3.1 s"


def test_telling_waits_for_room_too() -> None:
    disk, told = Disk(1), Disk(3)

    async def tell(_seconds: float) -> None:
        await told.write()

    run_virtual(when_there_is_room(disk.write, SimClock(), log, tell))
    assert told.tries == 4


def test_another_error_is_not_waited_for() -> None:
    async def broken() -> None:
        raise Corrupted("the disk gave other bytes")

    with pytest.raises(Corrupted):
        run_virtual(when_there_is_room(broken, SimClock(), log))


class Server:
    """A server that says what it is given to say."""

    name = "fog-1"

    def __init__(self) -> None:
        self.log = "started"
        self.free = ENOUGH
        self.restarts = 0

    def log_size(self) -> int:
        return len(self.log)

    def log_since(self, offset: int) -> str:
        return self.log[offset:]

    def free_bytes(self) -> int:
        return self.free

    async def restart(self) -> None:
        self.restarts += 1
        self.log += "started"


async def _look(server: Server, clock: SimClock, seconds: float) -> int:
    await clock.sleep(seconds)
    return server.restarts


def test_a_server_is_started_again_once_there_is_room_and_only_then() -> None:
    async def history() -> list[int]:
        server, clock = Server(), SimClock()
        watching = asyncio.create_task(keep_stored(server, clock, log))
        seen = [await _look(server, clock, 10.5)]
        server.free = 0
        server.log += "failed to store a msg: no space left on device"
        seen.append(await _look(server, clock, 10))
        server.free = ENOUGH
        seen.append(await _look(server, clock, 10))
        watching.cancel()
        return seen

    assert run_virtual(history()) == [0, 0, 1]
