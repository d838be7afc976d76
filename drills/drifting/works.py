"""The fleet of the drill `drift`: edges that read presses, a plant that runs, and what keeps the loop closed.

Nobody signs, begins or orders anything here once `Works.alone` was called: the cloud's triggers begin runs,
`reuna apply --keep` judges, releases, signs and rolls out, and the edges decide what they keep.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from drills.drifting import plant, project
from drills.drifting.press import SIGNALS, UNITS
from reuna.core.errors import ReunaError
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, PlaceFile, make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.release import Catalogue
from reuna.fleet.session import ready
from reuna.fleet.supervise import Supervisor
from reuna.loop.release import judge_run
from reuna.wire.release import is_measured

T = TypeVar("T")
LOOK_S = 0.5
PATIENCE_S = 480.0
HOLD_S = plant.FRESH_S  #: how long drift lasts until a run begins: by then every table is of what is now
AGAIN_S = (
    4 * HOLD_S
)  #: and until another one: a way from alarm to release, and tables of then, take no longer
STATE = """[fleet]
name = "drift"
[projects.presses]
release_from = "../presses"
rollout = true
[placements.presses]
project = "presses"
follows = "challenger"
[triggers.moved]
on = "drift"
again = "{run}"
kinds = ["process", "machine", "sensor"]
for_s = {hold}
cooldown_s = 1
budget = {{ runs = 50, days = 1 }}
[triggers.still-moved]
on = "drift"
again = "{run}"
metric = "level"
for_s = {again}
cooldown_s = 1
budget = {{ runs = 50, days = 1 }}
"""


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


class Works:
    """See the module. ``names`` are the edges, each with a press of its own, spread over ``halls``."""

    def __init__(self, folder: Path, names: Sequence[str], seed: int, halls: int = 2) -> None:
        self.folder, self.names, self._seed = folder, tuple(names), seed
        self.plant = folder / "plant"
        self.plant.mkdir()
        plant.write(self.plant, plant.World())
        self.project = project.make_repository(folder, names[0])
        fogs: dict[str, dict[str, Path]] = {}
        for number, name in enumerate(names):
            fogs.setdefault(f"hall-{1 + number % halls}", {})[name] = self.plant / "data" / name
        self.fleet = make_fleet(folder / "fleet", "drift", fogs)
        for name in names:
            self._read_press(name)
        self.file = self.fleet.folder / "fleet.toml"
        self.operator = Operator.of(self.fleet)
        self.supervisor = Switched(self.fleet)
        self.catalogue = Catalogue.of(folder / "releases", project.NAME)
        self._running: list[subprocess.Popen[str]] = []

    def _read_press(self, name: str) -> None:
        """The edge reads what its press says."""
        (self.plant / "live" / name).mkdir(parents=True, exist_ok=True)
        place = next(each for each in self.fleet.places if each.name == name)
        tags = [f'{each} = {{ unit = "{unit}" }}' for each, unit in zip(SIGNALS, UNITS, strict=True)]
        source = ["[sources.press]", 'kind = "files"', f'folder = "{self.plant / "live" / name}"']
        source += ['time = "second"', "every_s = 0.2", "[sources.press.tags]", *tags]
        (place.folder / "sources.toml").write_text("\n".join((*source, "")), encoding="utf-8")
        said = place.settings.read_text(encoding="utf-8")
        more = "\n[live]\nlateness_s = 1.5\n"
        place.settings.write_text(f'sources = "{place.folder / "sources.toml"}"\n{said}{more}')

    async def start(self) -> None:
        """The presses run, the fleet is up."""
        process = subprocess.Popen(
            [sys.executable, "-m", "drills.drifting.plant", str(self.plant), str(self._seed), *self.names],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._running.append(process)
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        await self.supervisor.start()
        await ready(self.fleet, self.operator, self.supervisor)

    async def first(self) -> str:
        """What people do once: a run of a build, its release signed, and rolled out. The run's name."""
        await self._reuna("build", "make", project.NAME, "--output", "presses.build.tar")
        fleet = ("--fleet", str(self.file))
        told = await self._reuna("run", "--build", "presses.build.tar", *fleet, "--json")
        of = ("--project", project.NAME, "--trust", str(self.fleet.folder / "trust"))
        await self._reuna("release", "make", *of)
        await self._reuna("rollout", "start", *fleet, "--project", project.NAME, "--follow")
        return str(json.loads(told)["run"])

    async def _reuna(self, *words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reuna.cli", *words,
            cwd=self.folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"reuna {' '.join(words)}: {out.decode()}{err.decode()}")
        return out.decode()

    def alone(self, run: str) -> None:
        """From now on nobody is there: the directory says what is wanted, and `reuna apply` keeps it."""
        state = self.folder / "state"
        state.mkdir()
        text = STATE.format(run=run, hold=HOLD_S, again=AGAIN_S)
        (state / "presses.toml").write_text(text, encoding="utf-8")
        words = ("apply", "state", "--fleet", str(self.file), "--keep")
        with (self.folder / "keep.log").open("w") as log:
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "reuna.cli", *words],
                    cwd=self.folder,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            )

    async def stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()  # not SIGINT: whoever was begun in the background does not hear that
            process.wait()
        await self.supervisor.stop()

    # --- what is looked at ------------------------------------------------------------------------

    def said(self) -> list[str]:
        """What `reuna apply --keep` has said so far."""
        return (self.folder / "keep.log").read_text(encoding="utf-8").splitlines()

    def operates(self) -> dict[str, tuple[int, str, str]]:
        """Edge -> version that it runs, phase, reason."""
        return {
            node: (each.get("version", 0), each.get("phase", "none"), each.get("reason", ""))
            for node, said in self.operator.releases()["nodes"].items()
            for each in said["operates"]
            if each["project"] == project.NAME
        }

    def on(self, version: int) -> list[str]:
        """Edges that have confirmed a version and run it."""
        return [
            node
            for node, (has, phase, _) in self.operates().items()
            if (has, phase) == (version, "confirmed")
        ]

    def running(self) -> dict[str, int]:
        """Edge -> version that it runs, on trial or confirmed."""
        return {node: version for node, (version, _, _) in self.operates().items()}

    def alarms(self) -> list[dict[str, Any]]:
        """The oldest first."""
        return list(reversed(self.operator.watch()["alarms"]))

    def newer(self, than: int) -> int:
        """The newest version of the catalogue, once it is newer; else 0."""
        newest = self.catalogue.versions()[-1]
        return newest if newest > than else 0

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

    def rollouts(self) -> list[dict[str, Any]]:
        """The newest first."""
        return self.operator.rollouts()

    def rolled(self, version: int) -> str:
        """The phase of that version's rollout, '' while there is none."""
        return next((each["phase"] for each in self.rollouts() if each["version"] == version), "")

    def rests(self) -> bool:
        """Whether nothing alarms and no run goes on."""
        runs = all(each["state"] != "running" for each in self.operator.runs())
        return runs and all(each["ended"] for each in self.operator.watch()["alarms"])

    def begun_states(self) -> list[str]:
        """Runs that the cloud began by itself, the oldest first, each with its gates' word."""
        own = [each for each in reversed(self.operator.runs()) if each.get("why")]
        return [f"{each['run']} {(each.get('gates') or {}).get('decision', each['state'])}" for each in own]

    async def until(self, what: str, look: Callable[[], T], seconds: float = PATIENCE_S) -> T:
        """What ``look`` finds, once it is something. Raises `RuntimeError`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := await asyncio.to_thread(look):
                    return found
            except ReunaError:
                pass
            await asyncio.sleep(LOOK_S)
        last = "\n".join(self.said()[-12:]) if (self.folder / "keep.log").is_file() else ""
        raise RuntimeError(f"{what} never came within {seconds:g} s\n{last}")
