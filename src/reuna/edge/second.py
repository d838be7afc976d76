"""Asks the fog about windows that a release is unsure of, and goes on without it when it does not answer.

The answers of some windows wait for the fog at most `fog_timeout_s`, together. A fog that is away, late or
full is then left alone for a while, so that live answers are not held up by each window anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from reuna.core.errors import Refused, ReunaError, Unreachable
from reuna.core.grid import Rows
from reuna.core.inference import Inference, doubt
from reuna.core.outcomes import Outcome, Word
from reuna.core.packed import MAX_CELLS, packed
from reuna.core.second import MOST_WINDOWS, Doubtful, Opinions, alone, decided
from reuna.exchange.predict import Held

log = logging.getLogger("reuna.second")
FIRST_S, LAST_S = 1.0, 30.0  #: a fog that did not answer is not asked for so long
SLACK_S = 0.5  #: by which the egress itself may be late
WORDS: dict[str, Word] = {"policy": "policy", "late": "late", "full": "full"}  #: by the reason of a refusal


class Advise(Protocol):
    """See `reuna.exchange.link.Fog.advise`."""

    async def __call__(self, asked: Doubtful) -> Opinions: ...


@dataclass(frozen=True)
class Unsure:
    """A window that the fog is asked about: its place among those answered, and why."""

    number: int
    why: str


class SecondOpinion:
    """Of one live inference. ``ticks``: seconds by a clock that nobody sets."""

    def __init__(self, advise: Advise, ticks: Callable[[], float]) -> None:
        self._advise = advise
        self._ticks = ticks
        self._pause = 0.0
        self._again_at = -1.0
        self._last: Word = "away"
        self._said = ""

    async def of(self, held: Held, rows: Rows, own: Sequence[Outcome]) -> list[Outcome]:
        """What is said of each window in the end; ``own``: what the release says, all windows of the rows."""
        rules, found = held.placed, list(own)
        unsure = [
            Unsure(number, why)
            for number, each in enumerate(own)
            if each.output and (why := doubt(rules, each.confidence))
        ]
        most = max(1, min(MOST_WINDOWS, MAX_CELLS // max(1, _cells(held))))
        for first in range(0, len(unsure), most):
            some = unsure[first : first + most]
            for each, outcome in zip(some, await self._ask(held, rules, rows, own, some), strict=True):
                found[each.number] = outcome
        return found

    async def _ask(
        self, held: Held, rules: Inference, rows: Rows, own: Sequence[Outcome], some: Sequence[Unsure]
    ) -> list[Outcome]:
        """Their outcomes, after one question at most."""
        began, project = self._ticks(), rules.fog_project
        if began < self._again_at:
            return [alone(own[each.number], project, self._last, each.why) for each in some]
        told = await self._opinions(_question(held, rules, rows, some))
        took_ms = (self._ticks() - began) * 1000
        if isinstance(told, str):
            return [alone(own[each.number], project, told, each.why, took_ms) for each in some]
        return [
            decided(own[each.number], project, told, said, each.why, took_ms)
            for each, said in zip(some, told.windows, strict=True)
        ]

    async def _opinions(self, asked: Doubtful) -> Opinions | Word:
        """What the fog says, or what became of asking it."""
        try:
            found = await asyncio.wait_for(self._advise(asked), asked.within_s + SLACK_S)
        except TimeoutError:
            return self._failed("late", f"it said nothing for {asked.within_s:g} s")
        except Refused as refusal:
            return self._failed(WORDS.get(refusal.reason, "refused"), str(refusal))
        except Unreachable as error:
            return self._failed("away", f"{error.code} {error}")
        except ReunaError as error:  # an answer that is none of ours, a disk on which no ledger can be kept
            return self._failed("refused", f"{error.code} {error}")
        if self._said:
            log.info("the fog answers again")
        self._pause, self._said = 0.0, ""
        return found

    def _failed(self, word: Word, why: str) -> Word:
        if word != self._said:
            log.warning("windows are decided without the fog (%s): %s", word, why)
        self._last = self._said = word
        if word != "policy":  # which is asked here, and may be another one at any moment
            self._pause = min(max(FIRST_S, 2 * self._pause), LAST_S)
            self._again_at = self._ticks() + self._pause
        return word


def _cells(held: Held) -> int:
    """Of one window."""
    return (held.before + held.length) * len(held.signals)


def _question(held: Held, rules: Inference, rows: Rows, some: Sequence[Unsure]) -> Doubtful:
    starts = (rows.before + each.number * held.step for each in some)
    units = {each.name: each.unit for each in held.agreed.signals if each.name in rows.cells}
    return Doubtful(
        rules.fog_project,
        held.agreed.every_s or 0.0,
        rows.every_ns,
        units,
        tuple(packed(rows, start, held.length, held.before) for start in starts),
        rules.fog_timeout_s,
    )
