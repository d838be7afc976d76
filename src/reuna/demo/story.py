"""The whole story of the demo: plants, training, a release, a canary, drift, and the loop that closes itself.

    told = await Story(job, scene, port).tell()

Everything is the product's own: what is done by hand are the commands that a person would type, each said to
the ``scene`` before it runs, and after `Unattended.alone` nothing is done by hand any more.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from reuna.adapters.trust_keys import read_key
from reuna.core.errors import ReunaError, RunFailed, ServerFailed
from reuna.demo import judged, plants
from reuna.demo.job import PROJECT
from reuna.demo.judged import Judged, between, share
from reuna.demo.opcua_server import HOST, Now, sources_toml, write_now
from reuna.demo.unattended import FLEET, Unattended, commit, desired, read_machine
from reuna.fleet.built import claimed, read, source_of_build, unpack
from reuna.fleet.data import spread
from reuna.fleet.kept import push
from reuna.fleet.layout import make_fleet
from reuna.fleet.officer import amend, key_file
from reuna.fleet.ports import free_ports
from reuna.fleet.result import read_result
from reuna.fleet.rollout import FINAL
from reuna.fleet.rollout import line as rollout_line
from reuna.fleet.session import LOGS, Finished, Job, Watch, carry_out_on, keep_logs, ready
from reuna.fleet.supervise import Supervisor, undisturbed

SPEED = 600.0  #: how many times faster than life the plants are: an hour takes 6 s
SEED = 1  #: which recordings are played
LOOK_S = 1.0  #: between two looks at the fleet
READY_S = 180.0  #: within which the places have to be there: they begin beside plants, on two cores
LATENESS_S = 8.0  #: rows may come so late on a machine that has other work as well
LEAST = 4  #: windows of each plant by which a release is judged, and that are waited for
MACHINES = 3  #: at which the process has to move before anything is trained again
FULL_S = 10.0  #: from which on every window of the plants is of rows that were read
HOLD_S = 5.0  #: for so long
BUSY = "This machine may be too busy to read six plants: try again when less goes on."
PACE = f"""
# The demo's plants are {SPEED:g} times faster than life, so trials, waves and blocks are of seconds.
[fallback]
rule = "hold"
hold_rows = 10

[operate]
trial_s = 3
min_windows = 2
max_safe = 0.8
max_latency_ms = 30000

[monitoring]
block_s = 1800
quiet_days = 30

[rollout]
waves = ["plant-1", "all"]
soak_s = 1
offline = 0.5
deadline_s = 600
"""
TRIGGER = f"""on = "drift"
again = "{{run}}"
kinds = ["process"]
machines = {MACHINES}
for_s = {HOLD_S:g}
cooldown_s = 3600
budget = {{{{ runs = 2, days = 1 }}}}
"""


class Scene(Protocol):
    """Who is told. ``watching`` gives what hears a run's events; ``doing`` is said while something lasts."""

    def chapter(self, title: str) -> None: ...
    def command(self, *words: str) -> None: ...
    def line(self, text: str) -> None: ...
    def doing(self, text: str) -> None: ...
    def watching(self, job: Job) -> AbstractContextManager[Watch]: ...
    def trained(self, finished: Finished) -> None: ...


class Sample(msgspec.Struct, frozen=True):
    """A look at the fleet at a time (epoch s): versions that answer, and drift as a share of an alarm."""

    at: float
    versions: dict[str, int]
    levels: dict[str, float]


class Told(msgspec.Struct, frozen=True):
    """What happened. Times are epoch s; shares of windows answered rightly are by plant.

    ``before`` and ``drifted`` are of the first release, ``after`` of the one that was trained again.
    """

    run: str
    retrained: str
    began: float
    moments: dict[str, float]
    detected_s: float
    recovered_s: float
    alarm: str
    champion: int
    edges: dict[str, int]
    before: dict[str, float | None]
    drifted: dict[str, float | None]
    after: dict[str, float | None]
    p50_ms: float
    samples: list[Sample]
    windows: dict[str, list[tuple[float, bool]]]
    commands: list[str]


@dataclass
class Found:
    """What is noted on the way."""

    moments: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    alarm: str = ""
    champion: int = 0


