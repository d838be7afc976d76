"""Runs releases on this node as `reuna.loop.operate` decides: what to copy, test, answer with, go back to.

    agent ── one worker for each release that runs: what answers, and a shadow or what tests itself

One `Operation` for each project. What happened goes through the pure step, the new state is forced to the
disk, and only then its effects are carried out; after a start they are carried out again. What the fleet
wants comes from the egress as a file (`reuna.exchange.choices`), so that a cut line changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from reuna.core.errors import DiskFull, NotApproved, Refused, ReunaError, StorageError, Untrusted, UserError
from reuna.core.operating import Operating, Reason
from reuna.core.outcomes import Outcome
from reuna.core.ports import Clock, Offload
from reuna.edge.slots import Slots
from reuna.loop.operate import (
    Booted,
    Counts,
    Effect,
    Event,
    Failed,
    Fill,
    Put,
    Ran,
    Run,
    SelfTest,
    SelfTested,
    Slice,
    State,
    Which,
    beside,
    running,
    step,
)

log = logging.getLogger("reuna.operate")
TICK_S = 1.0  #: between two looks at how a release on trial does
KEEP_S = 10.0  #: counts of a trial are written down so often; those after it by slices of their time
TRIES = 3  #: to start a release, before it is called one that does not start
FIRST_S, LAST_S = 1.0, 60.0  #: between two tries

#: What is no fault of a release: a disk that is full, a site that has not allowed its code (yet).
WAITS = (DiskFull, NotApproved, Refused)

Key = tuple[str, str]  #: slot and digest
NOBODY: Key = ("", "")


class Standing(Protocol):
    """A release in its worker (`reuna.exchange.predict.Predictor`). ``restarts``: of the worker, so far.

    ``takes_windows``: whether it is asked anything here.
    """

    restarts: int
    takes_windows: bool

    async def golden(self) -> str:
        """Why the release must not be used, '' when it may be."""

    async def close(self) -> None:
        """End the worker."""


OnOutcome = Callable[[Outcome, Outcome | None], None]  #: what is live said, and the shadow


class Asking(Protocol):
    """What asks releases for every window as it comes (`reuna.edge.live.Live`)."""

    async def use(self, primary: Any, shadow: Any = None) -> None:
        """From the next window on these answer; None: nothing does. Raises `ReunaError` if they cannot."""

    def mute(self, muted: bool) -> None:
        """Whether from now on the safe answer is given, whatever is answered."""

    async def run(self) -> None:
        """Until cancelled."""


#: A project, a release's file, and a folder of its own -> the release, standing. Raises `ReunaError`.
StartRelease = Callable[[str, Path, Path], Awaitable[Standing]]
#: A project, and who is told of each window -> what asks its releases; None: nobody reads its machine here.
MakeAsking = Callable[[str, OnOutcome], Asking | None]


@dataclass(frozen=True)
class Bench:
    """What an operation works with.

    ``source``: project and digest of a release -> its file among those held, None while it is not here.
    """

    start: StartRelease
    asking: MakeAsking
    source: Callable[[str, str], Path | None]
    changed: Callable[[], None]
    clock: Clock
    monotonic: Callable[[], float]
    offload: Offload


@dataclass
class Tally:
    """What happened since it was emptied last."""

    active: Counts = field(default_factory=Counts)
    beside: Counts = field(default_factory=Counts)


class Operation:
    """One project on this node, from its first release on."""

    def __init__(self, slots: Slots, bench: Bench) -> None:
        self.project = slots.project
        self.state = State()
        self._slots = slots
        self._bench = bench
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._up: dict[Key, Standing] = {}
        self._starting: dict[Key, asyncio.Task[None]] = {}
        self._filling: tuple[Key, asyncio.Task[None]] | None = None
        self._run: tuple[Key, Key] = (NOBODY, NOBODY)
        self._asking = bench.asking(slots.project, self._on_outcome)
        self._at_work: tuple[Key, Key] = (NOBODY, NOBODY)
        self._refused, self._again_at = self._at_work, 0.0  #: who could not be asked, and when again
        self._tally = Tally()
        self._restarts: dict[Key, int] = {}
        self._total = Tally()  #: since the phase began
        self._looked = self._kept_at = bench.monotonic()
        self._wanted: set[Key] = set()
        self._said = ""

    # --- from outside ----------------------------------------------------------------------------

    def happen(self, event: Event) -> None:
        """Take notice of it, in its turn."""
        self._events.put_nowait(event)

    async def run(self) -> None:
        """From what was kept, on and on. Until cancelled."""
        beside = [self._tick(), *([self._asking.run()] if self._asking else [])]
        tasks = [asyncio.create_task(each) for each in beside]
        try:
            self.state = await self._bench.offload(self._slots.read)
            await self._bench.offload(lambda: self._slots.sweep(()))
            await self._take(Booted(await self._bench.offload(self._slots.whole)))
            while True:
                event = await self._events.get()
                await (self._swap() if event is None else self._take(event))
        finally:
            for task in tasks:
                await _ended(task)
            await self._end()

    def report(self) -> Operating:
        """What this node says of the project."""
        state, answers, shadow = self.state, running(self.state), beside(self.state)
        last = state.given_up[-1].which if state.given_up else Which(0, "")
        asked = shadow or answers
        total = self._total
        return Operating(
            self.project,
            version=answers.which.version if answers else 0,
            digest=answers.which.digest if answers else "",
            phase=state.phase,
            reason=state.reason,
            rollout=asked.which.rollout if asked else "",
            beside=shadow.which.version if shadow else 0,
            gave_up=last.version,
            gave_up_in=last.rollout,
            windows=total.active.windows,
            safe=total.active.safe,
            compared=total.beside.windows,
            agreed=total.beside.agreed,
            since=state.since,
            muted=state.muted,
        )

    def shown(self) -> dict[str, Any]:
        """The same for whoever stands at the machine: with the detail, and whether what is to answer does."""
        told: dict[str, Any] = msgspec.to_builtins(self.report())
        at_work = self._run[0] != NOBODY and self._at_work == self._run
        return {**told, "slot": self.state.active, "detail": self.state.detail, "at_work": at_work}

    # --- state and effects -----------------------------------------------------------------------

    async def _take(self, event: Event) -> None:
        after, effects = step(self.state, event, self._bench.clock.now())
        await self._keep(after)
        before, self.state = self.state, after
        if (before.phase, before.since, before.active) != (after.phase, after.since, after.active):
            self._total = Tally()
            self._say()
        elif before.muted != after.muted:
            self._say()
        await self._carry_out(effects)
        self._bench.changed()

    async def _keep(self, after: State) -> None:
        """Have the state on the disk before anything follows from it; counts alone are kept now and then."""
        now = self._bench.monotonic()
        watched = after.trial is None and after.candidate is None
        same = _without_counts(after) == _without_counts(self.state)
        if same and (watched or now - self._kept_at < KEEP_S):
            return
        wait = FIRST_S
        while after != self.state:
            try:
                await self._bench.offload(lambda: self._slots.keep(after))
                break
            except StorageError as error:
                log.error("%s: what runs cannot be written down: %s %s", self.project, error.code, error)
                await self._bench.clock.sleep(wait)
                wait = min(2 * wait, LAST_S)
        self._kept_at = now

    def _say(self) -> None:
        state, answers = self.state, running(self.state)
        what = f"{self.project} {answers.which.version}" if answers else f"{self.project}: nothing"
        why = f": {state.reason}, {state.detail}" if state.reason else ""
        muted = "; none before does better, the safe answer is given" if state.muted else ""
        log.log(
            logging.WARNING if state.muted or state.phase == "rolled_back" else logging.INFO,
            "%s runs, %s%s%s", what, state.phase, why, muted,
        )  # fmt: skip

    async def _carry_out(self, effects: tuple[Effect, ...]) -> None:
        fill, self._wanted = None, set()
        for effect in effects:
            if isinstance(effect, Run):
                self._run = (self._key(effect.active), self._key(effect.beside))
                self._wanted |= {*self._run} - {NOBODY}
                if self._asking is not None:
                    self._asking.mute(effect.muted)
            elif isinstance(effect, SelfTest):
                self._wanted.add((effect.slot, effect.digest))
            else:
                fill = effect
        self._fill(fill)
        for key in self._wanted:
            if key not in self._up and key not in self._starting:
                self._starting[key] = asyncio.create_task(self._start(key))
            elif key in self._up and key == self._testing():
                self.happen(SelfTested(*_slot(key)))
        await self._swap()

    def _key(self, slot: str) -> Key:
        copy = self.state.a if slot == "a" else self.state.b if slot == "b" else None
        return (slot, copy.which.digest) if copy is not None else NOBODY

    def _testing(self) -> Key | None:
        """What is to say whether it passed its self-test."""
        coming = self.state.candidate
        if coming is None or coming.doing != "test":
            return None
        return ("b" if self.state.active == "a" else "a", coming.which.digest)

    # --- copying ---------------------------------------------------------------------------------

    def _fill(self, effect: Fill | None) -> None:
        key = (effect.slot, effect.which.digest) if effect else NOBODY
        if self._filling is not None:
            if self._filling[0] == key and not self._filling[1].done():
                return
            self._filling[1].cancel()
        self._filling = (key, asyncio.create_task(self._copy(effect))) if effect else None

    async def _copy(self, effect: Fill) -> None:
        """Until it lies in its slot; a release that is not here (any more) is waited for."""
        wait = FIRST_S
        while not await self._copied(effect):
            await self._bench.clock.sleep(wait)
            wait = min(2 * wait, LAST_S)

    async def _copied(self, effect: Fill) -> bool:
        slot, which = effect.slot, effect.which
        source = self._bench.source(self.project, which.digest)
        if source is None:
            return False
        try:
            found = await self._bench.offload(lambda: self._slots.fill(slot, source, which.digest))
        except ReunaError as error:
            what = f"{self.project} {which.version}"
            log.error("%s is not put into slot %s: %s %s", what, slot, error.code, error)
            return False
        self.happen(Put(slot, which.digest, found.rules, found.measured))
        return True

    # --- standing --------------------------------------------------------------------------------

    async def _start(self, key: Key) -> None:
        """Have a slot's release stand, tested; what stands against it is an event. Until it stands."""
        wait, tries = FIRST_S, 0
        while True:
            reason, why, lasting = await self._try(key)
            if not why:
                self._starting.pop(key, None)
                self._events.put_nowait(SelfTested(*_slot(key)) if key == self._testing() else None)
                return
            tries += bool(reason)
            if reason and (lasting or tries >= TRIES):
                testing = key == self._testing()
                self.happen(
                    SelfTested(*_slot(key), why, reason) if testing else Failed(*_slot(key), why, reason)
                )
            await self._bench.clock.sleep(wait)
            wait = min(2 * wait, LAST_S)

    async def _try(self, key: Key) -> tuple[Reason, str, bool]:
        """Why a release does not stand, '' when it does, and whether it is worth no other try.

        No reason: it is no fault of the release.
        """
        slot, digest = _slot(key)
        found = await self._bench.offload(lambda: self._slots.found(slot))
        if found is None or found.digest != digest:
            return "damaged", "its file is not the one that was put there", True
        try:
            standing = await self._bench.start(self.project, self._slots.path(slot), self._slots.work(digest))
        except Untrusted as error:
            return "damaged", str(error), True
        except ReunaError as error:
            self._complain(f"{error.code} {error}")
            if isinstance(error, WAITS):
                return "", str(error), False
            return "start", f"{error.code} {error.message}", isinstance(error, UserError)
        try:
            why = await standing.golden()
        except BaseException:
            await standing.close()
            raise
        if why:
            await standing.close()
            return "self-test", why, True
        self._up[key], self._restarts[key] = standing, standing.restarts
        return "", "", False

    def _complain(self, why: str) -> None:
        """In the log, the same once."""
        if why != self._said:
            log.error("a release of %s does not start: %s", self.project, why)
        self._said = why

    async def _swap(self) -> None:
        """Have those answer that are to, once they stand, and end what is not wanted any more."""
        active, shadow = self._run
        if active in self._up or active == NOBODY:
            await self._put_to_work((active, shadow if shadow in self._up else NOBODY))
        for key in [key for key in self._starting if key not in self._wanted]:
            await _ended(self._starting.pop(key))
        gone = [key for key in self._up if key not in self._wanted and key not in self._at_work]
        for key in gone:
            await self._up.pop(key).close()
        if gone:
            used = {digest for _, digest in (*self._up, *self._starting)}
            await self._bench.offload(lambda: self._slots.sweep(used))

    async def _put_to_work(self, ready: tuple[Key, Key]) -> None:
        if ready == self._at_work or (ready == self._refused and self._bench.monotonic() < self._again_at):
            return
        active, shadow = (self._up.get(key) for key in ready)
        refused = ready
        try:
            if self._asking is not None:
                await self._asking.use(_taking(active), _taking(shadow))
        except ReunaError as error:
            alone = shadow is not None and await self._alone(active)
            key, ready = (ready[1], (ready[0], NOBODY)) if alone else (ready[0], (NOBODY, NOBODY))
            self._refused, self._again_at = refused, self._bench.monotonic() + LAST_S
            asyncio.get_running_loop().call_later(LAST_S + 1, self._events.put_nowait, None)
            self.happen(Failed(*_slot(key), f"{error.code} {error.message}", "start"))
        self._at_work = ready
        self._bench.changed()

    async def _alone(self, active: Standing | None) -> bool:
        """Whether what is live can answer without its shadow."""
        assert self._asking is not None
        try:
            await self._asking.use(_taking(active))
        except ReunaError:
            return False
        return True

    def _on_outcome(self, outcome: Outcome, shadow: Outcome | None) -> None:
        tally, answers, other = self._tally, running(self.state), beside(self.state)
        if answers is None or outcome.release != answers.which.digest:
            return  # of the release before, whose time is over
        tally.active = tally.active.plus(_counted(outcome, answers.rules.max_latency_ms))
        if shadow is not None and other is not None and shadow.release == other.which.digest:
            agreed = outcome.agrees(shadow)
            tally.beside = tally.beside.plus(_counted(shadow, other.rules.max_latency_ms, agreed))

    # --- time ------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await self._bench.clock.sleep(TICK_S)
            self._look()

    def _look(self) -> None:
        """Say what happened since the last look, as far as what is to answer stood."""
        now = self._bench.monotonic()
        elapsed, self._looked = now - self._looked, now
        tally, self._tally = self._tally, Tally()
        tally.active = tally.active.plus(Counts(restarts=self._more_restarts(self._run[0])))
        tally.beside = tally.beside.plus(Counts(restarts=self._more_restarts(self._run[1])))
        self._total = Tally(self._total.active.plus(tally.active), self._total.beside.plus(tally.beside))
        if self._run[0] in self._up:
            reads = self._asking is not None and self._up[self._run[0]].takes_windows
            self.happen(Ran(elapsed, tally.active, tally.beside, reads))
        elif tally != Tally():
            self._bench.changed()

    def _more_restarts(self, key: Key) -> int:
        if key not in self._up:
            return 0
        before, self._restarts[key] = self._restarts[key], self._up[key].restarts
        return self._restarts[key] - before

    async def _end(self) -> None:
        tasks = [*self._starting.values(), *([self._filling[1]] if self._filling else [])]
        for task in tasks:
            await _ended(task)
        if self._asking is not None:
            await self._asking.use(None)
        for standing in self._up.values():
            await standing.close()
        self._up.clear()


def _taking(standing: Standing | None) -> Standing | None:
    """What windows are put to; None for a release that answers elsewhere."""
    return standing if standing is not None and standing.takes_windows else None


def _slot(key: Key) -> tuple[Any, str]:
    """A key as events name it."""
    return key


def _counted(outcome: Outcome, slow_ms: float, agreed: bool = False) -> Counts:
    """What the release itself did: a window that was for the fog is no safe answer of its own."""
    safe = outcome.state == "safe" and outcome.fog is None
    return Counts(1, int(safe), int(outcome.own_ms > slow_ms), int(agreed), failed=int(outcome.failed))


def _without_counts(state: State) -> State:
    """What has to be on the disk at once."""
    trial, coming = state.trial, state.candidate
    return replace(
        state,
        trial=None if trial is None else replace(trial, spent_s=0.0, counts=Counts()),
        candidate=None if coming is None else replace(coming, counts=Counts(), live=Counts(), spent_s=0.0),
        lately=(*state.lately[:-1], Slice()),
        rest_s=0.0,
    )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
