"""Rollouts as durable runs: what nodes say and people order, read again and again, becomes signed stages.

The journal holds the state after each thing that people are told of; what nodes said last and every order
lie in the cloud's own event log, so that whatever restarts goes on from what is true by then. The decisions
are those of `reuna.loop.rollout`; the body of a run here is reading, deciding, signing, waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from reuna.adapters.events import EventLog
from reuna.adapters.journal_dbos import DbosHost
from reuna.cloud.holdings import Turn
from reuna.core.errors import ReunaError, RolloutProblem, RunNotFound
from reuna.core.operating import WHAT as OPERATES
from reuna.core.operating import read_event
from reuna.core.ports import Clock, Journal, Offload
from reuna.core.records import Event, Setting
from reuna.core.rollout import Order, RolloutSpec, mistakes
from reuna.exchange.room import STORE, when_there_is_room
from reuna.loop import rollout
from reuna.loop.rollout import Asked, Listed, Note, Reports, Said, State, Tick, Version
from reuna.trust.releases import is_for
from reuna.trust.stages import Stage, staged
from reuna.trust.targets import Target

log = logging.getLogger("reuna.rollouts")
KIND = "rollout"
ASKED = "rollout order"  #: an order of a person, in the event log
TOLD = "rollout {}"  #: what people are told
WORDS = frozenset(
    {ASKED, *(TOLD.format(w) for w in ("shadow", "wave", "met", "paused", "resumed", *rollout.FINAL))}
)
NEWEST = 200  #: rollouts that are listed
LOOK_S = 60.0  #: between two looks, whatever is heard
SETTLE_S = 0.2  #: what comes within that is looked at together
AGAIN_S = 30.0  #: until what could not be signed is tried again


class Stages(Protocol):
    """What the cloud says of where releases run; `reuna.cloud.sign` implements it."""

    def staged(self) -> tuple[Stage, ...]: ...
    def stage(self, stages: Sequence[Stage]) -> None: ...


class World(Protocol):
    """What is there; blocking. ``sites``: edge -> its site; ``listed``: what nodes may take.

    ``said``: what each node said last of the release that is rolled out.
    """

    def sites(self) -> Mapping[str, str]: ...
    def listed(self) -> Collection[Target]: ...
    def said(self, spec: RolloutSpec) -> Collection[Said]: ...


class Seen:
    """The world of a cloud: its fleet, its signed list, and its event log."""

    def __init__(
        self,
        sites: Callable[[], Mapping[str, str]],
        listed: Callable[[], Collection[Target]],
        events: EventLog,
    ) -> None:
        self.sites = sites
        self.listed = listed
        self._events = events

    def said(self, spec: RolloutSpec) -> list[Said]:
        """Raises nothing for what a node said: it was read when it came."""
        told = ((event.node, read_event(event)) for _, event in self._events.last(OPERATES))
        return [rollout.heard(node, found, spec) for node, found in told]


def edge_sites(fogs: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Edge -> its site."""
    return {edge: fog for fog, edges in fogs.items() for edge in edges}


