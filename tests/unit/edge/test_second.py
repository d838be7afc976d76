"""Unsure windows wait for the fog a while, together; without it the edge goes on by what it declared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.core.errors import BadMessage, DiskFull, Refused, Unreachable
from reuna.core.fallback import Fallback, decide
from reuna.core.grid import Cells, Rows
from reuna.core.inference import Inference
from reuna.core.outcomes import Outcome
from reuna.core.second import MOST_WINDOWS, Doubtful, Opinion, Opinions
from reuna.edge import second
from reuna.edge.second import LAST_S, SecondOpinion
from tests.unit.edge.test_live import Echo, Plant, fed

RULES = Inference("edge-then-fog", "big", 0.8, 2.0)
LOW, HIGH = (0.4, 0.6), (0.1, 0.9)


class Fog:
    """Answers 9 to every window, unless it is told otherwise; a clock stands beside it."""

    def __init__(self) -> None:
        self.asked: list[Doubtful] = []
        self.fails: Exception | None = None
        self.hangs = False
        self.seconds = 0.0

    async def advise(self, asked: Doubtful) -> Opinions:
        self.asked.append(asked)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails
        return Opinions(7, "f" * 64, tuple(Opinion(True, False, 9.0, (0.02, 0.98)) for _ in asked.windows))

    def ticks(self) -> float:
        return self.seconds


class Small(Echo):
    """A model of two classes; ``outputs`` says of each window in turn what it makes of it."""

    def __init__(self, outputs: Iterator[tuple[float, ...]], rules: Inference = RULES, **more: Any) -> None:
        super().__init__(more.pop("fallback", Fallback(safe=-1.0)), **more)
        self.held = replace(self.held, placed=rules)
        self.outputs = outputs

    async def answer(self, rows: Rows) -> list[Outcome]:
        self.asked.append(rows)
        found = []
        for each in self.safe_for(rows, ""):
            output = next(self.outputs)
            said = decide(self.held.rules, output, "")
            state = "safe" if said.why else "answered"
            found.append(
                msgspec.structs.replace(each, state=state, answer=said.answer, output=output, why=said.why)
            )
        return found


def rows(windows: int) -> Rows:
    count = windows + 2
    return Rows(0, 10**9, count, {"a": Cells(np.arange(count, dtype=float), np.ones(count, bool))})


async def asked(
    fog: Fog, outputs: list[tuple[float, ...]], rules: Inference = RULES, **more: Any
) -> list[Outcome]:
    return await through(SecondOpinion(fog.advise, fog.ticks), outputs, rules, **more)


async def through(
    way: SecondOpinion, outputs: list[tuple[float, ...]], rules: Inference = RULES, **more: Any
) -> list[Outcome]:
    small, some = Small(iter(outputs), rules, **more), rows(len(outputs))
    return await way.of(small.held, some, await small.answer(some))


def words(outcomes: list[Outcome]) -> list[str | None]:
    return [None if each.fog is None else each.fog.word for each in outcomes]


async def test_only_what_the_edge_is_unsure_of_goes_to_the_fog_and_nothing_besides() -> None:
    fog = Fog()
    found = await asked(fog, [HIGH, LOW, HIGH, LOW])
    assert [each.answer for each in found] == [1.0, 9.0, 1.0, 9.0]
    assert words(found) == [None, "answered", None, "answered"]
    (question,) = fog.asked
    assert (question.project, question.every_s, question.units, question.within_s) == (
        "big",
        1.0,
        {"a": "bar"},
        2.0,
    )
    assert [each.first_ns for each in question.windows] == [10**9, 3 * 10**9]
    assert [np.frombuffer(each.cells["a"][0]).tolist() for each in question.windows] == [[1, 2, 3], [3, 4, 5]]


async def test_a_release_that_does_not_ask_is_left_alone() -> None:
    fog = Fog()
    assert words(await asked(fog, [LOW], Inference())) == [None]
    assert fog.asked == []


async def test_every_window_goes_where_that_is_said_also_of_a_model_without_classes() -> None:
    fog = Fog()
    found = await asked(fog, [HIGH, (3.0,)], Inference("edge-then-fog", "big", 1.0))
    assert words(found) == ["answered", "answered"]


async def test_a_window_that_the_rules_refuse_is_no_matter_of_confidence() -> None:
    fog, small = Fog(), Small(iter([]))
    refused = small.safe_for(rows(1), "a: missing")
    assert await SecondOpinion(fog.advise, fog.ticks).of(small.held, rows(1), refused) == refused
    assert fog.asked == []


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (Unreachable("cut"), "away"),
        (Refused("policy", "no rule"), "policy"),
        (Refused("full", "too many"), "full"),
        (Refused("late", "too late"), "late"),
        (Refused("no-model", "none"), "refused"),
        (BadMessage("what"), "refused"),
        (DiskFull("no ledger"), "refused"),
    ],
)
async def test_without_the_fog_the_edge_s_own_answer_stands_marked(error: Exception, word: str) -> None:
    fog = Fog()
    fog.fails = error
    (found,) = await asked(fog, [LOW])
    assert (found.place, found.state, found.answer, words([found])) == ("edge", "answered", 1.0, [word])
    assert found.why == f"unsure: confidence 0.6 is below 0.8; fog: {word}"


async def test_without_the_fog_the_safe_answer_is_given_where_that_is_declared() -> None:
    fog = Fog()
    doubts = Fallback(safe=-1.0, min_confidence=0.7)
    (found,) = await asked(fog, [LOW], fallback=doubts)
    assert (found.answer, found.state) == (9.0, "answered"), "with the fog its answer"
    fog.fails = Unreachable("cut")
    (found,) = await asked(fog, [LOW], fallback=doubts)
    assert (found.answer, found.state) == (-1.0, "safe")


async def test_a_fog_that_says_nothing_holds_nobody_up_longer_than_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(second, "SLACK_S", 0.0)
    fog = Fog()
    fog.hangs = True
    assert words(await asked(fog, [LOW], Inference("edge-then-fog", "big", 0.8, 0.01))) == ["late"]


async def test_a_fog_that_failed_is_left_alone_for_longer_and_longer_and_asked_again() -> None:
    fog = Fog()
    way = SecondOpinion(fog.advise, fog.ticks)
    fog.fails = Unreachable("cut")
    tries = []
    for _ in range(200):
        before = len(fog.asked)
        assert words(await through(way, [LOW])) == ["away"]
        if len(fog.asked) > before:
            tries.append(fog.seconds)
        fog.seconds += 1
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert max(pauses) == LAST_S
    fog.fails = None
    fog.seconds += LAST_S
    assert words(await through(way, [LOW])) == ["answered"]
    assert words(await through(way, [LOW])) == ["answered"]


async def test_a_policy_that_says_no_is_asked_at_each_window() -> None:
    fog = Fog()
    way = SecondOpinion(fog.advise, fog.ticks)
    fog.fails = Refused("policy", "no rule")
    assert words(await through(way, [LOW])) == ["policy"]
    fog.fails = None
    assert words(await through(way, [LOW])) == ["answered"]


@given(st.lists(st.booleans(), min_size=1, max_size=200))
@settings(max_examples=25, deadline=None)
def test_each_window_gets_the_answer_that_is_its_own(unsure: list[bool]) -> None:
    fog = Fog()

    async def say(asked: Doubtful) -> Opinions:
        fog.asked.append(asked)
        return Opinions(7, "f", tuple(Opinion(True, False, each.first_ns / 1e9) for each in asked.windows))

    outputs: list[tuple[float, ...]] = [LOW if each else HIGH for each in unsure]
    found = asyncio.run(through(SecondOpinion(say, fog.ticks), outputs))
    assert [each.answer for each in found] == [float(n) if each else 1.0 for n, each in enumerate(unsure)]
    assert sum(len(each.windows) for each in fog.asked) == sum(unsure)
    assert all(len(each.windows) <= MOST_WINDOWS for each in fog.asked)


# --- in live inference ---------------------------------------------------------------------------


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.end()
    made.store.close()


def endless(*outputs: tuple[float, ...]) -> Iterator[tuple[float, ...]]:
    while True:
        yield from outputs


async def test_live_windows_are_answered_once_in_order_whatever_the_fog_does(plant: Plant) -> None:
    fog = Fog()
    plant.live._second = SecondOpinion(fog.advise, plant.day.ticks)
    await plant.live.use(Small(endless(HIGH, LOW)))  # type: ignore[arg-type]
    await fed(plant, range(10))
    fog.fails = Unreachable("cut")
    await fed(plant, range(10, 20))
    fog.fails = None
    await fed(plant, range(20, 60))
    firsts = [first for first, _, _ in plant.answered]
    assert firsts == list(range(len(firsts)))
    assert {*words([each for each, _ in plant.told])} == {None, "answered", "away"}
    assert words([plant.told[-1][0], plant.told[-2][0]]).count("answered") == 1, "it came back"
    kept = [each.outcome for each in plant.answers.stored.after(0, 100)]
    assert kept == [each for each, _ in plant.told]


async def test_a_release_is_watched_by_what_it_said_itself(plant: Plant) -> None:
    fog, watched = Fog(), list[Outcome]()

    async def watch(_held: Any, _rows: Any, outcomes: Any) -> None:
        watched.extend(outcomes)

    plant.live._second = SecondOpinion(fog.advise, plant.day.ticks)
    plant.live._watch = watch
    await plant.live.use(Small(endless(LOW)))  # type: ignore[arg-type]
    await fed(plant, range(6))
    assert watched
    assert {each.output for each in watched} == {LOW}
    assert {each.output for each, _ in plant.told} == {(0.02, 0.98)}


async def test_what_code_may_not_read_at_the_edge_does_not_go_to_the_fog(plant: Plant) -> None:
    fog, small = Fog(), Small(endless(LOW))
    small.columns = ()
    plant.live._second = SecondOpinion(fog.advise, plant.day.ticks)
    await plant.live.use(small)  # type: ignore[arg-type]
    await fed(plant, range(6))
    assert fog.asked
    assert all(window.cells == {} for each in fog.asked for window in each.windows)
