"""Which release of a project answers on a machine: two slots, a shadow, a trial, and the way back. Pure.

    none → trial → confirmed → (shadow) → trial → confirmed
                 ↘ rolled back to what was confirmed before

    state, effects = step(state, event, now)

Two slots, ``a`` and ``b``, hold one release file each. One of them is active: it answers. A release that is
to come is copied to the other slot and tests itself there; a shadow then runs beside the active one, and
any other takes its place, on trial. While a trial goes on the other slot holds what was confirmed before
and is left alone. What fails gives its slot up, and the same file is not tried again, unless a stage of
another rollout asks for it.

The effects follow from the state alone (`due`), so whoever crashed between a state and its effects takes
the state up again with `Booted`, and is told the same. Time is counted from what has run (`Ran`), not read
from a clock that jumps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec.structs import replace

from reuna.core.health import Health
from reuna.core.operating import Phase, Reason

SlotName = Literal["a", "b"]
SLOTS: tuple[SlotName, ...] = ("a", "b")
SLOW = 0.01  #: share of windows that may take longer than the rules allow: what lies above 99 in 100
MOST_GIVEN_UP = 16


class Which(msgspec.Struct, frozen=True):
    """A release that is to run. ``digest``: of its file; ``rollout``: of the stage that said so, or ''."""

    version: int
    digest: str
    rollout: str = ""


class Choice(msgspec.Struct, frozen=True):
    """What a node is to do with a project, as its fleet signed it, and what it holds.

    ``held``: releases that are here, verified, and for this node, the newest first. ``live`` and ``shadow``:
    what stages say. Without any stage the newest that is held is to be live.
    """

    held: tuple[Which, ...] = ()
    live: Which | None = None
    shadow: Which | None = None


class Counts(msgspec.Struct, frozen=True):
    """What a release did: windows, how many of them safe, slow, and answered as by the other; restarts."""

    windows: int = 0
    safe: int = 0
    slow: int = 0
    agreed: int = 0
    restarts: int = 0

    def plus(self, more: Counts) -> Counts:
        """Both together."""
        return Counts(*(getattr(self, name) + getattr(more, name) for name in self.__struct_fields__))


class Copy(msgspec.Struct, frozen=True):
    """What lies in a slot, whole when it was put there. ``rules``: those that the release brings."""

    which: Which
    rules: Health = Health()
    tested: bool = False
    confirmed: bool = False


class Found(msgspec.Struct, frozen=True):
    """A whole release that lies in a slot."""

    version: int
    digest: str
    rules: Health


class Candidate(msgspec.Struct, frozen=True):
    """What is to come: to be copied to the other slot, to be tested there, or running beside."""

    which: Which
    mode: Literal["live", "shadow"]
    doing: Literal["copy", "test", "beside"] = "copy"
    counts: Counts = Counts()


class Trial(msgspec.Struct, frozen=True):
    """How the active release has done since it became so; seconds that it ran."""

    spent_s: float = 0.0
    counts: Counts = Counts()


class GivenUp(msgspec.Struct, frozen=True):
    """A release that is not tried again under the same rollout. ``detail`` stays on the node."""

    which: Which
    why: Reason
    detail: str
    at: float


class State(msgspec.Struct, frozen=True):
    """All that is kept of a project. ``since``: when the phase began, epoch s, for people alone."""

    a: Copy | None = None
    b: Copy | None = None
    active: Literal["", "a", "b"] = ""
    trial: Trial | None = None
    candidate: Candidate | None = None
    choice: Choice = Choice()
    given_up: tuple[GivenUp, ...] = ()
    phase: Phase = "none"
    reason: Reason = ""
    detail: str = ""
    since: float = 0.0


# --- events ----------------------------------------------------------------------------------------


class Booted(msgspec.Struct, frozen=True):
    """The process starts. ``whole``: digest of each slot's file as it is now, '' for none."""

    whole: dict[SlotName, str]


class Chosen(msgspec.Struct, frozen=True):
    """What the fleet wants, or what is held, may have changed."""

    choice: Choice


class Put(msgspec.Struct, frozen=True):
    """A slot's file was written, is durable, and was read again whole."""

    slot: SlotName
    digest: str
    rules: Health = Health()


class SelfTested(msgspec.Struct, frozen=True):
    """A release in a slot tested itself. ``why``: what is wrong, empty: nothing; ``reason`` its word."""

    slot: SlotName
    digest: str
    why: str = ""
    reason: Reason = "self-test"


