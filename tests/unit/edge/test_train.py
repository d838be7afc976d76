"""What an edge does with a plan while its disk is full."""

from __future__ import annotations

import logging
from typing import Any, Literal

import msgspec
import pytest

from reuna.core.bins import Counted
from reuna.core.contract import Contract, Line, Signal, as_settings
from reuna.core.contract_report import is_report
from reuna.core.errors import ContractBroken, DiskFull, LearnerError
from reuna.core.fingerprint import Window, is_told
from reuna.core.records import Event, Member, Terms, Work
from reuna.edge.train import Trainer
from reuna.loop.plan import round_plan
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import InlineWorkshop, make_spec
from reuna.sim.storage import MemoryBlob
from reuna.wire import encode


class Link:
    """An egress whose disk is full for the first tries of each call."""

    def __init__(self, model: bytes, full: int) -> None:
        self.model = model
        self.left = {"fetch": full, "submit": full}
        self.events: list[Event] = []
        self.answers: list[tuple[bool, Member]] = []
        self.asked: list[Work] = []

    def take(self, what: str) -> None:
        if self.left[what]:
            self.left[what] -= 1
            raise DiskFull("no space left")

    async def fetch(self, digest: str, size: int) -> MemoryBlob:
        self.take("fetch")
        return MemoryBlob(self.model, digest)

    async def approved(self, work: Work) -> Terms:
        self.asked.append(work)
        return Terms()

    async def submit(self, plan: bytes, weights: Any, weight: int, member: Member, level: int = 0) -> None:
        self.take("submit")
        self.answers.append((weights is not None, member))

    async def emit(self, event: Event) -> bool:
        self.events.append(event)
        return True


class Broken(InlineWorkshop):
    """A workshop whose learner cannot train."""

    async def fit(self, *_: Any) -> Any:
        raise LearnerError("it does not converge")


def answered(link: Link, workshop: Any, model: bytes) -> Link:
    """The link after an edge heard one plan."""
    fogs = fleet_of(1, 1)
    spec, _, _ = make_spec(fogs, Walker(), 1)
    plan = encode(round_plan(spec, "fog-0", 1, 1, "train", spec.model))

    async def hear() -> None:
        clock = SimClock()
        trainer = Trainer("edge-0-0", "boot", link, workshop, clock)  # type: ignore[arg-type]
        await trainer.on_plan(plan, plan)
        await clock.sleep(60)
        await trainer.stop()

    run_virtual(hear())
    return link


def test_an_edge_with_a_full_disk_waits_trains_and_tells_of_it(caplog: pytest.LogCaptureFixture) -> None:
    _, model, _ = make_spec(fleet_of(1, 1), Walker(), 1)
    link = answered(Link(model, full=3), InlineWorkshop(Walker(), 5), model)
    ((with_weights, member),) = link.answers
    assert with_weights
    assert not member.absent
    assert [event.what for event in link.events] == ["disk was full", "disk was full"]
    assert [event.fields["code"] for event in link.events] == ["R401", "R401"]
    assert [r.levelno for r in caplog.records] == [logging.ERROR, logging.ERROR]


def test_an_edge_that_sits_out_waits_for_room_to_say_so() -> None:
    _, model, _ = make_spec(fleet_of(1, 1), Walker(), 1)
    link = answered(Link(model, full=2), Broken(Walker(), 5), model)
    ((with_weights, member),) = link.answers
    assert not with_weights
    assert member.absent == "R107 the learner failed"


def test_what_a_learner_says_of_its_failure_stays_in_the_log_and_in_the_event_of_that_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, model, _ = make_spec(fleet_of(1, 1), Walker(), 1)
    link = answered(Link(model, full=0), Broken(Walker(), 5), model)
    ((_, member),) = link.answers
    assert "converge" not in str(member)
    (event,) = link.events
    assert (event.what, event.fields["reason"]) == ("sat out", "R107 it does not converge")
    assert "it does not converge" in caplog.text


BROKEN = ContractBroken("range of 't': 9 of 10 fail, 5 % may; t.csv, column 't': 77.5")
LINES = (Line("range", "t", 1, 9), Line("range", "elsewhere", 1, 9), Line("rows", "t", 1, 9))


class Judging(InlineWorkshop):
    """A workshop that held its data against a contract."""

    def __init__(self, error: ContractBroken | None) -> None:
        super().__init__(Walker(), 5)
        self._error = error

    async def open(self, *_: Any) -> None:
        self.lines, self.bins = LINES, ()
        if self._error is not None:
            raise self._error
        self.bins = (Counted("t", (5, *[0] * 31)), Counted("elsewhere", (5, *[0] * 31)))


def told_of(error: ContractBroken | None, times: int = 1) -> Link:
    """The link after an edge with such data heard so many plans of a run with a contract."""
    spec, model, _ = make_spec(fleet_of(1, 1), Walker(), 1)
    link = Link(model, full=0)
    agreed = as_settings(Contract(version=4, signals=(Signal("t", min=0, max=1),)))

    async def hear() -> None:
        clock = SimClock()
        trainer = Trainer("edge-0-0", "boot", link, Judging(error), clock)  # type: ignore[arg-type]
        for number in range(1, 1 + times):
            plan = round_plan(spec, "fog-0", number, 1, "train", spec.model)
            data = encode(msgspec.structs.replace(plan, settings={**plan.settings, **agreed}))
            await trainer.on_plan(data, data)
            await clock.sleep(60)
        await trainer.stop()

    run_virtual(hear())
    return link