def prepared(job: Job, folder: Path) -> None:
    """The demo's project in a repository of its own, at the pace of the plants. Raises `ProjectError`."""
    project = folder / job.settings.name
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    file = project / "reuna.toml"
    text = file.read_text(encoding="utf-8").replace("max_gap_s = 180", "max_gap_s = 1800")
    rounds = f"rounds = {job.settings.rounds}"
    lines = [rounds if line.startswith("rounds = ") else line for line in text.splitlines()]
    file.write_text("\n".join([*lines, PACE]), encoding="utf-8")
    commit(project, "Name the fault of a plant")


class Story:
    """See the module. ``job``: the demo's; ``port``: of the OPC UA server, 0: one that is free."""

    def __init__(self, job: Job, folder: Path, scene: Scene, port: int = 0) -> None:
        self._job, self._folder, self._scene = job, folder, scene
        self._port = port or free_ports(1)[0]
        self._now, self._truth = folder / "now.json", folder / "truth"
        self._split = int(job.notes["split"]) - 1
        self._next = folder / "of-the-new-mode"
        self._found = Found()
        self._began = time.time()

    async def tell(self) -> tuple[Told, Finished, Finished]:
        """The story, the first run and the one that the drift began.

        Raises `ServerFailed` (also for a port that is taken), `RunFailed`, `ProjectError`.
        """
        await asyncio.to_thread(prepared, self._job, self._folder)
        fleet = await asyncio.to_thread(self._make_fleet)
        self._works = works = Unattended(self._folder, self._job.settings.name, fleet)
        self._supervisor = supervisor = Supervisor(fleet)
        looking: asyncio.Task[None] | None = None
        run: Path | None = None
        try:
            await self._start()
            first = await self._train()
            run = first.folder
            looking = asyncio.create_task(self._look())
            await self._release()
            await self._live()
            self._alone(first)
            await self._drift()
            await self._again()
            if looking.done():  # only by what went wrong there
                looking.result()
            return await asyncio.to_thread(self._told, first)
        except ReunaError:
            keep_logs(fleet, (run or self._job.runs) / LOGS)
            raise
        finally:
            if looking is not None:
                looking.cancel()
            await undisturbed(asyncio.to_thread(works.end))
            await undisturbed(supervisor.stop())
            if run is not None:
                keep_logs(fleet, run / LOGS)
                with suppress(FileNotFoundError):
                    shutil.copytree(self._folder / "releases", run / "releases", dirs_exist_ok=True)

    # --- the chapters -----------------------------------------------------------------------------

    async def _start(self) -> None:
        """Plants that stand still, and the fleet."""
        scene, works = self._scene, self._works
        scene.chapter("Six chemical plants behind an OPC UA server")
        words = ["reuna.demo.opcua_server", "--port", str(self._port), "--speed", f"{SPEED:g}"]
        words += ["--mix", str(SEED), "--now", str(self._now), "--truth", str(self._truth)]
        self._say_command("python", "-m", *words[:7])
        await self._serve(words)
        scene.line(
            f"opc.tcp://{HOST}:{self._port}: 6 plants, 53 signals each, {SPEED:g} times faster than life"
        )
        scene.chapter("A fleet: 1 cloud, 2 fogs, 6 edges")
        self._say_command("reuna", "up", f"{FLEET}/fleet.toml")
        scene.doing("places begin")
        await self._supervisor.start()
        await ready(works.fleet, works.operator, self._supervisor, self._job.runs / LOGS, READY_S)
        count = len(await asyncio.to_thread(self._supervisor.processes))
        scene.line(
            f"{count} processes over mutual TLS; each edge has its own plant's data, which stays there"
        )

    async def _train(self) -> Finished:
        """A build, trained on in federated rounds, and compared: what the demo always did."""
        scene, works, name = self._scene, self._works, self._job.settings.name
        scene.chapter("Train one fault classifier together")
        await self._reuna("build", "make", name, "--output", "plants.build.tar", quiet=True)
        self._say_command("reuna", "run", "--build", "plants.build.tar", "--fleet", f"{FLEET}/fleet.toml")
        job = await asyncio.to_thread(self._job_of, self._folder / "plants.build.tar")
        with scene.watching(job) as watch:
            finished = await carry_out_on(works.fleet, works.operator, job, watch, self._supervisor)
        scene.trained(finished)
        return finished

    async def _release(self) -> None:
        """The first release: signed, on one plant as the canary, then on all."""
        works, name = self._works, self._job.settings.name
        self._scene.chapter("Sign it, and roll it out: a canary first")
        write_now(self._now, Now(split=self._split))
        self._found.moments["plants run"] = time.time()
        trust = ("--trust", f"{FLEET}/trust")
        await self._reuna("release", "make", "--project", name, "--no-sign", *trust, quiet=True)
        file = works.catalogue.file(1).relative_to(self._folder)
        fleet = ("--fleet", f"{FLEET}/fleet.toml")
        await self._reuna("rollout", "start", "--release", str(file), "--project", name, *fleet, quiet=True)
        await asyncio.sleep(max(0.0, self._found.moments["plants run"] + FULL_S - time.time()))
        await self._reuna("release", "sign", "--project", name, *trust)
        await self._reuna("rollout", "status", "--follow", *fleet)
        await works.until("the release on every edge", lambda: len(works.on(1)) == len(works.names))
        self._found.moments["release 1"] = time.time()

    async def _live(self) -> None:
        """Edges answer what their plants say."""
        scene = self._scene
        scene.chapter("Every edge answers its own plant, live")
        self._say_command("reuna", "answers", f"{FLEET}/plant-1/state", "--follow")
        await self._until_judged(1, self._found.moments["release 1"])
        before = self._shares(1, 0.0, time.time())
        scene.line(f"named rightly: {_by_plant(before)}")
        scene.line(f"an answer takes {self._p50():.0f} ms (median), and stays at its plant")
        if (early := await asyncio.to_thread(self._process_alarm, 0)) is not None:
            raise RunFailed(
                f"an alarm before anything drifted: {_shortened(early['sentence'])}",
                BUSY,
            )

    def _alone(self, first: Finished) -> None:
        """From here on nobody is there."""
        self._scene.chapter("Leave it to itself")
        trigger = TRIGGER.format(run=first.folder.name)
        state = desired("local", self._job.settings.name, {"moved": trigger})
        self._say_command("reuna", *self._works.alone(state))
        self._scene.line(
            f"in git: when the process moves at {MACHINES} machines or more for {HOLD_S:g} s, train again; "
            "if every gate holds, release, canary, all"
        )

    async def _drift(self) -> None:
        """All plants change over to another operating mode."""
        scene, works = self._scene, self._works
        scene.chapter("Drift: every plant changes over to another operating mode")
        modes = tuple((plant + 1) % plants.PLANTS for plant in range(plants.PLANTS))
        await asyncio.to_thread(self._write_next, modes)
        known = len(await asyncio.to_thread(works.alarms))
        write_now(self._now, Now(modes, self._after))
        self._found.moments["drift"] = time.time()
        scene.doing("the edges count what they see, and tell levels")
        alarm = await works.until("an alarm", lambda: self._process_alarm(known))
        self._found.moments["alarm"] = float(alarm["since"])
        self._found.alarm = alarm["sentence"]
        self._say_command("reuna", "watch", "show", "--fleet", f"{FLEET}/fleet.toml")
        scene.line(f"alarm after {self._since_drift('alarm'):.0f} s: {_shortened(alarm['sentence'])}")
        await asyncio.to_thread(self._new_tables)
        scene.line("the plants' historians give labelled recordings of the new mode to their own edges")

    async def _again(self) -> None:
        """What the loop does by itself, until every edge has what it made."""
        scene, works, moments = self._scene, self._works, self._found.moments
        scene.chapter("It trains again, judges, signs and rolls out, by itself")
        run = (await works.until("a run", works.begun))[-1]["run"]
        moments["run"] = time.time()
        scene.line(f"{self._since_drift('run'):4.0f} s  {run} begins, because of the alarm")
        version = await works.until("a release", lambda: self._progress(run) or works.newer(1))
        self._found.champion, moments[f"release {version}"] = version, time.time()
        drifted = self._shares(1, moments["drift"], time.time())
        said = next((line for line in works.said() if line.startswith("release ")), "")
        scene.line(
            f"{self._since_drift(f'release {version}'):4.0f} s  {said.partition(',')[0]}: every gate holds"
        )
        await self._follow(version)
        await works.until("it on every edge", lambda: len(works.on(version)) == len(works.names))
        moments["champion"] = time.time()
        scene.line(f"{self._since_drift('champion'):4.0f} s  release {version} answers at every edge")
        scene.line(f"release 1 in the new mode: {_by_plant(drifted)}")
        await self._until_judged(version, moments["champion"])
        scene.line(f"release {version} in it:         {_by_plant(self._shares(version, 0.0, time.time()))}")

    # --- how ----------------------------------------------------------------------------------------

    @property
    def _after(self) -> int:
        """The split that the tables of the new mode are of."""
        return (self._split + 1) % plants.SPLITS

    def _make_fleet(self) -> Any:
        job = self._job
        job.runs.mkdir(parents=True, exist_ok=True)
        (self._folder / "runs").symlink_to(job.runs.absolute(), target_is_directory=True)
        fleet = make_fleet(self._folder / FLEET, "local", spread(job.nodes, job.fogs), preset=job.preset)
        for node, (old, new) in job.amend.items():
            amend(fleet.folder / node / "policy.toml", read_key(key_file(fleet.folder)), old, new)
        signals = plants.signals()
        for place in fleet.of("edge"):
            url = f"opc.tcp://{HOST}:{self._port}"
            read_machine(place, sources_toml(url, _plant(place.name), signals, SPEED), LATENESS_S)
        return fleet

    async def _serve(self, words: list[str]) -> None:
        self._truth.mkdir()
        process = self._works.begin(words)
        assert process.stdout is not None
        assert process.stderr is not None
        if not await asyncio.to_thread(process.stdout.readline):
            said = (await asyncio.to_thread(process.stderr.read)).strip()
            raise ServerFailed(
                f"the plants' OPC UA server does not begin: {said.splitlines()[-1] if said else 'it ended'}",
                "Give a port that is free, as in reuna demo --port 4841, or none at all.",
            )

    def _job_of(self, build: Path) -> Job:
        """The job of that build, which the cloud keeps from now on."""
        push(self._works.operator, build)
        found = read(build)
        folder = self._folder / "unpacked"
        settings = unpack(found, folder)
        source = msgspec.to_builtins(source_of_build(found, claimed(build)))
        notes = {**self._job.notes, "source": source}
        return replace(
            self._job, project=folder, settings=settings, build=build, kept=source["build"], notes=notes
        )

    async def _reuna(self, *words: str, quiet: bool = False) -> None:
        """A command that a person would type, and what it says."""
        self._say_command("reuna", *words)
        await self._works.reuna(*words, heard=self._scene.doing if quiet else self._scene.line)

    def _say_command(self, *words: str) -> None:
        self._found.commands.append(" ".join(words))
        self._scene.command(*words)

    async def _look(self) -> None:
        """What the fleet is like; what cannot be asked now is asked later."""
        while True:
            with suppress(ReunaError):
                self._found.samples.append(await asyncio.to_thread(self._sample))
            await asyncio.sleep(LOOK_S)

    def _sample(self) -> Sample:
        nodes = self._works.operator.watch()["projects"].get(self._works.name, {})
        levels = {name: float(said["level"]) for name, said in nodes.items() if "level" in said}
        return Sample(time.time(), self._works.running(), levels)

    def _process_alarm(self, known: int) -> Any:
        return next((each for each in self._works.alarms()[known:] if each["kind"] == "process"), None)

    def _write_next(self, modes: tuple[int, ...]) -> None:
        archive = plants.read_archive()
        for name in self._works.names:
            plants.write_plant_folder(modes[_plant(name)], self._after, self._next / name, archive)

    def _new_tables(self) -> None:
        """Recordings of the new mode take the place of those of the old one, table by table.

        Folders and names stay: what runs keeps what it has read, and still finds its tables.
        """
        for node in self._job.nodes:
            for part in plants.FOLDERS:
                before, after = (
                    sorted((folder / part).iterdir()) for folder in (node.folder, self._next / node.name)
                )
                for old, new in zip(before, after, strict=True):
                    new.replace(old)

    def _progress(self, run: str) -> int:
        """Say which round a run is at; 0."""
        rounds = sum(each["what"] == "round" for each in self._works.operator.timeline(run, 0))
        self._scene.doing(f"{run}: round {rounds} of {self._job.settings.rounds}")
        return 0

    async def _follow(self, version: int) -> None:
        """Say each step of the rollout, until it is done. Raises `RunFailed`."""
        said = ""
        while True:
            found: dict[str, Any] = {}
            with suppress(ReunaError):
                found = await asyncio.to_thread(self._rollout, version)
            words = rollout_line(found).partition("; until")[0] if found else ""
            if words not in ("", said):
                said = words
                self._scene.line(f"{time.time() - self._found.moments['drift']:4.0f} s  {said}")
            if found and found["phase"] == "done":
                return
            if found and found["phase"] in FINAL:
                raise RunFailed(words, BUSY)
            await asyncio.sleep(LOOK_S)

    def _rollout(self, version: int) -> dict[str, Any]:
        """Where the rollout of a version is; empty while there is none."""
        name = next((each["rollout"] for each in self._works.rollouts() if each["version"] == version), "")
        return self._works.operator.rollout(name) if name else {}

    def _since_drift(self, moment: str) -> float:
        return self._found.moments[moment] - self._found.moments["drift"]

    # --- what edges answered -----------------------------------------------------------------------

    def _windows(self) -> dict[str, list[Judged]]:
        return {
            place.name: judged.judged(
                place.folder / "state", self._truth / f"plant-{_plant(place.name)}.csv", SPEED
            )
            for place in sorted(self._works.fleet.of("edge"), key=lambda each: each.name)
        }

    async def _until_judged(self, version: int, since: float) -> None:
        self._scene.doing("the plants go on for some hours")

        def enough() -> bool:
            found = self._windows().values()
            return all(len(between(each, since, time.time(), version)) >= LEAST for each in found)

        await self._works.until("answers of every edge", enough)

    def _shares(self, version: int, since: float, until: float) -> dict[str, float | None]:
        return {name: share(between(found, since, until, version)) for name, found in self._windows().items()}

    def _p50(self) -> float:
        took = sorted(each.took_ms for found in self._windows().values() for each in found)
        return took[len(took) // 2]

    def _told(self, first: Finished) -> tuple[Told, Finished, Finished]:
        found, moments, version = self._found, self._found.moments, self._found.champion
        retrained = self._works.begun()[-1]["run"]
        folder = self._job.runs / retrained
        windows = {
            name: [(each.ends, each.right) for each in every] for name, every in self._windows().items()
        }
        told = Told(
            first.folder.name,
            retrained,
            self._began,
            moments,
            round(self._since_drift("alarm"), 1),
            round(self._since_drift("champion"), 1),
            found.alarm,
            version,
            self._works.running(),
            self._shares(1, 0.0, moments["drift"]),
            self._shares(1, moments["drift"], time.time()),
            self._shares(version, 0.0, time.time()),
            round(self._p50(), 2),
            found.samples,
            windows,
            found.commands,
        )
        return told, first, Finished(folder, read_result(folder))


def _plant(edge: str) -> int:
    """Which plant an edge is at: they are counted from 1, as people do.

    >>> _plant("plant-3")
    2
    """
    return int(edge.rpartition("-")[2]) - 1


def mean(shares: dict[str, float | None]) -> float | None:
    """Over the plants of which there is one."""
    known = [each for each in shares.values() if each is not None]
    return sum(known) / len(known) if known else None


def _by_plant(shares: dict[str, float | None]) -> str:
    return ", ".join(
        f"{name} {100 * each:.0f} %" if each is not None else f"{name} –" for name, each in shares.items()
    )


def _shortened(sentence: str, most: int = 5) -> str:
    """A sentence with so many of its signals."""
    head, _, tail = sentence.partition("): ")
    names = tail.split(", ")
    if len(names) <= most:
        return sentence
    return f"{head}): {', '.join(names[:most])} and {len(names) - most} more signals"
