"""The fleet of the drill `drift`: edges that read presses, and a plant that runs.

What keeps the loop closed is `reuna.demo.unattended`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from drills.drifting import plant, project
from drills.drifting.press import SIGNALS, UNITS
from reuna.demo.unattended import FLEET, Unattended, desired, read_machine
from reuna.fleet.layout import Fleet, PlaceFile, make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import ready
from reuna.fleet.supervise import Supervisor
from reuna.loop.release import judge_run
from reuna.wire.release import is_measured

HOLD_S = plant.FRESH_S  #: how long drift lasts until a run begins: by then every table is of what is now
AGAIN_S = (
    4 * HOLD_S
)  #: and until another one: a way from alarm to release, and tables of then, take no longer
TRIGGER = """on = "drift"
again = "{run}"
{what}
for_s = {hold}
cooldown_s = 1
budget = {{ runs = 50, days = 1 }}
"""


def wanted(run: str) -> str:
    """What is wanted of the fleet once nobody is there: an alarm begins a run, and drift that stays another."""
    first = TRIGGER.format(run=run, what='kinds = ["process", "machine", "sensor"]', hold=HOLD_S)
    again = TRIGGER.format(run=run, what='metric = "level"', hold=AGAIN_S)
    return desired("drift", project.NAME, {"moved": first, "still-moved": again})


def stopped_at(said: Sequence[str], bad: str) -> str:
    """The first line about a run that is not released, whose worst site is that press.

    >>> stopped_at(["+ r-1 of presses", "✗ r-2 of presses, is not released: worst seen min 1 at p-3, which has 0"], "p-3")[:5]
    '✗ r-2'
    """
    lines = (line for line in said if line.startswith("✗ "))
    return next((line for line in lines if f" at {bad}, which has" in line.rpartition(": worst ")[2]), "")


class Switched(Supervisor):
    """A supervisor of places that can be switched off, and on again."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet)
        self._on = {place.name: asyncio.Event() for place in fleet.places}
        for each in self._on.values():
            each.set()

    async def _spawn(self, place: PlaceFile) -> asyncio.subprocess.Process:
        await self._on[place.name].wait()
        return await super()._spawn(place)

    def off(self, name: str) -> None:
        """The power of a place goes: all of its processes are gone at once."""
        self._on[name].clear()
        os.kill(self.pids[name], signal.SIGKILL)

    def on(self, name: str) -> None:
        """Its power is back."""
        self._on[name].set()


class Works(Unattended):
    """See the module. ``names`` are the edges, each with a press of its own, spread over ``halls``."""

    def __init__(self, folder: Path, names: Sequence[str], seed: int, halls: int = 2) -> None:
        self._seed = seed
        self.plant = folder / "plant"
        self.plant.mkdir()
        plant.write(self.plant, plant.World())
        project.make_repository(folder, names[0])
        fogs: dict[str, dict[str, Path]] = {}
        for number, name in enumerate(names):
            fogs.setdefault(f"hall-{1 + number % halls}", {})[name] = self.plant / "data" / name
        super().__init__(folder, project.NAME, make_fleet(folder / FLEET, "drift", fogs))
        for place in self.fleet.of("edge"):
            self._read_press(place)
        self.supervisor = Switched(self.fleet)

    def _read_press(self, place: PlaceFile) -> None:
        """The edge reads what its press says."""
        live = self.plant / "live" / place.name
        live.mkdir(parents=True, exist_ok=True)
        tags = [f'{each} = {{ unit = "{unit}" }}' for each, unit in zip(SIGNALS, UNITS, strict=True)]
        source = ["[sources.press]", 'kind = "files"', f'folder = "{live}"']
        source += ['time = "second"', "every_s = 0.2", "[sources.press.tags]", *tags]
        read_machine(place, "\n".join((*source, "")), lateness_s=1.5)

    async def start(self) -> None:
        """The presses run, the fleet is up."""
        process = self.begin(("drills.drifting.plant", str(self.plant), str(self._seed), *self.names))
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        await self.supervisor.start()
        await ready(self.fleet, self.operator, self.supervisor)

    async def first(self) -> str:
        """What people do once: a run of a build, its release signed, and rolled out. The run's name."""
        await self.reuna("build", "make", project.NAME, "--output", "presses.build.tar")
        fleet = ("--fleet", str(self.file))
        await self.reuna("run", "--build", "presses.build.tar", *fleet, "--json")
        of = ("--project", project.NAME, "--trust", str(self.fleet.folder / "trust"))
        await self.reuna("release", "make", *of)
        await self.reuna("rollout", "start", *fleet, "--project", project.NAME, "--follow")
        return min(each.name for each in (self.folder / "runs").iterdir() if each.is_dir())

    async def stop(self) -> None:
        await asyncio.to_thread(self.end)
        await self.supervisor.stop()

    def unmeasured(self, version: int) -> list[str]:
        """Edges that have not measured a version's model."""
        found = self.catalogue.read(version)
        return [name for name in self.names if not is_measured(found, name)]

    def stopped(self, known: int, bad: str) -> str:
        """What `reuna apply` said, after so many lines, of a run that is stopped at that press; '' while nothing."""
        return stopped_at(self.said()[known:], bad)

    def bad_sites(self, line: str) -> list[str]:
        """Where the gates do not hold for the run that such a line is about."""
        run = line.split()[1]
        result = json.loads((self.folder / "runs" / run / "result.json").read_text(encoding="utf-8"))
        asked = open_settings(self.project, [])
        judged = judge_run(asked.gates, result, offline=asked.offline)
        return sorted({each["site"] for each in judged.as_dict()["verdicts"] if each["outcome"] == "fail"})

    def begun_states(self) -> list[str]:
        """Runs that the cloud began by itself, the oldest first, each with its gates' word."""
        return [
            f"{each['run']} {(each.get('gates') or {}).get('decision', each['state'])}"
            for each in self.begun()
        ]