def test_an_edge_tells_once_in_a_run_how_its_data_keep_the_contract_and_only_of_what_it_names() -> None:
    link = told_of(None, times=3)
    event, spread = link.events
    assert (event.what, event.run) == ("contract", "r-sim")
    assert (spread.what, spread.fields) == ("bins", {"version": 4, "bin/0/t": 5})
    assert event.fields == {
        "version": 4, "passed/range": 1, "failed/range": 9, "passed/range/t": 1, "failed/range/t": 9,
    }  # fmt: skip
    assert len(link.answers) == 3
    assert all(with_weights for with_weights, _ in link.answers)


def test_an_edge_tells_once_in_a_run_which_data_it_trains_on_and_of_how_many_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    window = Window("f1" * 32, 3, 4096)
    rows = (*LINES, Line("present", "t", 10, 0), Line("present", "u", 8, 2))
    monkeypatch.setattr(Judging, "window", window)
    monkeypatch.setitem(globals(), "LINES", rows)
    (event,) = (each for each in told_of(None, times=3).events if each.what == "data")
    assert event.fields == {"fingerprint": "f1" * 32, "files": 3, "bytes": 4096, "rows": 10}
    assert is_told(event)
    monkeypatch.setitem(globals(), "LINES", LINES[:1])
    (event,) = (each for each in told_of(None).events if each.what == "data")
    assert "rows" not in event.fields, "without a count there is none"
    assert not [each for each in told_of(BROKEN).events if each.what == "data"], "it trained on nothing"


def test_an_edge_tells_again_when_its_data_changed_within_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = [Window(mark * 64, 1, 1, "5" * 64) for mark in "aab"]
    monkeypatch.setattr(Judging, "window", property(lambda _self: windows.pop(0) if windows else None))
    told = [each.fields["fingerprint"] for each in told_of(None, times=4).events if each.what == "data"]
    assert told == ["a" * 64, "b" * 64]


def test_an_edge_whose_data_break_the_contract_sits_out_in_our_words_and_tells_its_counts() -> None:
    link = told_of(BROKEN)
    ((with_weights, member),) = link.answers
    assert not with_weights
    assert member.absent == "R114 its data break the contract"
    assert sorted(event.what for event in link.events) == ["contract", "sat out"]
    (counts,) = (event for event in link.events if event.what == "contract")
    assert is_report(counts)


def test_each_run_that_a_node_trains_in_is_noted_once_with_the_column_of_its_label() -> None:
    agreed = as_settings(Contract(label="fault"))
    fogs, noted = fleet_of(1, 1), list[tuple[str, str]]()
    spec, model, _ = make_spec(fogs, Walker(), 1)
    spec = msgspec.structs.replace(spec, settings={**spec.settings, **agreed})
    asked: list[tuple[int, Literal["evaluate", "train"]]] = [(1, "evaluate"), (2, "train"), (3, "train")]
    plans = [encode(round_plan(spec, "fog-0", number, 1, task, spec.model)) for number, task in asked]

    async def hear() -> None:
        clock = SimClock()
        workshop = InlineWorkshop(Walker(), 5)
        link: Any = Link(model, 0)
        trainer = Trainer("edge-0-0", "b", link, workshop, clock, None, lambda *said: noted.append(said))
        for plan in plans:
            await trainer.on_plan(plan, plan)
            await clock.sleep(60)
        await trainer.stop()

    run_virtual(hear())
    assert noted == [(spec.run, "fault")]


class Opened(InlineWorkshop):
    """A workshop that notes on what terms it was opened."""

    def __init__(self) -> None:
        super().__init__(Walker(), 5)
        self.terms: list[Terms] = []

    async def open(self, run: Any, bundle: Any, settings: Any, terms: Terms) -> None:
        self.terms.append(terms)


def opened_on(*came: Terms | None) -> tuple[list[Terms], int]:
    """Terms on which an edge opened code, of plans that came with these, and how often it asked for them."""
    spec, model, _ = make_spec(fleet_of(1, 1), Walker(), 1)
    link, workshop = Link(model, 0), Opened()

    async def hear() -> None:
        clock = SimClock()
        trainer = Trainer("edge-0-0", "b", link, workshop, clock)  # type: ignore[arg-type]
        for number, terms in enumerate(came, 1):
            data = encode(round_plan(spec, "fog-0", number, 1, "train", spec.model))
            await trainer.on_plan(data, data, terms)
            await clock.sleep(60)
        await trainer.stop()

    run_virtual(hear())
    return workshop.terms, len(link.asked)


def test_terms_that_come_with_a_plan_are_not_asked_for_when_its_code_is_at_hand() -> None:
    first, strict = Terms(1), Terms(2, ("oil",))
    assert opened_on(first, strict) == ([Terms(), strict], 1), "of the first plan the code had to be brought"
    assert opened_on(None, None) == ([Terms(), Terms()], 2)


def test_terms_that_came_with_a_plan_hold_for_its_first_try_alone() -> None:
    """A disk that is full may be so for hours."""
    spec, model, _ = make_spec(fleet_of(1, 1), Walker(), 1)
    link, workshop = Link(model, 0), Opened()

    async def hear() -> None:
        clock = SimClock()
        trainer = Trainer("edge-0-0", "b", link, workshop, clock)  # type: ignore[arg-type]
        for number in (1, 2):
            data = encode(round_plan(spec, "fog-0", number, 1, "train", spec.model))
            link.left["fetch"] = number - 1
            await trainer.on_plan(data, data, Terms(3))
            await clock.sleep(60)
        await trainer.stop()

    run_virtual(hear())
    assert workshop.terms == [Terms(), Terms(3), Terms()]
