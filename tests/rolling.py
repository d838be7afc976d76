"""A fleet of machines that decide as real ones do (`tests.operating`), under a cloud's rollouts in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from reuna.adapters.events import EventLog
from reuna.adapters.journal_dbos import DbosHost
from reuna.cloud.holdings import Turn
from reuna.cloud.rollouts import KIND, Rollouts, Seen
from reuna.core.errors import KeyProblem, RunNotFound
from reuna.core.operating import WHAT, Operating, event_of
from reuna.core.rollout import RolloutSpec, Terms, Wave
from reuna.loop.operate import Choice, Chosen, Which, beside, running
from reuna.sim.clock import InPlace, SimClock, run_virtual
from reuna.sim.journal import JournalStore, SimJournal
from reuna.trust.stages import Stage, staged
from reuna.trust.targets import Target
from tests.operating import Machine, which

SITES = {"e1": "north", "e2": "north", "e3": "south", "e4": "south", "e5": "west"}
GOOD, ALSO_GOOD, BAD = 6, 7, 9  #: versions; `tests.operating.KINDS` says of each what it does there
KINDS = ("good", "good", "fails its test", "restarts", "safe", "slow")


def target(version: int, *where: str) -> Target:
    sha256 = which(version).digest
    return Target(
        f"releases/pumps-{version}", "release", 1, 1, sha256, sha256, "", {}, "pumps", version, where
    )


def asked(version: int, *waves: str, name: str = "", **terms: Any) -> RolloutSpec:
    given = {"soak_s": 60.0, "deadline_s": 3600.0, "offline": 0.25, **terms}
    named = tuple(Wave(wave) for wave in waves) or (Wave("all"),)
    return RolloutSpec(
        name or f"ro-{version}", "pumps", version, which(version).digest, named, Terms(**given)
    )


class Edge:
    """A machine that hears what the fleet signed when it is on, and says what it runs."""

    def __init__(self, name: str, kinds: tuple[str, ...] = KINDS) -> None:
        self.name = name
        self.on = True
        self.machine = Machine(kinds)
        self.told = 0
        self.speaks = True

    def hear(self, stages: Sequence[Stage], listed: Sequence[Target]) -> None:
        names = {self.name, SITES[self.name]}
        mine = [each for each in stages if not each.where or names & {*each.where}]
        said = staged(mine, "pumps")
        held = sorted((e.number for e in listed if not e.where or names & {*e.where}), reverse=True)
        choice = Choice(tuple(which(number) for number in held), _which(said.live), _which(said.shadow))
        if choice != self.machine.state.choice:
            self.machine.happen(Chosen(choice))

    def work(self) -> None:
        if not self.machine.work():
            self.machine.run()

    def says(self) -> Operating:
        state = self.machine.state
        answers, shadow = running(state), beside(state)
        last = state.given_up[-1].which if state.given_up else Which(0, "")
        return Operating(
            "pumps",
            version=answers.which.version if answers else 0,
            digest=answers.which.digest if answers else "",
            phase=state.phase,
            reason=state.reason,
            beside=shadow.which.version if shadow else 0,
            gave_up=last.version,
            gave_up_in=last.rollout,
        )

    @property
    def runs(self) -> int:
        return self.says().version


def _which(stage: Stage | None) -> Which | None:
    return None if stage is None else Which(stage.version, stage.sha256, stage.rollout)


@dataclass
class Host:
    """The journal of each rollout outlives the process; `DbosHost` is the real one."""

    specs: dict[str, str] = field(default_factory=dict)
    stores: dict[str, JournalStore] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    began: Callable[[str], None] = lambda _run: None

    async def submit(self, kind: str, run: str, spec: str) -> None:
        assert kind == KIND
        if run not in self.specs:
            self.specs[run], self.stores[run] = spec, JournalStore()
            self.began(run)

    async def status(self, run: str) -> dict[str, Any]:
        await self.spec(run)
        return {"state": "done", "result": self.results[run]} if run in self.results else {"state": "running"}

    async def spec(self, run: str) -> str:
        if run not in self.specs:
            raise RunNotFound(f"the cloud knows no run {run!r}")
        return self.specs[run]

    async def runs(self, _limit: int, _kind: str) -> list[tuple[str, str, float, str]]:
        return [(run, "running", 1.0, spec) for run, spec in reversed(self.specs.items())]


class Plant:
    """Cloud and machines; `crash` ends the cloud's process and begins another one over the same disk."""

    def __init__(
        self, folder: Path, listed: Sequence[Target] = (), kinds: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        self.published: tuple[Stage, ...] = ()
        self.target_list = [target(GOOD), *listed]
        self.edges = {name: Edge(name, (kinds or {}).get(name, KINDS)) for name in SITES}
        self.events = EventLog(folder / "events.sqlite", SimClock())
        self.host = Host()
        self.signed = 0
        self.no_key = False
        self.crash_at = 0  #: the journal's moments until the process ends by itself
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.reborn()

    def reborn(self) -> None:
        self.turn = Turn()
        seen = Seen(lambda: SITES, lambda: self.target_list, self.events)
        self.rollouts = Rollouts(
            "cloud", cast("DbosHost", self.host), self.events, self, seen, self.turn, SimClock(), InPlace()
        )
        self.host.began = self.carry_out

    def staged(self) -> tuple[Stage, ...]:
        return self.published

    def stage(self, stages: Sequence[Stage]) -> None:
        if self.no_key:
            raise KeyProblem("no online key", "Make them with `reuna trust init`.")
        if tuple(stages) != self.published:
            self.published, self.signed = tuple(stages), self.signed + 1

    def carry_out(self, run: str) -> None:
        self._tasks[run] = asyncio.create_task(self._life(run))

    async def _life(self, run: str) -> None:
        def moment(_when: str, _step: str) -> None:
            self.crash_at -= 1
            if self.crash_at == 0:
                raise Crash

        journal = SimJournal(self.host.stores[run], SimClock(), moment)
        try:
            self.host.results[run] = await self.rollouts.body(journal, self.host.specs[run])
        except Crash:
            self.reborn()
            self.carry_out(run)

    async def pass_time(self, seconds: float, step_s: float = 5.0) -> None:
        for _ in range(round(seconds / step_s)):
            for edge in self.edges.values():
                if edge.on:
                    edge.hear(self.published, self.target_list)
                    edge.work()
                    if edge.speaks:
                        self.hears(edge)
            await asyncio.sleep(step_s)

    def hears(self, edge: Edge) -> None:
        said = edge.says()
        event = event_of(edge.name, "b", edge.told, 1.0, [said])
        before = [e.fields for _, e in self.events.last(WHAT) if e.node == edge.name]
        if event.fields not in before:
            self.events.record(event, last=True)
            edge.told += 1
            self.turn.on()

    async def phase(self, name: str) -> str:
        return str((await self.rollouts.status(name))["phase"])

    @property
    def runs(self) -> dict[str, int]:
        return {name: edge.runs for name, edge in self.edges.items()}

    def told(self, name: str) -> list[str]:
        return [event["what"].removeprefix("rollout ") for event in self.rollouts.timeline(name, 0)]


class Crash(BaseException):
    """The process ends here."""


def lived(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(story())
