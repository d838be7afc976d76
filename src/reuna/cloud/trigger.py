"""Runs that the cloud begins again by itself, kept in a file of its state folder.

What was decided is on the disk before a run begins, with the whole of what it is begun with; so a restart
begins it with the same name, and the journal begins no name twice. What was due while the cloud was away
is begun once, at its next look, and not once for each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from reuna.adapters.files import read_at_most, replace_file
from reuna.cloud.pause import until_changed
from reuna.core.errors import Corrupted, PlanError, ReunaError, RunNotFound
from reuna.core.foreign import UNREADABLE
from reuna.core.labelled import Labelled
from reuna.core.ports import Clock
from reuna.core.records import RunSpec
from reuna.core.trigger import Trigger, following, latest, mistake, run_name
from reuna.core.watched import Watched
from reuna.loop import monitor
from reuna.loop.plan import by_itself
from reuna.loop.trigger import Began, Decided, Seen, decide, due, grown, joined, levels, not_begun, noted

log = logging.getLogger("reuna.triggers")
LOOK_S = 10.0  #: between two looks
MAX_FILE = 16 << 20  #: bytes
MOST = 64

Fogs = Mapping[str, tuple[str, ...]]


class World(Protocol):
    """What triggers look at and set going; `reuna.cloud.surroundings` implements it."""

    def fogs(self) -> Fogs:
        """The fleet of now."""

    def over(self) -> Mapping[str, str]:
        """Its fogs under other fogs, and which."""

    def alarms(self) -> tuple[monitor.Alarm, ...]: ...
    async def told(self, project: str) -> Mapping[str, Watched]:
        """What each node told last of its watch over a project."""

    async def labelled(self, project: str) -> Mapping[str, Labelled]:
        """New labelled rows of each node since it last trained in a run of a project."""

    async def asked(self, run: str) -> RunSpec: ...
    async def last_of(self, project: str) -> RunSpec | None:
        """What the newest run of a project was begun with."""

    async def begin(self, why: str, what: RunSpec) -> None: ...
    async def propose(self, trigger: str, what: RunSpec) -> str:
        """Ask a second person, once however often it is called; the proposal's id."""

    async def under_way(self, run: str, proposal: str) -> str:
        """That a run goes on or waits for a second person, in words; or ''."""


class Pending(msgspec.Struct, frozen=True):
    """A run that is being begun, and what was remembered before that was decided."""

    spec: RunSpec
    before: Began


class Kept(msgspec.Struct, frozen=True):
    """A trigger, since when it is kept (epoch s), and what the run that it repeats was begun with.

    ``pending``: the run that is being begun, until that is done.
    """

    trigger: Trigger = msgspec.field(name="schedule")
    since: float
    spec: RunSpec
    state: Began = Began()
    pending: Pending | None = None


_kept = msgspec.json.Decoder(list[Kept])


