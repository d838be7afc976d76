"""What a rollout is asked to be: which release, in which waves, and when it goes on or stops. Pure.

`reuna.loop.rollout` decides by it; the section ``[rollout]`` of `reuna.toml` holds what is usual.

    [rollout]
    waves = ["press-1", "25%", "all"]
    soak_s = 3600
    windows = ["sat sun 00:00-06:00"]
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from reuna.core.machines import Machines, groups
from reuna.core.settings import Option, between
from reuna.core.subjects import is_name
from reuna.core.trigger import DAY_S, DAYS, days_of_week, time_of_day

ALL = "all"  #: a wave of every node, also of those that are yet to come
MAX_WAVES = 32
MAX_MEMBERS = 10_000
DEADLINE_S = 86_400.0
LONGEST_S = 90 * DAY_S
_PERCENT = re.compile(r"(\d{1,2}(?:\.\d+)?|100)%")
_FIRST = 3  #: the first day of 1970 was a Thursday

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Place = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=LONGEST_S)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Project = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Order = Literal["pause", "resume", "abort"]  #: what a person may say to a rollout


class Wave(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Nodes that take a release together: one name, or the members of a group of that name.

    ``name``: of a node or site, a share as ``25%``, or ``all``; ``members``: nodes and sites.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=63)]
    members: Annotated[tuple[Place, ...], msgspec.Meta(max_length=MAX_MEMBERS)] = ()


class Terms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """When a rollout goes on and when it stops; shares are of the nodes of a wave.

    ``shadow_s``: how long the release runs beside what is live everywhere before the first wave, 0: not at
    all; ``soak_s``: how long a wave holds before the next; ``success``: share that has to confirm;
    ``errors``: share that may go back; ``offline``: share that may be silent at the end of ``deadline_s``;
    ``windows``: when a wave may begin, UTC; none: at any time.
    """

    shadow_s: Seconds = 0.0
    soak_s: Seconds = 600.0
    success: Share = 1.0
    errors: Share = 0.0
    offline: Share = 0.25
    deadline_s: Annotated[float, msgspec.Meta(gt=0.0, le=LONGEST_S)] = DEADLINE_S
    windows: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_WAVES)] = ()


class RolloutSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a person asks for: one signed release of a project at the nodes of its waves, one after the other.

    ``sha256``: of the release's file; ``approval``: a second person has to agree; ``waits``: it may be
    listed later than now, and nothing begins before; ``back``: it undoes another one, so nothing stops it.
    """

    rollout: Name
    project: Project
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    sha256: Digest
    waves: Annotated[tuple[Wave, ...], msgspec.Meta(min_length=1, max_length=MAX_WAVES)] = (Wave(ALL),)
    terms: Terms = Terms()
    approval: bool = False
    waits: bool = False
    back: bool = False

    def summary(self) -> str:
        """What a second person reads."""
        waves = ", ".join(wave.name for wave in self.waves)
        return f"rollout {self.rollout}: {self.project} {self.version}, {self.sha256[:12]}, to {waves}"[:400]


class Ordered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's word to a rollout that goes on."""

    order: Order


class RollBack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A project is to have again what it had before; ``rollout`` names the way back."""

    project: Project
    rollout: Name


def mistakes(spec: RolloutSpec) -> list[str]:
    """What is wrong with what is asked, one line each."""
    names = [wave.name for wave in spec.waves]
    found = [
        f"wave {name} is named twice" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    found += [f"wave {wave.name!r}: {wrong}" for wave in spec.waves if (wrong := _bad_wave(wave.name))]
    if any(name == ALL for name in names[:-1]):
        found.append("a wave after `all` has nobody left")
    return found + ([wrong] if (wrong := bad_windows(spec.terms.windows)) else [])


def _bad_wave(name: str) -> str:
    percent = _PERCENT.fullmatch(name)
    if (percent and float(percent[1]) > 0) or is_name(name):
        return ""
    return "name a node, a site or a type of machine, or say a share as 25%"


# --- who is in which wave -----------------------------------------------------------------------------


def named_waves(names: Iterable[str], machines: Machines, sites: Mapping[str, str]) -> tuple[Wave, ...]:
    """Waves by name; that of a type of machine has its nodes. ``sites``: node -> site."""
    by_site: dict[str, list[str]] = {}
    for node, site in sites.items():
        by_site.setdefault(site, []).append(node)
    of = groups(machines, by_site)
    known = {*sites, *by_site}
    return tuple(Wave(n, tuple(of[n])) if n in of and n not in known else Wave(n) for n in names)


def in_waves(spec: RolloutSpec, sites: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """The nodes of each wave; nobody is in two. ``sites``: node -> site.

    A share is counted over every node, and takes in those of the waves before it; who is next is decided
    by a digest of release and name, so that it is not the same machine each time.
    """
    order = sorted(sites, key=lambda node: hashlib.sha256(f"{spec.sha256}/{node}".encode()).digest())
    before: set[str] = set()
    found = []
    for wave in spec.waves:
        new = _new_in(wave, order, before, sites)
        found.append(tuple(sorted(new)))
        before |= new
    return tuple(found)


def _new_in(wave: Wave, order: Sequence[str], before: set[str], sites: Mapping[str, str]) -> set[str]:
    if percent := _PERCENT.fullmatch(wave.name):
        more = math.ceil(len(order) * float(percent[1]) / 100 - 1e-9) - len(before)
        return set([node for node in order if node not in before][: max(more, 0)])
    if wave.name == ALL:
        return set(order) - before
    named = {*wave.members} or {wave.name}
    return {node for node, site in sites.items() if node in named or site in named} - before


def places(spec: RolloutSpec, waves: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Nodes and sites of all waves as they are written, so that later nodes of a site count; none: all."""
    found: set[str] = set()
    for wave, nodes in zip(spec.waves, waves, strict=True):
        percent = _PERCENT.fullmatch(wave.name)
        if wave.name == ALL or (percent and float(percent[1]) == 100):
            return ()
        found |= set(nodes) if percent else {*wave.members} or {wave.name}
    return tuple(sorted(found))


