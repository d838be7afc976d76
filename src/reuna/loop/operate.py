"""Which release of a project answers on a machine: two slots, a shadow, a trial, and the way back. Pure.

    none → trial → confirmed → (shadow) → trial → confirmed
                 ↘           ↘ rolled back to what was confirmed before

    state, effects = step(state, event, now)

Two slots, ``a`` and ``b``, hold one release file each. One of them is active: it answers. A release that is
to come is copied to the other slot and tests itself there; a shadow then runs beside the active one, and
any other takes its place, on trial. While a trial goes on the other slot holds what was confirmed before
and is left alone. What fails gives its slot up, and the same file is not tried again, unless a stage of
another rollout asks for it.

What is confirmed is watched on, over a time that slides. That it is unsure does not count any more: a machine
that has changed makes a release unsure, and an older one wrong without a doubt. When it surely breaks its
rules the release before is tested and asked beside it: it takes over only where it holds its rules in the
very windows in which the other one breaks them, for what comes from the machine both of them suffer. Where
there is no such release the safe answer is given (`State.muted`) until the rules have held for a while.

A release that was not measured on this machine, which was away when it was trained or came later, runs
beside what is live there for the time of a trial, and is then on trial.

The effects follow from the state alone (`due`), so whoever crashed between a state and its effects takes
the state up again with `Booted`, and is told the same. Time is counted from what has run (`Ran`), not read
from a clock that jumps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from reuna.core.health import Health
from reuna.core.operating import Phase, Reason

SlotName = Literal["a", "b"]
SLOTS: tuple[SlotName, ...] = ("a", "b")
SLOW = 0.01  #: share of windows that may take longer than the rules allow: what lies above 99 in 100
MOST_GIVEN_UP = 16
SLICES = 12  #: of the time over which what is confirmed is watched
DOUBT = 1e-4  #: chance at most that a release at its limit is taken for one that breaks it


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
    """What a release did: windows, how many of them safe, slow, and answered as by the other; restarts.

    ``failed``: safe ones that are the release's own fault; being unsure is none.
    """

    windows: int = 0
    safe: int = 0
    slow: int = 0
    agreed: int = 0
    restarts: int = 0
    failed: int = 0

    def plus(self, more: Counts) -> Counts:
        """Both together."""
        return Counts(*(getattr(self, name) + getattr(more, name) for name in self.__struct_fields__))


class Copy(msgspec.Struct, frozen=True):
    """What lies in a slot, whole when it was put there. ``rules``: those that the release brings.

    ``measured``: with this node's own data, when it was trained; else it runs beside first.
    """

    which: Which
    rules: Health = Health()
    tested: bool = False
    confirmed: bool = False
    measured: bool = True


class Found(msgspec.Struct, frozen=True):
    """A whole release that lies in a slot; ``measured`` as of `Copy`."""

    version: int
    digest: str
    rules: Health
    measured: bool = True


class Candidate(msgspec.Struct, frozen=True):
    """What is to come: to be copied to the other slot, to be tested there, or running beside.

    ``back``: it was here before, and may be better than what answers, which breaks a rule: ``why``,
    ``detail``. ``live``: how what answers has done in the windows of ``counts``; ``spent_s``: how long it
    has run beside.
    """

    which: Which
    mode: Literal["live", "shadow", "back"]
    doing: Literal["copy", "test", "beside"] = "copy"
    counts: Counts = Counts()
    live: Counts = Counts()
    spent_s: float = 0.0
    why: Reason = ""
    detail: str = ""


class Trial(msgspec.Struct, frozen=True):
    """How the active release has done since it became so; seconds that it ran."""

    spent_s: float = 0.0
    counts: Counts = Counts()


class Slice(msgspec.Struct, frozen=True):
    """What a confirmed release did in some time that it ran."""

    spent_s: float = 0.0
    counts: Counts = Counts()


class GivenUp(msgspec.Struct, frozen=True):
    """A release that is not tried again under the same rollout. ``detail`` stays on the node."""

    which: Which
    why: Reason
    detail: str
    at: float


class State(msgspec.Struct, frozen=True):
    """All that is kept of a project. ``since``: when the phase began, epoch s, for people alone.

    ``lately``: what the confirmed release did, the newest last; ``rest_s``: no way back is looked for so
    long; ``muted``: it breaks its rules and nothing better is there, so the safe answer is given.
    """

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
    lately: tuple[Slice, ...] = ()
    rest_s: float = 0.0
    muted: bool = False


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
    measured: bool = True


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
    """These answer from now on: the active slot, and the one beside it; '' for none.

    ``muted``: whatever the active one says, the safe answer is given.
    """

    active: Literal["", "a", "b"] = ""
    beside: Literal["", "a", "b"] = ""
    muted: bool = False


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
    effects: list[Effect] = [Run(state.active, beside, state.muted)]
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
    state = _with(state, event.slot, Copy(coming.which, event.rules, measured=event.measured))
    return replace(state, candidate=replace(coming, doing="test"))


def _tested(state: State, event: SelfTested, now: float) -> State:
    coming, copy = state.candidate, _copy(state, event.slot)
    if coming is None or coming.doing != "test" or not _is_for(state, event.slot, event.digest):
        return state
    assert copy is not None  # what is tested lies in its slot
    if event.why:
        return _drop_candidate(state, event.reason, event.why, now)
    state = _with(state, event.slot, replace(copy, tested=True, which=coming.which))
    if coming.mode == "back":
        return replace(state, candidate=replace(coming, doing="beside"))
    first_beside = not copy.measured and not copy.confirmed and state.active
    if coming.mode == "shadow" or first_beside:
        return replace(state, candidate=replace(coming, doing="beside"), phase="shadow", reason="", detail="")
    return _switch(state, event.slot)


def _switch(state: State, slot: SlotName) -> State:
    """The slot answers from now on: on trial, unless it was confirmed on this machine before."""
    copy = _copy(state, slot)
    assert copy is not None
    phase: Phase = "confirmed" if copy.confirmed else "trial"
    trial = None if copy.confirmed else Trial()
    state = replace(state, lately=(), muted=False)
    return replace(state, active=slot, trial=trial, candidate=None, phase=phase, reason="", detail="")


def _ran(state: State, event: Ran, now: float) -> State:
    if (coming := state.candidate) is not None and coming.doing == "beside" and coming.mode != "back":
        before, state = state.active, _shadowed(state, coming, event, now)
        if state.active != before:
            return state  # what happened was the other one's
    copy = running(state)
    if copy is None:
        return state
    if state.trial is None:
        return _watched(state, copy, event, now) if event.reads and copy.rules.watch_s else state
    trial = Trial(state.trial.spent_s + max(0.0, event.elapsed_s), state.trial.counts.plus(event.active))
    state = replace(state, trial=trial)
    if (unfit := _unfit(trial.counts, copy.rules)) is not None:
        return _go_back(_give_up(state, copy.which, *unfit, now), *unfit)
    enough = trial.counts.windows >= copy.rules.min_windows or not event.reads
    return _confirm(state) if enough and trial.spent_s >= copy.rules.trial_s else state


def _shadowed(state: State, coming: Candidate, event: Ran, now: float) -> State:
    """How what runs beside does. What is to be live, and was not measured here, is when it did well."""
    copy, coming = beside(state), _told_more(coming, event)
    state = replace(state, candidate=coming)
    assert copy is not None
    unfit = _unfit(coming.counts, copy.rules, shadow=True)
    if unfit is not None:
        return _drop_candidate(state, *unfit, now)
    done = coming.counts.windows >= copy.rules.min_windows and coming.spent_s >= copy.rules.trial_s
    asked = event.reads and _is_asked(coming, copy.rules.min_windows)
    return _switch(state, _other(state)) if coming.mode == "live" and (done or not asked) else state


def _told_more(coming: Candidate, event: Ran) -> Candidate:
    """With what happened now, to it and to what answers."""
    return replace(
        coming,
        counts=coming.counts.plus(event.beside),
        live=coming.live.plus(event.active),
        spent_s=coming.spent_s + max(0.0, event.elapsed_s),
    )


def _is_asked(coming: Candidate, windows: int) -> bool:
    """Whether what runs beside is asked at all: one of other windows than what answers is not."""
    return coming.counts.windows > 0 or coming.live.windows < windows


class Broken(NamedTuple):
    """A rule that does not hold: a share of windows, the share that may be, and that in words."""

    reason: Reason
    share: float
    limit: float
    said: str


def _broken(counts: Counts, rules: Health) -> Iterator[Broken]:
    """The rules over windows that a release breaks."""
    windows = counts.windows
    if windows < rules.min_windows:
        return
    safe, slow = counts.safe / windows, counts.slow / windows
    if safe > rules.max_safe:
        said = f"{safe:.0%} of {windows} windows are safe answers, {rules.max_safe:.0%} may be"
        yield Broken("safe", safe, rules.max_safe, said)
    if slow > SLOW:
        said = f"{slow:.1%} of {windows} windows took over {rules.max_latency_ms:g} ms"
        yield Broken("latency", slow, SLOW, said)


def _restarts(counts: Counts, rules: Health) -> tuple[Reason, str] | None:
    if counts.restarts <= rules.max_restarts:
        return None
    return "restarts", f"its worker ended {counts.restarts} times, {rules.max_restarts} are allowed"


def _unfit(counts: Counts, rules: Health, shadow: bool = False) -> tuple[Reason, str] | None:
    """Why a release is not healthy, by its own rules; None while nothing speaks against it."""
    if (ended := _restarts(counts, rules)) is not None:
        return ended
    for each in _broken(counts, rules):
        return each.reason, each.said
    if not shadow or counts.windows < rules.min_windows:
        return None
    agreed = counts.agreed / counts.windows
    if agreed < rules.min_agreement:
        said = f"{agreed:.0%} of {counts.windows} windows agree, {rules.min_agreement:.0%} must"
        return "agreement", said
    return None


def _confirm(state: State) -> State:
    copy = running(state)
    assert copy is not None
    state = _with(state, state.active or "a", replace(copy, confirmed=True))
    return replace(state, trial=None, phase="confirmed", reason="", detail="", lately=(), muted=False)


# --- after it was confirmed ----------------------------------------------------------------------------


def _watched(state: State, copy: Copy, event: Ran, now: float) -> State:
    """What is confirmed goes on to hold its rules, or the way back is looked for."""
    rules, elapsed_s = copy.rules, max(0.0, event.elapsed_s)
    event = replace(event, active=_blamed(event.active), beside=_blamed(event.beside))
    lately = _slid(state.lately, elapsed_s, event.active, rules)
    state = replace(state, lately=lately, rest_s=max(0.0, state.rest_s - elapsed_s))
    coming = state.candidate
    if coming is not None and coming.mode == "back":
        return _compared(state, copy, coming, event, now) if coming.doing == "beside" else state
    if (unfit := _surely_unfit(lately, rules)) is None:
        return _well(state, rules)
    back = _before(state) if coming is None and state.rest_s <= 0 else None
    if back is None:
        return _mute(state, *unfit)
    there = _copy(state, _other(state))
    lies = there is not None and there.which.digest == back.digest
    why, detail = unfit
    state = state if lies else _with(state, _other(state), None)
    coming = Candidate(back, "back", "test" if lies else "copy", why=why, detail=detail)
    return replace(state, candidate=coming)


def _blamed(counts: Counts) -> Counts:
    """With those safe answers alone that are a release's own fault."""
    return replace(counts, safe=counts.failed)