class Triggers:
    """Looks, decides and begins; `keep` does so until it is cancelled."""

    def __init__(self, file: Path, clock: Clock, world: World) -> None:
        """Raises `Corrupted`, `NotUsable` for a file that cannot be read."""
        self._file = file
        self._clock = clock
        self._world = world
        self._kept = {each.trigger.name: each for each in _read(file)}
        self.news = asyncio.Event()  #: to be set when a look is due at once
        self._last: dict[str, Decided] = {}  #: how each stood at the last look

    async def put(self, trigger: Trigger) -> None:
        """Keep a trigger, durable on return. Raises `RunNotFound`, `PlanError`, `DiskFull`.

        One that is changed has begun what it began before: its limits go on.
        """
        if wrong := mistake(trigger):
            raise PlanError(f"{trigger.name}: {wrong}")
        if trigger.name not in self._kept and len(self._kept) >= MOST:
            raise PlanError(f"there are {MOST} schedules and triggers already", "Take one out first.")
        before = self._kept.get(trigger.name)
        if before is not None and before.trigger == trigger:
            return
        spec = await self._world.asked(trigger.again)
        before = self._kept.get(trigger.name)
        state, pending = (before.state, before.pending) if before else (Began(), None)
        kept = Kept(trigger, self._clock.now(), spec, state, pending)
        self._write({**self._kept, trigger.name: kept})
        self.news.set()

    def drop(self, name: str) -> None:
        """Forget a trigger. Raises `RunNotFound`, `DiskFull`."""
        if name not in self._kept:
            raise RunNotFound(
                f"there is no schedule or trigger {name!r}", "See which there are: `reuna triggers`."
            )
        self._write({key: each for key, each in self._kept.items() if key != name})
        self._last.pop(name, None)

    def listed(self) -> list[dict[str, Any]]:
        """Each with how it stands and why, its last run, when that was, and what went wrong.

        ``next``: when one of the clock is due, else None.
        """
        now, found = self._clock.now(), []
        for name, each in sorted(self._kept.items()):
            stands, state = self._last.get(name, Decided(each.state, "rests")), each.state
            said = {
                "state": stands.stands,
                "why": stands.why,
                "next": following(each.trigger, now),
                "last": state.begun[-1] if state.begun else None,
                "run": state.run,
                "proposal": state.proposal,
                "wrong": state.wrong,
            }
            found.append({**msgspec.to_builtins(each.trigger), **said})
        return found

    async def keep(self) -> None:
        """Look, and begin what is to be begun, now and then and when there is news. Until cancelled."""
        while True:
            self.news.clear()
            await self.look()
            await until_changed(self.news, self._clock, self._nap())

    async def look(self) -> None:
        """Decide of each once, and begin what is to be begun."""
        for name in list(self._kept):
            if name in self._kept:  # nobody has dropped it meanwhile
                await self._look(self._kept[name])

    def _nap(self) -> float:
        """Seconds until something is due, at most `LOOK_S`."""
        now = self._clock.now()
        next_due = (following(each.trigger, now) for each in self._kept.values())
        return min([LOOK_S, *(at - now for at in next_due if at is not None)])

    async def _look(self, each: Kept) -> None:
        name = each.trigger.name
        try:
            if each.pending is None:
                each = await self._decided(each)
            if each.pending is not None:
                await self._carry_out(each, each.pending)
        except ReunaError as error:
            log.error("%s is not looked at: %s %s", name, error.code, error)
            self._last[name] = Decided(each.state, "waits", f"{error.code} {error.message}")

    async def _decided(self, each: Kept) -> Kept:
        """After a look, durable. Raises `ReunaError` where that cannot be, and then nothing has changed."""
        trigger, now = each.trigger, self._clock.now()
        seen = await self._seen(each, now)
        fogs = self._world.fogs()
        fleet = sum(len(edges) for edges in fogs.values()) - len(seen.kept)
        busy = ""
        if seen.signs and each.state.run:
            busy = await self._world.under_way(each.state.run, each.state.proposal)
        found = decide(trigger, each.state, seen.signs, fleet, busy, now)
        after = replace(each, state=found.state)
        if found.stands == "begins":
            at = (latest(trigger, now) or now) if trigger.on == "clock" else now
            own = by_itself(each.spec, run_name(trigger, at), fogs, self._world.over())
            spec = replace(own, why=found.why)
            after = replace(
                after,
                state=replace(found.state, run=spec.run, proposal=""),
                pending=Pending(spec, each.state),
            )
        if not self._is_there(each):
            return replace(each, pending=None)  # it was changed or dropped meanwhile
        if after != each:
            self._write({**self._kept, trigger.name: after})
        self._last[trigger.name] = noted(found, seen)
        return after

    async def _seen(self, each: Kept, now: float) -> Seen:
        trigger, project = each.trigger, each.spec.project
        if trigger.on == "clock":
            return Seen(due(trigger, each.since, now))
        if trigger.on == "nodes":
            last = await self._world.last_of(project) or each.spec
            return Seen(joined(self._world.fogs(), last.fogs))
        if trigger.on == "data":
            fleet = [edge for edges in self._world.fogs().values() for edge in edges]
            return grown(trigger, await self._world.labelled(project), fleet)
        if trigger.metric:
            return levels(trigger, await self._world.told(project))
        return Seen(monitor.signs(self._world.alarms(), trigger.kinds, project))

    async def _carry_out(self, each: Kept, pending: Pending) -> None:
        """Begin what is pending, or ask a second person. Once done, or refused, it is pending no more."""
        name, state, spec = each.trigger.name, each.state, pending.spec
        try:
            if each.trigger.approval:
                state = replace(state, proposal=await self._world.propose(name, spec))
            else:
                await self._world.begin(spec.why, spec)
        except ReunaError as error:
            log.error("run %s is not begun: %s %s", spec.run, error.code, error)
            wrong = f"{error.code} {error.message}"
            state = not_begun(each.trigger, pending.before, state, wrong, self._clock.now())
            self._last[name] = Decided(state, "waits", wrong)
        else:
            log.info("run %s is %s, as %s asks", spec.run, "proposed" if state.proposal else "begun", name)
        if (now := self._kept.get(name)) is not None:
            self._write({**self._kept, name: replace(now, state=state, pending=None)})

    def _is_there(self, each: Kept) -> bool:
        return self._kept.get(each.trigger.name) is each

    def _write(self, kept: dict[str, Kept]) -> None:
        replace_file(self._file, msgspec.json.encode(list(kept.values())))
        self._kept = kept


def _read(file: Path) -> list[Kept]:
    data = read_at_most(file, MAX_FILE)
    try:
        return [] if data is None else _kept.decode(data)
    except UNREADABLE as error:
        raise Corrupted(
            f"{file} cannot be read: {error}", f"Move {file} away, and apply the desired state again."
        ) from error
