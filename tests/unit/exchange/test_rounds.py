"""A node's rounds: counted always, told where they are traced."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from reuna.core.errors import Refused
from reuna.core.figures import Figure
from reuna.core.records import Event
from reuna.exchange.rounds import Rounds
from tests.unit.core.test_trace import PLAN


class Now:
    def now(self) -> float:
        return 100.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError


async def test_a_round_is_counted_and_nobody_is_told_where_nothing_is_traced() -> None:
    rounds = Rounds("e1", "b", None, Now())
    rounds.done(PLAN, 97.5)
    assert not rounds._telling
    assert rounds.worked.figures()[1] == Figure("reuna_round_seconds_total", 2.5, ("train",))


async def test_where_rounds_are_traced_the_cloud_hears_how_long_each_took() -> None:
    told: list[Event] = []

    async def emit(event: Event) -> bool:
        told.append(event)
        return True

    rounds = Rounds("e1", "b", emit, Now())
    rounds.done(PLAN, 97.5)
    rounds.done(msgspec.structs.replace(PLAN, round=2), 200.0)  # the clock was set back
    rounds.done(msgspec.structs.replace(PLAN, task="check"), 97.5)
    await asyncio.gather(*rounds._telling)
    assert told == [
        Event(
            "e1", "b/worked", 0, 100.0, "worked", "r-1", 1, {"task": "train", "attempt": 1, "seconds": 2.5}
        ),
        Event(
            "e1", "b/worked", 1, 100.0, "worked", "r-1", 2, {"task": "train", "attempt": 1, "seconds": 0.0}
        ),
    ]


async def test_what_the_policy_keeps_here_ends_no_round(caplog: pytest.LogCaptureFixture) -> None:
    async def emit(_event: Event) -> bool:
        raise Refused("policy", "no rule")

    rounds = Rounds("e1", "b", emit, Now())
    with caplog.at_level(logging.INFO):
        rounds.done(PLAN, 97.5)
        await asyncio.gather(*rounds._telling)
    assert "is not told" in caplog.text