def _slid(lately: tuple[Slice, ...], elapsed_s: float, counts: Counts, rules: Health) -> tuple[Slice, ...]:
    """With what happened now, and without what is older than `watch_s` and not needed for `min_windows`."""
    last = lately[-1] if lately else Slice()
    full = last.spent_s >= rules.watch_s / SLICES and last.counts.windows >= rules.min_windows / SLICES
    before = lately if full else lately[:-1]
    last = Slice() if full else last
    found = (*before, Slice(last.spent_s + elapsed_s, last.counts.plus(counts)))
    while len(found) > 1 and _is_enough(found[1:], rules):
        found = found[1:]
    return found


def _is_enough(lately: tuple[Slice, ...], rules: Health) -> bool:
    spent_s = sum(each.spent_s for each in lately)
    return spent_s >= rules.watch_s and sum(each.counts.windows for each in lately) >= rules.min_windows


def _surely_unfit(lately: tuple[Slice, ...], rules: Health) -> tuple[Reason, str] | None:
    """Why what is confirmed is not healthy of late, when chance alone would hardly make it look so.

    Looked at is what happened last, further and further back: what begins now is not hidden by hours
    before in which all was well.
    """
    counts = Counts()
    for each in reversed(lately):
        counts = counts.plus(each.counts)
        if (ended := _restarts(counts, rules)) is not None:
            return ended
        for broken in _broken(counts, rules):
            if _is_sure(broken.share, broken.limit, counts.windows):
                return broken.reason, broken.said
    return None