class Ran(msgspec.Struct, frozen=True):
    """What happened since this was said last. ``reads``: whether this node reads its machine at all."""

    elapsed_s: float
    active: Counts = Counts()
    beside: Counts = Counts()
    reads: bool = True


class Failed(msgspec.Struct, frozen=True):
    """A slot's release cannot be run: its file is damaged, or it does not start however often it is tried."""

    slot: SlotName
    digest: str
    why: str
    reason: Reason = "start"


Event = Booted | Chosen | Put | SelfTested | Ran | Failed


# --- effects ---------------------------------------------------------------------------------------


class Run(msgspec.Struct, frozen=True):
    """These answer from now on: the active slot, and the one beside it; '' for none."""

    active: Literal["", "a", "b"] = ""
    beside: Literal["", "a", "b"] = ""


class Fill(msgspec.Struct, frozen=True):
    """Copy a release that is held to a slot, as often as it takes, then say `Put`."""

    slot: SlotName
    which: Which


class SelfTest(msgspec.Struct, frozen=True):
    """Start what is in a slot and have it test itself, then say `SelfTested`."""

    slot: SlotName
    digest: str


Effect = Run | Fill | SelfTest


def due(state: State) -> tuple[Effect, ...]:
    """What is to be done in a state: the same whenever it is asked, so that a crash forgets nothing."""
    coming = state.candidate
    slot = _other(state)
    beside = slot if coming is not None and coming.doing == "beside" else ""
    effects: list[Effect] = [Run(state.active, beside)]
    if coming is not None and coming.doing == "copy":
        effects.append(Fill(slot, coming.which))
    if coming is not None and coming.doing == "test":
        effects.append(SelfTest(slot, coming.which.digest))
    return tuple(effects)


def step(state: State, event: Event, now: float) -> tuple[State, tuple[Effect, ...]]:
    """The state after an event, and what is due then. ``now``: epoch s, shown to people and nothing more.

    The state is to be durable before its effects are carried out.
    """
    after = _settle(_happened(state, event, now), now)
    if (after.phase, after.active) != (state.phase, state.active):
        after = replace(after, since=now)
    return after, due(after)


def recovered(found: Mapping[SlotName, Found]) -> State:
    """A state from what lies in the slots, for one that was lost: the older release is the likelier to have
    been confirmed, and is on trial.
    """
    copies = {
        slot: Copy(Which(each.version, each.digest), each.rules, tested=True) for slot, each in found.items()
    }
    active = min(found, key=lambda slot: found[slot].version, default=None)
    if active is None:
        return State()
    return State(copies.get("a"), copies.get("b"), active, Trial(), phase="trial", reason="damaged")


def running(state: State) -> Copy | None:
    """What answers, None for nothing."""
    return _copy(state, state.active) if state.active else None


def beside(state: State) -> Copy | None:
    """What runs as a shadow, None for nothing."""
    coming = state.candidate
    return _copy(state, _other(state)) if coming is not None and coming.doing == "beside" else None


def is_given_up(state: State, which: Which) -> bool:
    """Whether a release is not to be tried under that rollout."""
    return any(
        (each.which.digest, each.which.rollout) == (which.digest, which.rollout) for each in state.given_up
    )


# --- what happened -----------------------------------------------------------------------------------


def _happened(state: State, event: Event, now: float) -> State:
    match event:
        case Chosen():
            return replace(state, choice=event.choice)
        case Booted():
            return _booted(state, event)
        case Put():
            return _put(state, event)
        case SelfTested():
            return _tested(state, event, now)
        case Ran():
            return _ran(state, event, now)
        case Failed():
            return _failed(state, event, now)


def _booted(state: State, event: Booted) -> State:
    """Slots whose file is not what it was are empty; a shadow tests itself again before it runs."""
    broken = running(state)
    for slot in SLOTS:
        copy = _copy(state, slot)
        if copy is not None and event.whole.get(slot, "") != copy.which.digest:
            state = _with(state, slot, None)
    coming = state.candidate
    if coming is not None:
        there = _copy(state, _other(state))
        held = there is not None and there.which.digest == coming.which.digest
        state = replace(state, candidate=replace(coming, doing="test" if held else "copy"))
    if state.active and running(state) is None and broken is not None:
        return _go_back(state, "damaged", f"the file of version {broken.which.version} is damaged")
    return state


def _put(state: State, event: Put) -> State:
    coming = state.candidate
    if coming is None or coming.doing != "copy" or not _is_for(state, event.slot, event.digest):
        return state
    state = _with(state, event.slot, Copy(coming.which, event.rules))
    return replace(state, candidate=replace(coming, doing="test"))


