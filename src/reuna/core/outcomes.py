"""What a release said of one window, and how that is counted.

>>> one = Outcome("pumps", 3, "0" * 64, 0, 11 * 10**9, "answered", 1.0, (0.2, 0.8), took_ms=4.0)
>>> one.confidence, counted([one, one]).states, counted([one]).took_ms["p99"]
(0.8, {'answered': 2}, 4.0)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

State = Literal["answered", "mended", "safe"]
Place = Literal["edge", "fog"]
STATES: tuple[State, ...] = ("answered", "mended", "safe")
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
#: What became of asking the fog: it decided; it was unsure as well; it is away; its answer came too late; it
#: has too much to do, or no such model; the site's policy keeps the window here.
Word = Literal["answered", "unsure", "away", "late", "full", "refused", "policy"]
SUM = 1e-3  #: by which probabilities in float32 may miss one


class Window(msgspec.Struct, frozen=True):
    """What the rules say of a window: ``good``, ``mended`` or ``refused``, and of the first cell why."""

    state: Literal["good", "mended", "refused"]
    why: str = ""


class Second(msgspec.Struct, frozen=True, omit_defaults=True):
    """A window about which the fog was asked. ``project`` is the fog's, and so are ``version`` and
    ``release`` if it ``answered``; ``own``: what the edge had said; ``took_ms``: of the asking.
    """

    word: Word
    project: str
    version: int = 0
    release: str = ""
    own: float | None = None
    took_ms: float = 0.0


class Outcome(msgspec.Struct, frozen=True):
    """One window, answered once. Times are source times, ns since the epoch, of its first and last row.

    ``state``: the model's answer, the same after mending, or the safe one (`reuna.core.fallback`), and
    ``why``. ``answer``: a class, or the model's number; None where there is none. ``output``: the graph's.
    ``took_ms``: from the window being asked for to this outcome, of which ``features_ms`` made the features
    and ``graph_ms`` ran the graph. ``release``: digest. ``fog``: what became of asking it, None where it was
    not;
    if it ``answered``, state, answer and output are its own. ``failed``: the rules took the window, and the
    release made nothing of it that could be used; its being unsure is none.
    """

    project: str
    version: int
    release: str
    first_ns: int
    last_ns: int
    state: State
    answer: float | None
    output: tuple[float, ...] = ()
    why: str = ""
    took_ms: float = 0.0
    features_ms: float = 0.0
    graph_ms: float = 0.0
    fog: Second | None = None
    failed: bool = False

    @property
    def place(self) -> Place:
        """Where it was decided."""
        return "fog" if self.fog is not None and self.fog.word == "answered" else "edge"

    @property
    def own(self) -> float | None:
        """What the edge's own release said."""
        return self.answer if self.fog is None else self.fog.own

    @property
    def own_ms(self) -> float:
        """How long it took without the fog."""
        return self.took_ms - (0.0 if self.fog is None else self.fog.took_ms)

    @property
    def confidence(self) -> float | None:
        """Probability of the likeliest class; None where the outputs are no probabilities."""
        some = self.output
        if len(some) < 2 or not all(map(math.isfinite, some)) or min(some) < 0 or abs(sum(some) - 1) > SUM:
            return None
        return max(some)

    def agrees(self, other: Outcome) -> bool:
        """Whether another release says the same: the same class, or the same number; None is its own."""
        return self.own == other.own


@dataclass(frozen=True)
class Counts:
    """Of some outcomes: how many by state, by place, and by what became of asking the fog; percentiles of the
    times of those that the graph ran for.
    """

    states: dict[str, int]
    places: dict[str, int]
    fog: dict[str, int]
    took_ms: dict[str, float]
    features_ms: dict[str, float]
    graph_ms: dict[str, float]


def counted(outcomes: Iterable[Outcome]) -> Counts:
    """States and percentiles."""
    every = list(outcomes)
    ran = [each for each in every if each.output]
    found = Counter(each.state for each in every)
    return Counts(
        {state: found[state] for state in STATES if state in found},
        dict(sorted(Counter(each.place for each in every).items())),
        dict(sorted(Counter(each.fog.word for each in every if each.fog is not None).items())),
        percentiles([each.took_ms for each in ran]),
        percentiles([each.features_ms for each in ran]),
        percentiles([each.graph_ms for each in ran]),
    )


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """By their names, each a value that there is (nearest rank); nothing of no values."""
    ordered = sorted(values)
    return {
        name: ordered[max(0, math.ceil(part * len(ordered)) - 1)]
        for name, part in PERCENTILES.items()
        if ordered
    }