# --- when a wave may begin ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """Days of the week (0: Monday) on which it opens, and seconds of the day; it may go on over midnight."""

    days: frozenset[int]
    begins: float
    ends: float


def window(text: str) -> Window | str:
    """A window as people write it, or what is wrong with it.

    >>> window("sat sun 22:00-04:00").begins
    79200.0
    >>> window("22:00")
    "'22:00' is no window: write it as `sat sun 22:00-04:00`, UTC"
    """
    *days, times = text.split() or [""]
    begins, dash, ends = times.partition("-")
    bad = not dash or time_of_day(begins) or time_of_day(ends) or begins == ends
    if bad or days_of_week(days or DAYS):
        return f"{text!r:.40} is no window: write it as `sat sun 22:00-04:00`, UTC"
    return Window(frozenset(map(DAYS.index, days or DAYS)), _seconds(begins), _seconds(ends))


def _seconds(text: str) -> float:
    hours, minutes = text.split(":")
    return int(hours) * 3600.0 + int(minutes) * 60.0


def bad_windows(texts: Iterable[Any]) -> str:
    """What is wrong with a list of windows, or ''."""
    found = (window(text) if isinstance(text, str) else f"{text!r:.40} is no window" for text in texts)
    return next((each for each in found if isinstance(each, str)), "")


def opens(windows: Sequence[str], now: float) -> float | None:
    """When a wave may begin: ``now`` (epoch s) inside a window or without any, else when the next opens."""
    if not windows:
        return now
    return min((at for text in windows if (at := _opens(window(text), now)) is not None), default=None)


def _opens(each: Window | str, now: float) -> float | None:
    if isinstance(each, str):
        return None
    today = int(now // DAY_S)
    length = (each.ends - each.begins) % DAY_S
    for day in range(today - 1, today + 9):
        begins = day * DAY_S + each.begins
        if (day + _FIRST) % 7 in each.days and now < begins + length:
            return max(now, begins)
    return None


# --- what is usual, in reuna.toml ---------------------------------------------------------------------


def _bad_waves(values: Any) -> str:
    if not 1 <= len(values) <= MAX_WAVES:
        return f"has {len(values)} waves, 1 to {MAX_WAVES} are possible"
    wrong = [value for value in values if not isinstance(value, str) or _bad_type(value)]
    return (
        f"names {wrong[0]!r:.40}: a node, a site, a type of machine, a share as 25%, or all" if wrong else ""
    )


def _bad_type(name: str) -> str:
    return "" if name.strip() and len(name) <= 63 and not ("%" in name and _bad_wave(name)) else name


USUAL = Terms()
ROLLOUT: tuple[Option, ...] = (
    Option(
        "rollout.waves",
        list,
        [ALL],
        "nodes, sites, types of `[machines]` or shares as `25%`, one after the other; `all`: every node",
        check=_bad_waves,
    ),
    Option(
        "rollout.shadow_s",
        float,
        USUAL.shadow_s,
        "how long a release runs beside what is live before the first wave; 0: not at all",
        "s",
        between(0, LONGEST_S),
    ),
    Option(
        "rollout.soak_s",
        float,
        USUAL.soak_s,
        "how long a wave holds before the next",
        "s",
        between(0, LONGEST_S),
    ),
    Option(
        "rollout.success",
        float,
        USUAL.success,
        "share of a wave that has to confirm the release",
        check=between(0, 1),
    ),
    Option(
        "rollout.errors",
        float,
        USUAL.errors,
        "share of a wave that may go back; one more ends the rollout everywhere",
        check=between(0, 1),
    ),
    Option(
        "rollout.offline",
        float,
        USUAL.offline,
        "share of a wave that may be silent at its deadline; those join late, more pause the rollout",
        check=between(0, 1),
    ),
    Option(
        "rollout.deadline_s",
        float,
        USUAL.deadline_s,
        "how long a wave waits for nodes that are silent",
        "s",
        between(1e-3, LONGEST_S),
    ),
    Option(
        "rollout.windows",
        list,
        [],
        "when a wave may begin, UTC, as `sat sun 22:00-04:00`; none: at any time",
        check=bad_windows,
    ),
)


@dataclass(frozen=True)
class RolloutSettings:
    """``[rollout]``, checked."""

    waves: tuple[str, ...] = (ALL,)
    terms: Terms = USUAL


def rollout_settings(values: Mapping[str, Any]) -> RolloutSettings:
    """The section out of all values of a project."""
    said = {name: values[f"rollout.{name}"] for name in Terms.__struct_fields__}
    terms = Terms(**{**said, "windows": tuple(said["windows"])})
    return RolloutSettings(tuple(values["rollout.waves"]), terms)