class Rollouts:
    """``turn`` goes on whenever a node has said something or other metadata was published."""

    def __init__(
        self,
        name: str,
        host: DbosHost,
        events: EventLog,
        stages: Stages,
        world: World,
        turn: Turn,
        clock: Clock,
        offload: Offload,
    ) -> None:
        self._name = name
        self._host = host
        self._events = events
        self._stages = stages
        self._world = world
        self._turn = turn
        self._clock = clock
        self._offload = offload
        self._states: dict[str, State] = {}
        self._troubles: dict[str, str] = {}  #: rollout -> why its stages cannot be signed now
        self._beginning = asyncio.Lock()

    # --- what people ask -------------------------------------------------------------------------

    async def plan(self, spec: RolloutSpec) -> dict[str, Any]:
        """What it would be, as `status`; nothing begins. Raises `RolloutProblem`."""
        state = await self._offload(lambda: self._planned(spec))
        return rollout.as_dict(state, self._clock.now())

    async def start(self, spec: RolloutSpec) -> None:
        """Begin a rollout, durable on return; the same one again does nothing. Raises `RolloutProblem`."""
        async with self._beginning:
            before = await self._begun(spec.rollout)
            if before is not None and before.spec == spec:
                return
            state = await self._offload(lambda: self._planned(spec))
            if before is not None:
                raise RolloutProblem(f"there is a rollout {spec.rollout} already", "Give it another name.")
            await self._check_alone(spec)
            await self._host.submit(KIND, _run(spec.rollout), msgspec.json.encode(state).decode())

    async def order(self, name: str, order: Order, by: str) -> None:
        """A person's word to a rollout, durable on return. Raises `RunNotFound`, `RolloutProblem`."""
        state = await self._state(name)
        if state.final:
            raise RolloutProblem(f"rollout {name} is over: {state.phase}", _OVER)
        if order == "resume" and state.paused is None and name in self._states:
            raise RolloutProblem(f"rollout {name} is not paused")
        event = Event(
            self._name, "", 0, self._clock.now(), ASKED, _run(name), fields={"order": order, "by": by}
        )
        await self._offload(lambda: self._keep_order(event))
        self._turn.on()

    async def back(self, project: str, name: str, by: str) -> dict[str, str]:
        """Bring a project back to what it was before its newest rollout: abort that, or begin one called so.

        Raises `RunNotFound`, `RolloutProblem`.
        """
        found = [each for each in await self.listed() if each["project"] == project]
        if not found:
            raise RunNotFound(f"there was no rollout of {project!r}", "List them: `reuna rollout status`.")
        newest = await self._state(found[0]["rollout"])
        if not newest.final:
            await self.order(newest.spec.rollout, "abort", by)
            return {"rollout": newest.spec.rollout, "did": "aborted"}
        if newest.phase != "done":
            said = f"its newest rollout, {newest.spec.rollout}, was {newest.phase}"
            raise RolloutProblem(f"{project} has what it had before: {said}")
        await self.start(rollout.way_back(newest, name))
        return {"rollout": name, "did": "begun"}

    async def status(self, name: str, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        """Where a rollout is; ``mark`` is another one whenever something may have changed, as of holdings.

        ``trouble``: why its stages cannot be signed, '' for nothing. Raises `RunNotFound`.
        """
        await self._state(name)
        await self._turn.over(after, wait_s)
        mark, state = self._turn.mark, await self._state(name)
        trouble = self._troubles.get(name, "")
        return {"mark": mark, "trouble": trouble, **rollout.as_dict(state, self._clock.now())}

    async def listed(self) -> list[dict[str, Any]]:
        """The newest rollouts: name, project, version, phase, wave of how many, begin (epoch s)."""
        found = []
        for run, _, began, _ in await self._host.runs(NEWEST, KIND):
            state = await self._state(_name(run))
            spec, phase = state.spec, "paused" if state.paused is not None else state.phase
            about = {"project": spec.project, "version": spec.version, "phase": phase, "why": state.why}
            at = {"wave": state.wave + 1, "waves": len(state.waves), "began": began}
            found.append({"rollout": spec.rollout, **about, **at})
        return found

    def timeline(self, name: str, after: int) -> list[dict[str, Any]]:
        """What happened in a rollout, from the ``after``-th event on."""
        return [msgspec.to_builtins(event) for event in self._events.read(_run(name), after)]

    def _keep_order(self, event: Event) -> None:
        sequence = len(self._orders(event.run))
        boot = f"{event.run}/orders"
        while not self._events.record(msgspec.structs.replace(event, boot=boot, seq=sequence)):
            sequence += 1

    # --- whether it can be -----------------------------------------------------------------------

    def _planned(self, spec: RolloutSpec) -> State:
        """Raises `RolloutProblem` with everything that is wrong."""
        sites = self._world.sites()
        state = self._first(spec, sites)
        found = [*mistakes(spec), *rollout.unknown(spec, sites), *self._not_listed(state)]
        if found:
            raise RolloutProblem("\n".join(found), "Correct what is named above; docs/how-to/rollout.md.")
        return state

    def _not_listed(self, state: State) -> list[str]:
        spec = state.spec
        own = [t for t in self._world.listed() if (t.project, t.number) == (spec.project, spec.version)]
        if not own:
            sign = "sign and publish it first: `reuna trust add`"
            return [] if spec.waits else [f"{spec.project} {spec.version} is not listed for nodes; {sign}"]
        if all(each.sha256 != spec.sha256 for each in own):
            return [f"{spec.project} {spec.version} is listed with another digest, {own[0].sha256[:12]}"]
        if spec.waits or not (away := _not_for(state, own)):
            return []
        return [f"the signed list does not have {spec.project} {spec.version} for {', '.join(away[:5])}"]

    async def _check_alone(self, spec: RolloutSpec) -> None:
        for each in await self.listed():
            if each["project"] == spec.project and each["phase"] not in rollout.FINAL:
                first = f"Abort it first: `reuna rollout abort {each['rollout']}`; or wait for its end."
                raise RolloutProblem(f"rollout {each['rollout']} of {spec.project} goes on", first)

    # --- the run ---------------------------------------------------------------------------------

    async def body(self, journal: Journal, text: str) -> dict[str, Any]:
        """The whole rollout as plain code over a journal: one commit for each thing that is told.

        ``text``: the state that it begins with, so that no restart finds another fleet.
        """
        state = msgspec.json.decode(text, type=State)
        found = await self._step(journal, "begin", partial(self._begin, state))
        while not self._took(found).final:
            found = await self._step(journal, "go on", partial(self._until_told, self._took(found)))
        return found

    async def _step(self, journal: Journal, name: str, work: Callable[[], Any]) -> dict[str, Any]:
        tried = partial(when_there_is_room, work, self._clock, log, waits=STORE)
        found: dict[str, Any] = await journal.step(name, tried)
        return found

    def _took(self, found: dict[str, Any]) -> State:
        state = msgspec.convert(found, State)
        self._states[state.spec.rollout] = state
        return state

    async def _begin(self, state: State) -> dict[str, Any]:
        """Every node keeps what it has, also when the list names the release."""
        await self._publish(state)
        return _plain(state)

    def _first(self, spec: RolloutSpec, sites: Mapping[str, str]) -> State:
        runs = {each.node: each.runs for each in self._world.said(spec) if each.runs}
        published = self._stages.staged()
        for node, site in sites.items():
            live = staged([each for each in published if _covers(each, node, site)], spec.project).live
            if live is not None and live.sha256 != spec.sha256:
                runs[node] = Version(live.version, live.sha256)
        return rollout.begin(spec, sites, runs, self._clock.now())

    async def _until_told(self, state: State) -> dict[str, Any]:
        """Take in what is there until there is something to tell; every stage is signed before that."""
        while True:
            mark = self._turn.mark
            after, notes = await self._offload(partial(self._look, state))
            if notes or after.heard != state.heard or _is_news(state, after):
                await self._publish(after)
                await self._offload(partial(self._tell, state, notes))
                self._states[state.spec.rollout] = after
                self._turn.on()
                return _plain(after)
            state = self._states[state.spec.rollout] = after
            due = rollout.wakes(state, self._clock.now())
            left = LOOK_S if due is None else min(max(due - self._clock.now(), 0.0), LOOK_S)
            await self._turn.over(mark, left)
            await self._clock.sleep(SETTLE_S)

    def _look(self, state: State) -> tuple[State, list[Note]]:
        """The state after what nodes said last, the orders that are new, and the time."""
        spec, now = state.spec, self._clock.now()
        orders = self._orders(_run(spec.rollout))[state.heard :]
        events: list[rollout.Event] = [Reports(tuple(self._world.said(spec))), *orders, Tick()]
        if not state.listed and self._is_listed(state):
            events.insert(0, Listed())
        told: list[Note] = []
        for event in events:
            state, notes = rollout.step(state, event, now)
            told += notes
        return msgspec.structs.replace(state, heard=state.heard + len(orders)), told

    def _orders(self, run: str) -> list[Asked]:
        found = [event.fields for event in self._events.read(run) if event.what == ASKED]
        return [msgspec.convert(each, Asked) for each in found]

    def _is_listed(self, state: State) -> bool:
        spec = state.spec
        own = [t for t in self._world.listed() if (t.project, t.sha256) == (spec.project, spec.sha256)]
        return bool(own) and not _not_for(state, own)

    async def _publish(self, state: State) -> None:
        """Sign where every node's release is; what cannot be signed now is said, and tried again."""
        while True:
            try:
                self._stages.stage(rollout.stages(state, self._stages.staged()))
            except STORE:
                raise
            except ReunaError as error:
                log.error("stages of %s are not signed: %s %s", state.spec.rollout, error.code, error)
                self._troubles[state.spec.rollout] = f"{error.code} {error.message}"
                self._turn.on()
                await self._clock.sleep(AGAIN_S)
            else:
                self._troubles.pop(state.spec.rollout, None)
                return

    def _tell(self, before: State, notes: Collection[Note]) -> None:
        """Into the timeline, once: the same life of a step tells the same numbers again."""
        run, now = _run(before.spec.rollout), self._clock.now()
        for number, note in enumerate(notes, before.told):
            fields: dict[str, Setting] = note.fields
            log.info("%s: %s %s", run, note.what, fields)
            what = TOLD.format(note.what)
            self._events.record(Event(self._name, f"{run}/told", number, now, what, run, fields=fields))

    # --- what is known of one --------------------------------------------------------------------

    async def _state(self, name: str) -> State:
        """Where it is by now; right after a start, from what was asked. Raises `RunNotFound`."""
        if name not in self._states:
            run = _run(name)
            found = await self._host.status(run)
            if found["state"] == "done":
                return self._took(found["result"])
            begun = msgspec.json.decode(await self._host.spec(run), type=State)
            if found["state"] != "running":
                return msgspec.structs.replace(begun, phase="failed", why=str(found.get("message", "")))
            return self._states.get(name, begun)
        return self._states[name]

    async def _begun(self, name: str) -> State | None:
        """What a rollout of that name was begun with; None when there is none."""
        try:
            return msgspec.json.decode(await self._host.spec(_run(name)), type=State)
        except RunNotFound:
            return None


_OVER = "Begin another one: `reuna rollout start`; or go back: `reuna rollback PROJECT`."


def _run(name: str) -> str:
    """A rollout in the journal; no training run is called so."""
    return f"{KIND}:{name}"


def _name(run: str) -> str:
    return run.removeprefix(f"{KIND}:")


def _is_news(before: State, after: State) -> bool:
    """Whether nodes said what they may never say again: what they ran first, and that they went back."""
    return any(
        after.nodes[name].before != node.before
        or (after.nodes[name].verdict, node.verdict).count("rolled_back") == 1
        for name, node in before.nodes.items()
    )


def _plain(state: State) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(state)
    return found


def _covers(each: Stage, node: str, site: str) -> bool:
    return not each.where or node in each.where or site in each.where


def _not_for(state: State, listed: Collection[Target]) -> list[str]:
    """Nodes of a rollout that the signed list does not have the release for."""
    own = [each for each in listed if each.sha256 == state.spec.sha256]
    return [
        name
        for name, node in state.nodes.items()
        if not any(is_for(each, frozenset({name, node.site})) for each in own)
    ]
