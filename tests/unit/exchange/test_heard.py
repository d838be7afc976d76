"""A parent that asks, and a child that says when it is there: who lives is never away, whatever `round.away_s` is."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reuna.core.errors import SettingsError
from reuna.core.patience import again_s
from reuna.core.project import LEAST_AWAY_S, project_settings
from reuna.core.records import Hello, Plan
from reuna.core.settings import Source
from reuna.exchange.heard import ANSWERS_S, Heard
from reuna.exchange.presence import Presence
from reuna.learn.grid import Grid
from reuna.learn.strategies import TAKES
from reuna.sim.clock import run_virtual

PLAN = Plan(
    run="r", round=1, attempt=1, task="train", model="", model_size=1, params=1, cohort=("press",), quorum=1,
    deadline_s=900.0, grid=Grid(32, -24), max_weight=1, capacity=2, seed=1, bundle="", bundle_size=0,
)  # fmt: skip
LINE_S = 0.3  #: a plan and its answer are on their way so long at most, each


def was_away(
    away_s: float,
    every_s: float,
    opened: float,
    line_s: float,
    dies: float | None = None,
    restart: bool = False,
) -> list[float]:
    """When it is away, looked at each 0.1 s, in the 30 s after its parent begins to ask it at ``opened``.

    ``dies``: from then on the child says nothing. ``restart``: the parent was started when it first asked.
    """

    async def live() -> list[float]:
        loop, heard = asyncio.get_running_loop(), [Heard()]
        plan = msgspec.structs.replace(PLAN, away_s=away_s)

        async def say(next_s: float) -> None:
            hello = Hello("press", "b", "1", every_s=next_s)
            if dies is None or loop.time() < dies:
                loop.call_later(line_s, lambda: heard[0].take(hello))

        async def work(_plan: bytes, _signed: bytes, _terms: object) -> None:
            """Takes longer than this test."""

        child = Presence(say, every_s)
        ear, tasks = child.answering(work), set()
        keeping = asyncio.create_task(child.keep())
        await asyncio.sleep(opened)
        if restart:
            heard[0] = Heard()
        found, due, times = list[float](), 0.0, 0
        while (now := loop.time()) < opened + 30:
            if now - opened >= due:
                heard[0].asks("press")
                loop.call_later(line_s, lambda: tasks.add(asyncio.ensure_future(ear(b"", b"", None))))
                times += 1
                due = now - opened + again_s(times, 0.3)
            if heard[0].away(plan, ("press",)):
                found.append(now)
            await asyncio.sleep(0.1)
        keeping.cancel()
        return found

    return run_virtual(live())


@settings(max_examples=40)
@example(LEAST_AWAY_S, 5.0, 7.6, 0.01, False)  # asked when it has just said that it is there
@example(LEAST_AWAY_S, 60.0, 31.6, 0.01, True)  # by a parent that has just been started
@given(
    st.floats(LEAST_AWAY_S, 20),
    st.floats(0.25, 90),
    st.floats(0, 700),
    st.floats(0.001, LINE_S),
    st.booleans(),
)
def test_who_lives_is_never_away(
    away_s: float, every_s: float, opened: float, line_s: float, restart: bool
) -> None:
    assert was_away(away_s, every_s, opened, line_s, restart=restart) == []


def test_who_is_dead_is_away_soon_after_it_would_have_answered() -> None:
    long_dead = was_away(2.0, 60.0, opened=100.0, line_s=0.01, dies=50.0)
    assert 102.0 <= long_dead[0] <= 102.0 + ANSWERS_S + 2, "asked by a parent that had asked nobody before"
    just_dead = was_away(2.0, 60.0, opened=32.0, line_s=0.01, dies=31.6)
    assert 32.0 + 2.0 < just_dead[0] < 32.0 + 2 * ANSWERS_S + 2.0
    usual = was_away(15.0, 60.0, opened=32.0, line_s=0.01, dies=31.6)
    assert 47.0 <= usual[0] < 47.5, "that it had just said so costs nothing where it is waited for longer"


def test_no_answer_can_be_asked_for_sooner_than_it_travels() -> None:
    def read(away_s: float) -> float:
        values = {"project": {"name": "p"}, "round": {"away_s": away_s}}
        return project_settings([Source("reuna.toml", values)], TAKES).asking.away_s

    with pytest.raises(SettingsError, match=r"round\.away_s is 0\.5, expected 1 or more"):
        read(0.5)
    assert [read(away_s) for away_s in (0, LEAST_AWAY_S)] == [0, LEAST_AWAY_S]
