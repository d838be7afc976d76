"""What alarms of many machines say together: the process moved, a machine is sick, a sensor broke. Pure.

    found = judge(heard)          # what each node told last -> findings, the widest first

A signal that has moved at `SHARE` or more of a cohort's machines has moved with the process. What is left
belongs to single machines: one signal is a sensor, several are a machine. Of a cohort with fewer than `FEW`
machines nobody can say what moved everywhere.

>>> press = [Heard(f"edge-{n}", "oulu", moved=("oil",), alarm=True) for n in (1, 2, 3)]
>>> [(each.kind, each.signals) for each in judge([*press, Heard("edge-4", "oulu")])]
[('process', ('oil',))]
>>> [(each.kind, each.nodes) for each in judge([press[0], Heard("e-2", "oulu"), Heard("e-3", "oulu")])]
[('sensor', ('edge-1',))]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Kind = Literal["process", "machine", "sensor"]
ORDER: tuple[Kind, ...] = ("process", "machine", "sensor")
SHARE = 0.5  #: of a cohort's machines, at which a signal has moved everywhere
FEW = 3  #: machines of a cohort, below which there is no everywhere


class Heard(msgspec.Struct, frozen=True):
    """What a node told last. ``moved``: signals that did by themselves; ``alarm``: all together did."""

    node: str
    site: str
    cohort: str = ""
    alarm: bool = False
    moved: tuple[str, ...] = ()


class Finding(msgspec.Struct, frozen=True):
    """What moved, where. No signals: each of them a little, all together more than chance makes."""

    kind: Kind
    nodes: tuple[str, ...]
    sites: tuple[str, ...]
    signals: tuple[str, ...] = ()
    cohort: str = ""


def judge(heard: Iterable[Heard]) -> tuple[Finding, ...]:
    """The findings of each cohort, the widest first. A node counts once, with what it told last."""
    nodes = {each.node: each for each in heard}
    found: list[Finding] = []
    for cohort in sorted({each.cohort for each in nodes.values()}):
        members = [each for each in nodes.values() if each.cohort == cohort]
        everywhere = _everywhere(members)
        if everywhere:
            found.append(_process(cohort, members, everywhere))
        found += [_single(each, everywhere) for each in members if _own(each, everywhere)]
    return tuple(sorted(found, key=lambda each: (ORDER.index(each.kind), each.cohort, each.nodes)))


def sentence(found: Finding) -> str:
    """As people read it."""
    what = ", ".join(found.signals) or "many signals a little"
    where = ", ".join(found.nodes)
    if found.kind == "process":
        return f"the process moved at {len(found.nodes)} machines ({where}): {what}"
    if found.kind == "sensor":
        return f"one signal moved at {where} alone, perhaps its sensor: {what}"
    return f"{where} differs from what it was, and others do not: {what}"


def _everywhere(members: Sequence[Heard]) -> frozenset[str]:
    if len(members) < FEW:
        return frozenset()
    counts = Counter(signal for each in members for signal in set(each.moved))
    return frozenset(signal for signal, count in counts.items() if count >= SHARE * len(members))


def _process(cohort: str, members: Sequence[Heard], everywhere: frozenset[str]) -> Finding:
    moved = sorted((each for each in members if everywhere.intersection(each.moved)), key=lambda x: x.node)
    sites = sorted({each.site for each in moved})
    return Finding(
        "process", tuple(each.node for each in moved), tuple(sites), tuple(sorted(everywhere)), cohort
    )


def _own(each: Heard, everywhere: frozenset[str]) -> bool:
    """Whether something moved at this machine that did not move everywhere."""
    if each.moved:
        return not everywhere.issuperset(each.moved)
    return each.alarm


def _single(each: Heard, everywhere: frozenset[str]) -> Finding:
    signals = tuple(name for name in each.moved if name not in everywhere)
    kind: Kind = "sensor" if len(signals) == 1 else "machine"
    return Finding(kind, (each.node,), (each.site,), signals, each.cohort)