def _tested(state: State, event: SelfTested, now: float) -> State:
    coming, copy = state.candidate, _copy(state, event.slot)
    if coming is None or coming.doing != "test" or not _is_for(state, event.slot, event.digest):
        return state
    assert copy is not None  # what is tested lies in its slot
    if event.why:
        return _drop_candidate(state, event.reason, event.why, now)
    state = _with(state, event.slot, replace(copy, tested=True, which=coming.which))
    if coming.mode == "shadow":
        return replace(state, candidate=replace(coming, doing="beside"), phase="shadow", reason="", detail="")
    return _switch(state, event.slot)


def _switch(state: State, slot: SlotName) -> State:
    """The slot answers from now on: on trial, unless it was confirmed on this machine before."""
    copy = _copy(state, slot)
    assert copy is not None
    phase: Phase = "confirmed" if copy.confirmed else "trial"
    trial = None if copy.confirmed else Trial()
    return replace(state, active=slot, trial=trial, candidate=None, phase=phase, reason="", detail="")


def _ran(state: State, event: Ran, now: float) -> State:
    coming = state.candidate
    if coming is not None and coming.doing == "beside":
        copy, counts = beside(state), coming.counts.plus(event.beside)
        state = replace(state, candidate=replace(coming, counts=counts))
        if copy is not None and (unfit := _unfit(counts, copy.rules, shadow=True)) is not None:
            state = _drop_candidate(state, *unfit, now)
    copy = running(state)
    if state.trial is None or copy is None:
        return state
    trial = Trial(state.trial.spent_s + max(0.0, event.elapsed_s), state.trial.counts.plus(event.active))
    state = replace(state, trial=trial)
    if (unfit := _unfit(trial.counts, copy.rules)) is not None:
        return _go_back(_give_up(state, copy.which, *unfit, now), *unfit)
    enough = trial.counts.windows >= copy.rules.min_windows or not event.reads
    return _confirm(state) if enough and trial.spent_s >= copy.rules.trial_s else state


def _unfit(counts: Counts, rules: Health, shadow: bool = False) -> tuple[Reason, str] | None:
    """Why a release is not healthy, by its own rules; None while nothing speaks against it."""
    if counts.restarts > rules.max_restarts:
        return "restarts", f"its worker ended {counts.restarts} times, {rules.max_restarts} are allowed"
    if counts.windows < rules.min_windows:
        return None
    safe, slow = counts.safe / counts.windows, counts.slow / counts.windows
    if safe > rules.max_safe:
        return "safe", f"{safe:.0%} of {counts.windows} windows are safe answers, {rules.max_safe:.0%} may be"
    if slow > SLOW:
        return "latency", f"{slow:.1%} of {counts.windows} windows took over {rules.max_latency_ms:g} ms"
    agreed = counts.agreed / counts.windows
    if shadow and agreed < rules.min_agreement:
        return (
            "agreement",
            f"{agreed:.0%} of {counts.windows} windows agree, {rules.min_agreement:.0%} must",
        )
    return None


def _confirm(state: State) -> State:
    copy = running(state)
    assert copy is not None
    state = _with(state, state.active or "a", replace(copy, confirmed=True))
    return replace(state, trial=None, phase="confirmed", reason="", detail="")


def _failed(state: State, event: Failed, now: float) -> State:
    """What does not run is left for what does; where nothing else is, it is tried on and on."""
    coming = state.candidate
    if coming is not None and _is_for(state, event.slot, event.digest):
        return _drop_candidate(state, event.reason, event.why, now)
    copy = running(state)
    if copy is None or event.slot != state.active or copy.which.digest != event.digest:
        return state
    if copy.confirmed and _fallback(state) is None and event.reason != "damaged":
        return replace(state, reason=event.reason, detail=event.why)
    if event.reason != "damaged":
        state = _give_up(state, copy.which, event.reason, event.why, now)
    return _go_back(state, event.reason, event.why)


# --- the way back -------------------------------------------------------------------------------------


def _fallback(state: State) -> Copy | None:
    """What could answer instead of the active one: tested, and neither being written nor on test."""
    copy, coming = _copy(state, _other(state)), state.candidate
    if copy is None or not copy.tested or (coming is not None and coming.doing != "beside"):
        return None
    return copy


def _go_back(state: State, why: Reason, detail: str) -> State:
    """Leave the active slot for the other one, if that holds something tested; else nothing answers."""
    fallback, slot = _fallback(state), _other(state)
    if state.active:
        state = _with(state, state.active, None)
    state = replace(state, trial=None, phase="rolled_back", reason=why, detail=detail)
    if fallback is None:
        return replace(state, active="", candidate=None)
    return replace(state, active=slot, candidate=None, trial=None if fallback.confirmed else Trial())


