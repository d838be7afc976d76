"""The processes of many agents: started side by side, ended together."""

from __future__ import annotations

import asyncio
import sys

from reuna.adapters.processes import end_with_parent, peak_mib
from reuna.core.errors import ServerFailed
from reuna.fleet.layout import Fleet

STOP_S = 30.0


class Herd:
    """The edges of a fleet in so many processes, none of which is started again."""

    def __init__(self, fleet: Fleet, processes: int) -> None:
        self._fleet = fleet
        names = [place.name for place in fleet.of("edge")]
        self._shares = [names[first::processes] for first in range(processes)]
        self._running: list[asyncio.subprocess.Process] = []
        self._peaks: dict[int, float] = {}

    async def start(self) -> None:
        """Begin them all; the edges themselves come one after the other."""
        for number, names in enumerate(self._shares):
            with (self._fleet.folder / f"agents-{number}.log").open("ab") as out:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "drills.crowd.agents",
                    str(self._fleet.folder),
                    *names,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    preexec_fn=end_with_parent,
                )
            self._running.append(process)

    def processes(self) -> list[tuple[str, int]]:
        """As `Supervisor.processes`. Raises `ServerFailed` when one of them has ended."""
        for number, process in enumerate(self._running):
            if process.returncode is not None:
                log = self._fleet.folder / f"agents-{number}.log"
                last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise ServerFailed(f"agents {number} ended with status {process.returncode}:\n{last}")
        return [(f"agents-{number}/agents", each.pid) for number, each in enumerate(self._running)]

    def peak_mib(self) -> float:
        """Of all processes together, by their last look or now."""
        for each in self._running:
            if each.returncode is None:
                self._peaks[each.pid] = peak_mib(each.pid)
        return sum(self._peaks.values())

    async def stop(self) -> None:
        """End them, and wait until their ledgers are in order."""
        self.peak_mib()
        running = [each for each in self._running if each.returncode is None]
        for each in running:
            each.terminate()
        for each in running:
            try:
                await asyncio.wait_for(each.wait(), STOP_S)
            except TimeoutError:
                each.kill()
                await each.wait()