def _is_sure(share: float, limit: float, windows: int) -> bool:
    """Whether such a share above the limit has a chance below `DOUBT` where the limit is kept.

    The bound of Chernoff (1952) in the form of Hoeffding (1963, eq. 2.1): exp(-n KL(share, limit)).
    """
    if limit <= 0:
        return True
    distance = share * math.log(share / limit)
    if share < 1:
        distance += (1 - share) * math.log((1 - share) / (1 - limit))
    return windows * distance >= -math.log(DOUBT)


def _well(state: State, rules: Health) -> State:
    """Nothing sure speaks against it: what was muted speaks again once all of the time was well."""
    if not state.muted or not _is_enough(state.lately, rules):
        return state
    whole = Counts()
    for each in state.lately:
        whole = whole.plus(each.counts)
    if _unfit(whole, rules) is not None:
        return state
    return replace(state, muted=False, reason="", detail="")


def _before(state: State) -> Which | None:
    """A release of before that may be better: what was confirmed here, else an older one; listed still."""
    copy, active = _copy(state, _other(state)), running(state)
    bad = {each.which.digest for each in state.given_up}
    usable = [each for each in state.choice.held if each.digest not in bad]
    if copy is not None and copy.confirmed and any(each.digest == copy.which.digest for each in usable):
        return copy.which
    older = (each for each in usable if active is not None and each.version < active.which.version)
    return next(older, None)


