"""The processes of many agents: started side by side, ended together."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from reuna.adapters.processes import end_with_parent, peak_mib
from reuna.core.errors import ServerFailed

STOP_S = 30.0


def shares(names: Sequence[str], processes: int) -> list[Sequence[str]]:
    """The names in order, as many for each process: who has a fog in common is together."""
    count = min(processes, len(names))
    ends = [len(names) * part // count for part in range(count + 1)]
    return [names[first:last] for first, last in pairwise(ends)]


class Herd:
    """Some edges of the fleet in a folder in so many processes, none of which is started again.

    ``names``: those of one fog after those of another.
    """

    def __init__(self, folder: Path, names: Sequence[str], processes: int) -> None:
        self._folder = folder
        self._name = f"agents-{names[0]}"
        self._shares = shares(names, processes)
        self._running: list[asyncio.subprocess.Process] = []
        self._peaks: dict[int, float] = {}

    async def start(self) -> None:
        """Begin them all; the edges themselves come one after the other."""
        for number, names in enumerate(self._shares):
            with self._log(number).open("ab") as out:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "drills.crowd.agents",
                    str(self._folder),
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
                last = "\n".join(self._log(number).read_text(errors="replace").splitlines()[-5:])
                raise ServerFailed(f"{self._name} ended with status {process.returncode}:\n{last}")
        return [(f"{self._name}-{number}/agents", each.pid) for number, each in enumerate(self._running)]

    def _log(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number}.log"

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