def _give_up(state: State, which: Which, why: Reason, detail: str, now: float) -> State:
    found = (*state.given_up, GivenUp(which, why, detail[:300], now))
    return replace(state, given_up=found[-MOST_GIVEN_UP:])


def _drop_candidate(state: State, why: Reason, detail: str, now: float) -> State:
    """A release that does not become active: its slot is empty, what answers goes on."""
    coming = state.candidate
    assert coming is not None
    if why != "damaged":
        state = _give_up(state, coming.which, why, detail, now)
    state = _with(state, _other(state), None)
    return replace(state, candidate=None, phase="rolled_back", reason=why, detail=detail)


# --- what is wanted next -------------------------------------------------------------------------------


def _settle(state: State, now: float) -> State:
    """Begin on what is wanted, as far as a trial leaves the other slot free."""
    live, shadow = _wanted(state)
    active = running(state)
    if active is not None and live is not None and live.digest == active.which.digest:
        state = _with(state, state.active or "a", replace(active, which=live))
        live = None
    active = running(state)
    if live is not None and active is not None and state.trial is not None:
        state = _superseded(state)
        active = running(state)
        if active is not None and active.which.digest == live.digest:
            live = None
    if live is not None:
        return _aim(state, live, "live")
    free = active is not None and state.trial is None
    if shadow is not None and free and active is not None and shadow.digest != active.which.digest:
        return _aim(state, shadow, "shadow")
    return _without_candidate(state)


def _wanted(state: State) -> tuple[Which | None, Which | None]:
    """What is to be live and what beside it, of what is held and was not given up; None: as it is.

    Where nothing answers and what is asked for cannot be had, an older one that is held is better.
    """
    choice, held = state.choice, {each.digest for each in state.choice.held}

    def usable(which: Which | None) -> Which | None:
        able = which is not None and which.digest in held and not is_given_up(state, which)
        return which if able else None

    if choice.live is not None and (state.active or usable(choice.live) is not None):
        return usable(choice.live), usable(choice.shadow)
    if choice.shadow is not None and state.active:
        return None, usable(choice.shadow)
    limit = min(
        (each.version for each in (choice.live, choice.shadow) if each is not None), default=2**31 + 1
    )
    newest = (each for each in choice.held if each.version < limit and not is_given_up(state, each))
    return next(newest, None), usable(choice.shadow)


def _superseded(state: State) -> State:
    """Another release is wanted before a trial is over: first back to what was confirmed, if there is one."""
    fallback = _fallback(state)
    if fallback is None or not fallback.confirmed:
        return state
    return replace(
        state,
        active=_other(state),
        trial=None,
        phase="confirmed",
        reason="replaced",
        detail="another release was wanted before its trial was over",
    )


def _aim(state: State, which: Which, mode: Literal["live", "shadow"]) -> State:
    coming, slot = state.candidate, _other(state)
    if coming is not None and coming.which.digest == which.digest:
        if coming.mode == mode:
            return replace(state, candidate=replace(coming, which=which))
        doing: Literal["copy", "test"] = "copy" if coming.doing == "copy" else "test"
        return _begin(state, Candidate(which, mode, doing))
    there = _copy(state, slot)
    if there is not None and there.which.digest == which.digest:
        return _begin(state, Candidate(which, mode, "test"))
    return _begin(_with(state, slot, None), Candidate(which, mode))


def _begin(state: State, coming: Candidate) -> State:
    phase: Phase = "confirmed" if state.phase == "shadow" else state.phase
    return replace(state, candidate=coming, phase=phase)


def _without_candidate(state: State) -> State:
    if state.candidate is None:
        return state
    if state.phase == "shadow":
        return replace(state, candidate=None, phase="confirmed", reason="withdrawn", detail="")
    return replace(state, candidate=None)


# --- slots ---------------------------------------------------------------------------------------------


def _other(state: State) -> SlotName:
    """The slot that is not active; ``a`` when none is."""
    return "b" if state.active == "a" else "a"


def _copy(state: State, slot: str) -> Copy | None:
    return state.a if slot == "a" else state.b


def _with(state: State, slot: SlotName, copy: Copy | None) -> State:
    return replace(state, a=copy) if slot == "a" else replace(state, b=copy)


def _is_for(state: State, slot: SlotName, digest: str) -> bool:
    """Whether that is the candidate, in the slot where it belongs."""
    coming = state.candidate
    return coming is not None and slot == _other(state) and coming.which.digest == digest