def _compared(state: State, copy: Copy, coming: Candidate, event: Ran, now: float) -> State:
    """What answers and the one before, in the same windows: the better one goes on."""
    coming = _told_more(coming, event)
    state, other = replace(state, candidate=coming), beside(state)
    assert other is not None
    least = max(copy.rules.min_windows, other.rules.min_windows)
    if _unfit(coming.counts, other.rules) is not None or not _is_asked(coming, least):
        return _no_better(state, coming)
    if coming.counts.windows < least:
        return state
    if _unfit(coming.live, copy.rules) is None and coming.why != "restarts":
        return replace(state, candidate=None, lately=())  # it has passed
    state = _give_up(state, copy.which, coming.why, coming.detail, now)
    state = _with(state, _other(state), replace(other, confirmed=True))
    return replace(_go_back(state, coming.why, coming.detail), rest_s=copy.rules.back_every_s)


def _no_better(state: State, coming: Candidate) -> State:
    """The release of before is no way back, nor is it looked at again at once."""
    copy = running(state)
    rest_s = copy.rules.watch_s if copy is not None else 0.0
    return _mute(replace(state, candidate=None, rest_s=rest_s), coming.why, coming.detail)


def _mute(state: State, why: Reason, detail: str) -> State:
    """There is no way back: the safe answer, until all was well for a while."""
    return replace(state, muted=True, lately=(), reason=why, detail=detail)


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
    if copy is None or not copy.tested:
        return None
    busy = coming is not None and coming.doing != "beside" and coming.mode != "back"
    return None if busy else copy


def _go_back(state: State, why: Reason, detail: str) -> State:
    """Leave the active slot for the other one, if that holds something tested; else nothing answers."""
    fallback, slot = _fallback(state), _other(state)
    if state.active:
        state = _with(state, state.active, None)
    state = replace(state, trial=None, phase="rolled_back", reason=why, detail=detail)
    state = replace(state, lately=(), muted=False)
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
    if coming.mode == "back":
        return _no_better(_with(state, _other(state), None), coming)
    if why != "damaged":
        state = _give_up(state, coming.which, why, detail, now)
    state = _with(state, _other(state), None)
    return replace(state, candidate=None, phase="rolled_back", reason=why, detail=detail)


# --- what is wanted next -------------------------------------------------------------------------------


def _settle(state: State, now: float) -> State:
    """Begin on what is wanted, as far as a trial leaves the other slot free."""
    live, shadow = _wanted(state)
    active = running(state)
    if live is not None and active is not None and state.trial is not None:
        state = state if live.digest == active.which.digest else _superseded(state)
        active = running(state)
    if live is not None and active is not None and live.digest == active.which.digest:
        state = _with(state, state.active or "a", replace(active, which=live))
    elif live is not None:
        return _aim(state, live, "live")
    if (coming := state.candidate) is not None and coming.mode == "back" and _is_listed(state, coming.which):
        return state
    free = active is not None and state.trial is None
    if shadow is not None and free and active is not None and shadow.digest != active.which.digest:
        return _aim(state, shadow, "shadow")
    return _without_candidate(state)


def _is_listed(state: State, which: Which) -> bool:
    return state.trial is None and any(each.digest == which.digest for each in state.choice.held)


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
