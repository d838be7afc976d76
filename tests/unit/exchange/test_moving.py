"""A round at its parent: held open for who moves, announced to who does not work on it; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reuna.core.patience import MOST, STILL_S
from reuna.core.records import Grid, Hello, Plan, Receipt
from reuna.exchange.intake import Away, Intake
from reuna.exchange.moving import short
from reuna.sim.clock import run_virtual
from reuna.sim.storage import MemoryBlobs, MemorySpool
from reuna.wire import encode, message_digest

DEADLINE_S = 100.0
PLAN = encode(
    Plan(
        "r-1", 1, 1, "train", "a" * 64, 72, 10, ("a", "b"), 1, DEADLINE_S, Grid(16, -10), 100, 4, 7,
        "b" * 64, 5, away_s=15.0,
    )
)  # fmt: skip


def _nobody(lacking: list[str]) -> list[str]:
    return []


class Parent:
    """An intake whose children never answer; says when its round ended and to whom it was announced."""

    def __init__(self) -> None:
        self.intake = Intake("fog", MemoryBlobs(), MemorySpool())
        self.announced: list[tuple[float, str]] = []
        self.held = 0  #: times that the parent's own parent was to be told
        self.intake.moving.on_held = self._hold

    def ends(self, *beside: Callable[[], object], away: Away = _nobody) -> float:
        """Seconds until the round ends while these run."""

        async def whole() -> float:
            self.intake.open({"a": PLAN, "b": PLAN})
            tasks = [asyncio.create_task(each()) for each in beside]  # type: ignore[arg-type]
            await self.intake.collect(self._announce, away)
            for task in tasks:
                task.cancel()
            return asyncio.get_running_loop().time()

        return round(run_virtual(whole()), 1)

    def _hold(self) -> None:
        self.held += 1

    async def _announce(self, child: str) -> None:
        self.announced.append((round(asyncio.get_running_loop().time(), 1), child))

    def uploading(self, bps: int, until_s: float = 1e9, size: int = 100_000) -> Callable[[], object]:
        """A transfer of ``a`` at so many bytes a second until a moment."""

        async def upload() -> None:
            done = 0
            while done < size:
                await asyncio.sleep(1.0)
                if asyncio.get_running_loop().time() <= until_s:
                    done = min(size, done + bps)
                self.intake.moves("a", "d" * 64, done, size)

        return upload


def test_a_round_whose_children_are_silent_ends_at_its_deadline() -> None:
    assert Parent().ends() == DEADLINE_S


def test_a_transfer_that_moves_holds_the_round_open_until_it_is_in() -> None:
    parent = Parent()
    ended = parent.ends(parent.uploading(bps=700))
    assert 142 < ended < MOST * DEADLINE_S


def test_a_round_is_over_when_all_that_lack_are_away_but_not_while_a_transfer_of_theirs_moves() -> None:
    still = Parent()
    assert still.ends(away=set) < 1
    moving = Parent()
    ended = moving.ends(moving.uploading(bps=2000), away=lambda lacking: (_now() >= 5 and lacking) or [])
    assert 50 + STILL_S <= ended < 53 + STILL_S, "who sends is there, though nothing else is heard of it"


def _now() -> float:
    return asyncio.get_running_loop().time()


def test_a_transfer_that_stops_moving_is_given_up_after_a_stated_time() -> None:
    parent = Parent()
    assert abs(parent.ends(parent.uploading(bps=700, until_s=110.0)) - (110.0 + STILL_S)) < 3


def test_a_transfer_that_trickles_for_ever_costs_no_second() -> None:
    parent = Parent()
    assert parent.ends(parent.uploading(bps=1)) == DEADLINE_S


def test_who_slows_down_when_the_round_is_held_open_reaches_the_bound_and_no_more() -> None:
    parent = Parent()

    async def slower() -> None:
        for second in range(10_000):
            await asyncio.sleep(1.0)
            parent.intake.moves("a", "d" * 64, 49_000 + second, 100_000 if second < 90 else 50_000)

    assert parent.ends(slower) <= MOST * DEADLINE_S


def test_somebody_who_was_not_asked_holds_nothing_open() -> None:
    parent = Parent()

    async def stranger() -> None:
        for done in range(10_000):
            await asyncio.sleep(1.0)
            parent.intake.moves("c", "d" * 64, done, 10_000)

    assert parent.ends(stranger) == DEADLINE_S


def test_a_fog_that_holds_its_own_round_open_is_waited_for_within_the_same_bound() -> None:
    parent = Parent()

    async def held() -> None:
        while True:
            await asyncio.sleep(10.0)
            hello = Hello("a", "b", "1", works_on=short(message_digest(PLAN)), held=True)
            assert not parent.intake.hears(hello)

    assert parent.ends(held) == MOST * DEADLINE_S
    assert parent.held


def fetching(parent: Parent, bps: int, digest: str = "a" * 64, size: int = 100_000) -> Callable[[], object]:
    """The parent itself fetches from above at so many bytes a second."""

    async def fetch() -> None:
        for done in range(bps, size + bps, bps):
            await asyncio.sleep(1.0)
            parent.intake.comes(digest, min(done, size), size)

    return fetch


def test_a_fog_that_itself_fetches_the_model_slowly_holds_its_round_open_for_edges_that_wait_for_it() -> None:
    parent = Parent()
    ended = parent.ends(fetching(parent, bps=700))
    assert 142 + STILL_S < ended < MOST * DEADLINE_S, "and as long as for any slow model they may work on it"
    assert parent.held, "its own parent is told"


def test_what_the_fog_fetches_too_slowly_or_for_nobody_in_the_round_costs_no_second() -> None:
    slow, other = Parent(), Parent()
    assert slow.ends(fetching(slow, bps=300)) == DEADLINE_S, "it would not be there by twice the deadline"
    assert other.ends(fetching(other, bps=700, digest="e" * 64)) == DEADLINE_S, (
        "a release, or of another round"
    )


def test_a_plan_is_not_announced_to_who_works_on_it_and_less_and_less_to_the_silent() -> None:
    parent = Parent()

    async def working() -> None:
        parent.intake.hears(Hello("a", "b", "1", works_on=short(message_digest(PLAN))))

    parent.ends(working)
    assert [at for at, child in parent.announced if child == "a"] == [0.0], "it worked on it since then"
    silent = [at for at, child in parent.announced if child == "b"]
    assert silent == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0]


def test_while_answers_come_in_a_plan_is_announced_again_to_nobody() -> None:
    parent = Parent()

    async def answering() -> None:
        while _now() < 20.2:
            await parent.intake.received(Receipt("r-1", 1, 1, "c", "d" * 64))
            await asyncio.sleep(0.5)

    parent.ends(answering)
    silent = [at for at, child in parent.announced if child == "b"]
    assert silent == [0.0, 21.0, 23.0, 27.0, 35.0, 51.0, 83.0], "a second after the last answer, then as ever"


def test_who_works_on_nothing_or_on_another_plan_is_told() -> None:
    parent = Parent()

    async def asked() -> list[bool]:
        parent.intake.open({"a": PLAN})
        mine = short(message_digest(PLAN))
        hellos = [Hello("a", "b", "1", works_on=word) for word in ("", "0" * 16, mine, "")]
        return [parent.intake.hears(hello) for hello in hellos]

    assert run_virtual(asked()) == [True, True, False, True]
