"""Whom a round asks, and with how many of them it is closed. Pure.

With ``cohort`` K and ``over_select`` f a round asks ``ceil(K * f)`` of the run's nodes and is closed once K
gave. Who is asked depends on the run's seed, the round, the attempt, and on who was away in the rounds
before, which stands in the run's journal: a restarted cloud asks the same nodes.

>>> chosen([f"edge-{number}" for number in range(6)], 7, 1, 1, 2, {})
('edge-4', 'edge-5')
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping

from reuna.core.records import AWAY, SPARED, UNHEARD, Asking, Member
from reuna.core.tree import Tree, fogs_under

ATTEMPTS_OF_A_LIFE = 2**20  #: while officers decide there is one every 30 s: a year of them
RESTS = 10  #: rounds in which a node that was away is asked only when there are too few others


def is_first(attempt: int) -> bool:
    """Whether a life of the run begins a round with that attempt."""
    return attempt % ATTEMPTS_OF_A_LIFE == 1


def wanted(nodes: int, asking: Asking) -> int:
    """How many of so many nodes are to give to a round."""
    return min(nodes, asking.cohort) if asking.cohort else nodes


def least(quorum: float, nodes: int, asking: Asking) -> int:
    """How many of so many nodes must give; ``quorum`` is a fraction of those who are to."""
    return max(1, math.ceil(quorum * wanted(nodes, asking) - 1e-9))


def asked(nodes: int, asking: Asking) -> int:
    """How many of so many nodes are asked."""
    return min(nodes, math.ceil(wanted(nodes, asking) * asking.over_select - 1e-9))


def chosen(
    nodes: Collection[str], seed: int, round: int, attempt: int, count: int, away: Mapping[str, int]
) -> tuple[str, ...]:
    """``count`` of the nodes, sorted. ``away``: node -> the last round in which it was found away.

    By chance; who was away lately comes after all others, who was away longest ago first.
    """
    if count >= len(nodes):
        return tuple(sorted(nodes))

    def place(node: str) -> tuple[int, bytes]:
        last = away.get(node, -RESTS)
        late = last if round - last <= RESTS else -RESTS
        return late, hashlib.sha256(f"{seed}/{round}/{attempt}/{node}".encode()).digest()

    return tuple(sorted(sorted(nodes, key=place)[:count]))


def away_after(away: Mapping[str, int], number: int, members: Iterable[Member]) -> dict[str, int]:
    """Who was found away in a round, beside those before who were not heard of since."""
    found = dict(away)
    for member in members:
        if member.absent in (AWAY, UNHEARD):
            found[member.node] = number
        elif member.absent != SPARED:
            found.pop(member.node, None)
    return dict(sorted(found.items()))


def paces(before: Mapping[str, int], gave: Mapping[str, int]) -> dict[str, int]:
    """How many updates each parent gave lately, more recent ones counting more; whole numbers."""
    return {name: (before.get(name, 0) + 1) // 2 + gave.get(name, 0) for name in sorted({*before, *gave})}


def pace_of(tree: Tree, fog: str, pace: Mapping[str, int]) -> int:
    """How many updates came lately through a fog; ``pace``: of the edges directly under each.

    >>> pace_of({"firm": ("kiln", "north"), "north": ("a", "b")}, "firm", {"firm": 1, "north": 4, "lab": 9})
    5
    """
    return sum(pace.get(each, 0) for each in fogs_under(tree, fog))


def at_pace(sizes: Mapping[str, int], pace: Mapping[str, int], total: int) -> dict[str, int]:
    """With how many updates each parent goes on, so that all together have ``total`` at about the same time.

    ``pace``: how many each gave lately, by which they are dealt, else by size. Rounded up, from 1 to its
    size: one that is slow is needed for little, and often not at all.

    >>> at_pace({"fog-1": 10, "fog-2": 10}, {"fog-1": 19, "fog-2": 1}, 10)
    {'fog-1': 10, 'fog-2': 1}
    """
    weights = {name: max(1, pace.get(name, 0)) for name in sizes} if any(pace.values()) else sizes
    whole = sum(weights.values())
    return {name: min(size, -(-weights[name] * total // whole)) for name, size in sizes.items()}


def shares(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """``total`` dealt to parents in proportion to their ``sizes``, none more than its size.

    They add up to ``total`` exactly where the sizes do reach it: largest remainders, then names.

    >>> shares({"fog-1": 3, "fog-2": 3, "fog-3": 6}, 10)
    {'fog-1': 3, 'fog-2': 2, 'fog-3': 5}
    """
    whole = sum(sizes.values())
    if total >= whole:
        return dict(sizes)
    dealt = {name: size * total // whole for name, size in sizes.items()}
    left = sorted(sizes, key=lambda name: (-(sizes[name] * total % whole), name))
    for name in left[: total - sum(dealt.values())]:
        dealt[name] += 1
    return dealt
