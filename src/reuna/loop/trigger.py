"""Whether a run is begun again now, because of what is seen and within what is allowed. Pure.

    decided = decide(trigger, before, signs, fleet, busy, now)

`Sign`s are what may begin a run: alarms that go on, nodes that have joined, a time that is due. Each
begins one run at most for as long as it is there. Enough of them for long enough begin one together, unless
a limit holds it back: then it waits, but for a time of day, which is passed over.

>>> moved = Trigger("moved", "r-1", on="drift", for_s=60.0, cooldown_s=3600.0)
>>> alarm = {"alarm/1": Sign(("e1", "e2", "e3"), "the process moved at 3 machines (e1, e2, e3): oil")}
>>> first = decide(moved, Began(), alarm, 3, "", 1000.0)
>>> first.stands, decide(moved, first.state, alarm, 3, "", 1060.0).why
('holds', 'drift: the process moved at 3 machines (e1, e2, e3): oil')
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from reuna.core.labelled import Labelled
from reuna.core.trigger import DAY_S, Sign, Trigger, is_quiet, latest, reason
from reuna.core.watched import Watched, kept_by

MOST_TIMES = 1000  #: signs of labelled rows
RETRY_S = 300.0  #: from a run that could not be begun to the next try
Stands = Literal["rests", "holds", "waits", "begins"]


class Began(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered of a trigger. Times are in seconds since the epoch, 0: none.

    ``held``: since when enough signs are there; ``answered``: those that have begun a run and are still
    there; ``begun``: when runs were, as far back as limits look; ``tried``: when one last could not be, and
    ``wrong`` why. ``run`` is the last one, and ``proposal`` what a second person was asked for it.
    """

    held: float = 0.0
    answered: tuple[str, ...] = ()
    begun: tuple[float, ...] = ()
    tried: float = 0.0
    wrong: str = ""
    run: str = ""
    proposal: str = ""


class Seen(msgspec.Struct, frozen=True):
    """What is decided of. ``kept``: nodes whose site keeps it; they speak neither for a run nor against."""

    signs: Mapping[str, Sign]
    kept: tuple[str, ...] = ()
    note: str = ""


class Decided(msgspec.Struct, frozen=True):
    """What is remembered next, how the trigger stands, and in words: why it begins a run, or does not."""

    state: Began
    stands: Stands
    why: str = ""


def decide(
    trigger: Trigger, before: Began, signs: Mapping[str, Sign], fleet: int, busy: str, now: float
) -> Decided:
    """``fleet``: how many machines there are; ``busy``: what stands in the way of a run, or ''."""
    answered = tuple(key for key in before.answered if key in signs)
    fresh = {key: sign for key, sign in signs.items() if key not in answered}
    nodes = {node for sign in fresh.values() for node in sign.nodes}
    enough = bool(fresh) and len(nodes) >= _needed(trigger, fleet)
    held = (min(before.held, now) or now) if enough else 0.0
    state = replace(before, answered=answered, held=held, begun=_counted(trigger, before, now))
    if not enough:
        return Decided(state, "rests", _seen(state, len(nodes)))
    if now - held < trigger.for_s:
        return Decided(state, "holds", f"since {_utc(held)}: {reason(trigger, fresh.values())}")
    after = replace(state, answered=(*answered, *fresh), held=0.0)
    if waits := _not_now(trigger, state, busy, now):
        passed_over = replace(after, wrong=waits) if trigger.on == "clock" else state
        return Decided(passed_over, "waits", waits)
    after = replace(after, begun=(*state.begun, now), wrong="", tried=0.0)
    return Decided(after, "begins", reason(trigger, fresh.values()))


def not_begun(trigger: Trigger, before: Began, after: Began, wrong: str, now: float) -> Began:
    """What is remembered when a run of which `decide` said that it begins could not: it is not counted.

    ``before`` and ``after`` that decision. It is tried again later; of a time of day the next time is.
    """
    passed_over = after.answered if trigger.on == "clock" else before.answered
    return replace(before, answered=passed_over, tried=now, wrong=wrong)


def _seen(state: Began, machines: int) -> str:
    """Why nothing is to be begun, in words."""
    if machines:
        return f"seen at {machines} machine{'s' if machines > 1 else ''}, which is too few"
    return f"{state.run} answers what is seen" if state.run and state.answered else ""


def _needed(trigger: Trigger, fleet: int) -> int:
    """Machines; a time of day needs none."""
    if trigger.on == "clock":
        return 0
    return max(trigger.machines, math.ceil(trigger.share * fleet - 1e-9))


