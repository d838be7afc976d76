"""What alarms of many machines say together: the process moved, a machine is sick, a sensor broke. Pure.

A release that breaks its rules of health where no other does better is an alarm too (`unfit`).

    found = judge(heard)          # what each node told last -> findings, the widest first

A signal that has moved at `SHARE` or more of a cohort's machines has moved with the process, until there is
no machine left at which it has: they get well one after the other. All else belongs to single machines: one
signal is a sensor, several are a machine. Of a cohort with fewer than `FEW` machines nobody can say what
moved everywhere. Each project is judged by itself. Labels that came later say another thing: that a model
errs more than it did, which is the concept.

>>> press = [Heard(f"edge-{n}", "oulu", moved=("oil",), alarm=True) for n in (1, 2, 3)]
>>> [(each.kind, each.signals) for each in judge([*press, Heard("edge-4", "oulu")])]
[('process', ('oil',))]
>>> [(each.kind, each.nodes) for each in judge([press[0], Heard("e-2", "oulu"), Heard("e-3", "oulu")])]
[('sensor', ('edge-1',))]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from reuna.core.operating import Operating
from reuna.core.trigger import Sign

Kind = Literal["process", "machine", "sensor", "concept", "release"]
ORDER: tuple[Kind, ...] = ("process", "machine", "sensor", "concept", "release")
SHARE = 0.5  #: of a cohort's machines, at which a signal has moved everywhere
FEW = 3  #: machines of a cohort, below which there is no everywhere


class Heard(msgspec.Struct, frozen=True):
    """What a node told last of a project. ``moved``: signals that did; ``alarm``: all together did.

    ``errors``: those of its answers have risen.
    """

    node: str
    site: str
    cohort: str = ""
    alarm: bool = False
    moved: tuple[str, ...] = ()
    project: str = ""
    errors: bool = False


class Finding(msgspec.Struct, frozen=True):
    """What moved, where. No signals: each of them a little, all together more than chance makes.

    Of a release: its ``project``, and which rules it breaks, ``why``.
    """

    kind: Kind
    nodes: tuple[str, ...]
    sites: tuple[str, ...]
    signals: tuple[str, ...] = ()
    cohort: str = ""
    project: str = ""
    why: str = ""


def judge(heard: Iterable[Heard], before: Iterable[Finding] = ()) -> tuple[Finding, ...]:
    """The findings of each project and cohort, the widest first. A node counts once, with what it told last.

    ``before``: what was found at the last look.
    """
    known = {(x.project, x.cohort): frozenset(x.signals) for x in before if x.kind == "process"}
    latest = {(each.project, each.node): each for each in heard}
    found: list[Finding] = []
    for project, cohort in sorted({(each.project, each.cohort) for each in latest.values()}):
        members = [x for x in latest.values() if (x.project, x.cohort) == (project, cohort)]
        moved_before = known.get((project, cohort), frozenset())
        everywhere = _everywhere(members) | (moved_before & _somewhere(members))
        if everywhere:
            found.append(_process(members, everywhere))
        found += [_single(each, everywhere) for each in members if _own(each, everywhere)]
        found += [_concept(each) for each in members if each.errors]
    return tuple(sorted(found, key=lambda x: (ORDER.index(x.kind), x.project, x.cohort, x.nodes)))


def unfit(told: Mapping[str, Sequence[Operating]], sites: Mapping[str, str]) -> tuple[Finding, ...]:
    """Projects whose release gives the safe answer alone; ``told``: by node, ``sites``: node -> site.

    >>> one = Operating("pumps", 3, "0" * 64, "confirmed", "latency", muted=True)
    >>> [(each.nodes, each.why) for each in unfit({"edge-1": [one]}, {"edge-1": "oulu"})]
    [(('edge-1',), 'latency')]
    """
    muted: dict[str, dict[str, str]] = {}
    for node in sorted(told):
        for each in told[node]:
            if each.muted and node in sites:
                muted.setdefault(each.project, {})[node] = each.reason
    return tuple(
        Finding(
            "release",
            tuple(nodes),
            tuple(sorted({sites[node] for node in nodes})),
            project=project,
            why=", ".join(sorted({why for why in nodes.values() if why})),
        )
        for project, nodes in sorted(muted.items())
    )


def sentence(found: Finding) -> str:
    """As people read it."""
    where = ", ".join(found.nodes)
    if found.kind == "release":
        what = f"what runs of {found.project} at {where} breaks its rules ({found.why})"
        return f"{what}, and nothing before does better: the safe answer is given"
    what = ", ".join(found.signals) or "many signals a little"
    if found.kind == "process":
        machines = f"{len(found.nodes)} machine{'s' if len(found.nodes) > 1 else ''}"
        return f"the process moved at {machines} ({where}): {what}"
    if found.kind == "sensor":
        return f"one signal moved at {where} alone, perhaps its sensor: {what}"
    if found.kind == "concept":
        return f"errors at {where} have risen, by labels that came later: what is to be learnt has changed"
    return f"{where} differs from what it was, and others do not: {what}"


def _everywhere(members: Sequence[Heard]) -> frozenset[str]:
    if len(members) < FEW:
        return frozenset()
    counts = Counter(signal for each in members for signal in set(each.moved))
    return frozenset(signal for signal, count in counts.items() if count >= SHARE * len(members))


def _somewhere(members: Sequence[Heard]) -> frozenset[str]:
    return frozenset(signal for each in members for signal in each.moved)


def _process(members: Sequence[Heard], everywhere: frozenset[str]) -> Finding:
    moved = sorted((each for each in members if everywhere.intersection(each.moved)), key=lambda x: x.node)
    sites = sorted({each.site for each in moved})
    nodes, first = tuple(each.node for each in moved), moved[0]
    return Finding("process", nodes, tuple(sites), tuple(sorted(everywhere)), first.cohort, first.project)


def _concept(each: Heard) -> Finding:
    return Finding("concept", (each.node,), (each.site,), (), each.cohort, each.project)


def _own(each: Heard, everywhere: frozenset[str]) -> bool:
    """Whether something moved at this machine that did not move everywhere."""
    if each.moved:
        return not everywhere.issuperset(each.moved)
    return each.alarm


def _single(each: Heard, everywhere: frozenset[str]) -> Finding:
    signals = tuple(name for name in each.moved if name not in everywhere)
    kind: Kind = "sensor" if len(signals) == 1 else "machine"
    return Finding(kind, (each.node,), (each.site,), signals, each.cohort, each.project)


# --- alarms: findings over time -----------------------------------------------------------------------

MOST_ALARMS = 1000  #: that are kept, the newest


class Alarm(msgspec.Struct, frozen=True):
    """A finding from when it was there first (epoch s) until it was gone; 0: it still is.

    ``by`` has seen it, at ``seen`` (epoch s), and says ``note``. ``told``: where word of it was sent.
    """

    id: str
    finding: Finding
    since: float
    ended: float = 0.0
    by: str = ""
    seen: float = 0.0
    note: str = ""
    told: tuple[str, ...] = ()


def key(found: Finding) -> str:
    """What stays the same while a finding grows: a process of a cohort, a project's release, one machine, or
    what errs there.
    """
    if found.kind == "release":
        return f"release/{found.project}"
    if found.kind == "process":
        return f"process/{found.project}/{found.cohort}"
    return f"{'concept' if found.kind == 'concept' else 'machine'}/{found.project}/{found.nodes[0]}"


def raised(alarms: Sequence[Alarm], findings: Iterable[Finding], now: float) -> tuple[Alarm, ...]:
    """The alarms after a look at what is found now: new ones, those that go on, those that have ended."""
    open_now = {key(each): each for each in findings}
    after = []
    for each in alarms:
        found = None if each.ended else open_now.pop(key(each.finding), None)
        ends = found is None and not each.ended
        after.append(replace(each, ended=now) if ends else replace(each, finding=found or each.finding))
    first = max((int(each.id) for each in alarms), default=0) + 1
    new = (Alarm(str(number), each, now) for number, each in enumerate(open_now.values(), first))
    return (*after, *new)[-MOST_ALARMS:]


def acknowledged(
    alarms: Sequence[Alarm], number: str, who: str, note: str, now: float
) -> tuple[Alarm, ...] | None:
    """The alarms once somebody says that they have seen one; None when there is no such."""
    if number not in {each.id for each in alarms}:
        return None
    return tuple(replace(each, by=who, seen=now, note=note) if each.id == number else each for each in alarms)


def sent(alarms: Sequence[Alarm], number: str, channel: str) -> tuple[Alarm, ...]:
    """The alarms once word of one was sent over a channel."""
    return tuple(replace(each, told=(*each.told, channel)) if each.id == number else each for each in alarms)


def unsent(alarms: Iterable[Alarm], channels: Sequence[str]) -> list[tuple[Alarm, str]]:
    """What has to be sent where, the oldest first; nothing of what has ended or was seen before."""
    return [
        (each, channel)
        for each in alarms
        for channel in channels
        if not each.ended and not each.by and channel not in each.told
    ]


def signs(alarms: Iterable[Alarm], kinds: Collection[str], project: str) -> dict[str, Sign]:
    """What may begin a run of a project: alarms of these kinds that go on and that nobody has seen.

    What a node says that names no project is of each.
    """
    return {
        f"alarm/{each.id}": Sign(each.finding.nodes, sentence(each.finding))
        for each in alarms
        if not each.ended and not each.by and each.finding.kind in kinds
        if each.finding.project in ("", project)
    }