def _counted(trigger: Trigger, before: Began, now: float) -> tuple[float, ...]:
    """When runs were begun, without what no limit looks at; the last one is always known."""
    window = trigger.budget.days * DAY_S if trigger.budget else 0.0
    return tuple(at for at in before.begun[:-1] if now - at < window) + before.begun[-1:]


def _not_now(trigger: Trigger, state: Began, busy: str, now: float) -> str:
    """What holds a run back, or ''. A clock that was set back counts for the limit."""
    if busy:
        return busy
    if state.begun and now - state.begun[-1] < trigger.cooldown_s:
        return f"cools down until {_utc(state.begun[-1] + trigger.cooldown_s)}"
    if trigger.budget:
        window = trigger.budget.days * DAY_S
        within = [at for at in state.begun if now - at < window]
        if len(within) >= trigger.budget.runs:
            return f"the budget is spent until {_utc(within[-trigger.budget.runs] + window)}"
    if is_quiet(trigger, now):
        return f"quiet hours, {trigger.quiet} UTC"
    if trigger.on != "clock" and state.tried and 0 <= now - state.tried < RETRY_S:
        return f"tried again at {_utc(state.tried + RETRY_S)}: {state.wrong}"
    return ""


def _utc(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError):  # a clock that was set to nonsense
        return f"{at:.0f}"


# --- what may begin a run: one sign of the clock, or one of each node ----------------------------------


def due(trigger: Trigger, since: float, now: float) -> dict[str, Sign]:
    """The last time that was due since the trigger is kept; those before it are in arrears."""
    at = latest(trigger, now)
    return {f"at/{at:.0f}": Sign((), "")} if at is not None and at > since else {}


def levels(trigger: Trigger, said: Mapping[str, Watched]) -> Seen:
    """Nodes whose metric is above what is wanted; ``said`` is what each told last of its watch."""
    found = {node: _value(trigger, each) for node, each in sorted(said.items())}
    signs = {
        f"node/{node}": Sign((node,), f"{trigger.metric} {value:.3g} at {node}")
        for node, value in found.items()
        if value is not None and value > trigger.above
    }
    return Seen(signs, tuple(node for node, each in sorted(said.items()) if _kept(trigger, each)))


def _kept(trigger: Trigger, said: Watched) -> bool:
    return any(getattr(said, field) for field in kept_by(trigger.metric))


def _value(trigger: Trigger, said: Watched) -> float | None:
    if _kept(trigger, said):
        return None
    if trigger.metric == "safe_share":
        return said.safe / said.windows if said.windows else None
    level: float = getattr(said, trigger.metric)
    return level


def grown(trigger: Trigger, told: Mapping[str, Labelled], fleet: Iterable[str]) -> Seen:
    """New labelled rows of all nodes together: one sign for each time that they are as many as is wanted.

    So a node that missed the run for which its rows counted does not begin it again with the same rows.
    """
    rows = {node: each.rows for node, each in sorted(told.items()) if each.rows and not each.withheld}
    kept = tuple(node for node in sorted(fleet) if node not in told or told[node].withheld)
    total, wanted = sum(rows.values()), trigger.rows
    where = f"{len(rows)} machine{'s' if len(rows) > 1 else ''} ({', '.join(rows)})"
    sign = Sign(tuple(rows), f"{total} new labelled rows at {where}")
    times = range(1, min(total // wanted, MOST_TIMES) + 1)
    note = f"{total} of {wanted} new labelled rows" if total < wanted else ""
    return Seen({f"rows/{number * wanted}": sign for number in times}, kept, note)


def noted(found: Decided, seen: Seen) -> Decided:
    """As people are told: with how much there is, and whose word is missing."""
    missing = f"not known at {', '.join(seen.kept)}, whose site keeps it" if seen.kept else ""
    return replace(found, why="; ".join(filter(None, (found.why, seen.note, missing))))


def joined(fogs: Mapping[str, tuple[str, ...]], last: Mapping[str, tuple[str, ...]]) -> dict[str, Sign]:
    """Nodes of the fleet of now (fog -> edges) that the last run did not have."""
    had = {edge for edges in last.values() for edge in edges}
    return {
        f"node/{edge}": Sign((edge,), f"{edge} of {fog} joined")
        for fog, edges in sorted(fogs.items())
        for edge in edges
        if edge not in had
    }
