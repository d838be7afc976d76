"""An edge that is asked whether it is ready: what it says, under which kind, and what it does not do for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from reuna.core.contract import Contract, Line, Signal, as_settings
from reuna.core.errors import Refused
from reuna.core.fingerprint import Window, as_fields
from reuna.core.readiness import FLOWS, Module, Needs
from reuna.core.readiness import as_settings as as_needs
from reuna.core.records import Contribution, Event, Member, Said, Terms
from reuna.edge.ready import Looked
from reuna.loop.plan import round_plan
from reuna.sim.clock import run_virtual
from reuna.sim.fleet import InlineWorkshop
from reuna.trust.policy import Code, FlowRule, Source
from reuna.wire import decode, encode
from tests.unit.exchange.test_waiting import EDGE, Plant, lived

STATISTIC = FlowRule("statistic", ("fog",), "clear", min_cell=5)
LINES = (Line("range", "t", 90, 10), Line("range", "u", 100, 0))
NEEDS = Needs((Module("torch"), Module("numpy")), ("all",))
AGREED = Contract(version=3, signals=(Signal("t", max=1), Signal("u", max=1)))

FOUND = Looked(
    lines=LINES, level=3, samples=90, peak_mib=80.0, address_mib=90.0, free_mib=900.0, limit_mib=8192.0
)


class Shop(InlineWorkshop):
    """A workshop that finds what the test says, and remembers what it was given."""

    finds = FOUND
    given: Any = None
    held: Any = None
    surveyed: Any = None

    async def look(self, bundle: Any, settings: Any, needs: Needs, terms: Terms) -> Looked:
        Shop.given = (bundle is not None, settings, needs, terms)
        self.lines = self.finds.lines if "contract" in settings else ()
        return self.finds

    async def survey(self, terms: Terms) -> Window | None:
        Shop.surveyed = terms
        return self.window

    def hold(self, bundle: Any, why: str) -> None:
        Shop.held = bundle


def changed(found: Looked, **changes: Any) -> Looked:
    return replace(found, **changes)


class Asked:
    """What came of a check at an edge whose policy and machine the test changes."""

    agreed = True  #: whether the project has a contract

    def __init__(self, finds: Looked = FOUND, needs: Needs = NEEDS, **policy: Any) -> None:
        Shop.given, Shop.held, Shop.surveyed = None, None, None
        Shop.finds, self.needs = finds, needs
        self.plant = Plant("", Shop)
        flows = (*self.plant.policy.flows, STATISTIC)
        self.plant.now_says(**{"flows": flows, **policy})
        self.rows: list[Contribution] = []
        self.events: list[Event] = []
        self.downloads = 0
        lived(self.plant, self.story)

    async def story(self, plant: Plant) -> None:
        agreed = as_settings(AGREED) if self.agreed else {}
        settings = {**plant.spec.settings, **agreed, **as_needs(self.needs)}
        spec = msgspec.structs.replace(plant.spec, run="c-1", deadline_s=20.0, settings=settings)
        plan = encode(round_plan(spec, "fog-0", 1, 1, "check", spec.model))
        plant.fog.open({EDGE: plan})
        bus = plant.broker.connect("fog-0")

        async def hear(_subject: str, data: bytes) -> None:
            self.events.append(decode(Event, data))

        async def publish(child: str) -> None:
            await bus.publish(f"plan.{child}", plan)

        await bus.follow("event.>", "up", hear)
        await plant.fog.collect(publish)
        await plant.sleep(1)
        self.rows = plant.fog.rows()

    @property
    def member(self) -> Member:
        ((member,),) = [row.members for row in self.rows]
        return member

    def said(self, about: str) -> list[tuple[str, str]]:
        return [(each.word, each.why) for each in self.member.said if each.about == about]

    def flows(self) -> list[tuple[str, str, int | None]]:
        """Kind, code and level of each entry under which something left."""
        return [(e.flow, e.code[:4], e.level) for e in self.plant.ledger.of("intent") if e.flow != "presence"]


def test_a_node_that_is_ready_says_yes_to_everything_and_trains_nothing() -> None:
    asked = Asked()
    assert {each.word for each in asked.member.said} == {"yes"}
    assert asked.member.metrics["memory_free_mib"] == 900.0
    assert asked.plant.trainer.trained == []
    assert Shop.given[0], "the code is approved, so it is loaded"
    assert "check" not in Shop.given[1], "the learner's settings are those of a run"


def test_its_words_leave_as_a_metric_and_its_counts_as_a_statistic() -> None:
    asked = Asked()
    code = asked.plant.spec.bundle[:4]
    assert sorted(asked.flows()) == [("metric", code, 3), ("statistic", "", None)]
    (event,) = asked.events
    assert (event.what, event.run, event.fields["failed/range/t"]) == ("contract", "c-1", 10)
    runs = [entry.reason for entry in asked.plant.ledger.of("code")]
    assert runs == ["runs", "reads all columns of data for training"], (
        "code that is loaded stands in the ledger"
    )


def test_code_that_waits_for_its_officers_is_not_loaded_nor_laid_before_them() -> None:
    asked = Asked(code=Code((), "ask"))
    assert asked.said("code") == [("wait", "code-ask")]
    assert not Shop.given[0]
    assert Shop.held is None
    assert asked.plant.ledger.of("code") == []
    assert asked.plant.refused() == [], "a rehearsal is no refusal"
    assert asked.said("contract") == [("yes", "")], "counts may leave, so the data are looked at"
    assert asked.said("memory") == [("yes", "lower-bound")]
    assert [flow[:2] for flow in asked.flows()].count(("metric", "")) == 1, "no code had a part in the answer"


def test_of_data_nothing_is_said_where_neither_code_nor_counts_are_allowed() -> None:
    asked = Asked(code=Code((), "ask"), flows=Plant("").policy.flows)
    assert "contract" not in Shop.given[1]
    assert asked.said("contract") == [("wait", "code-ask")]
    assert asked.said("statistic") == [("no", "kind")]
    assert asked.events == []


def test_columns_that_are_not_for_code_are_not_looked_at_either() -> None:
    asked = Asked(sources={"data": Source(("t",))})
    assert asked.said("data") == [("no", "columns")]
    assert "contract" not in Shop.given[1]
    assert not Shop.given[0]


def test_data_that_break_the_contract_are_told_by_code_and_counts() -> None:
    asked = Asked(changed(FOUND, code="R114"))
    assert asked.said("contract") == [("no", "R114")]
    assert asked.said("code") == [("yes", "")]
    assert len(asked.events) == 1


def test_code_that_fails_a_sandbox_that_is_weak_and_modules_that_are_missing() -> None:
    failing = Asked(changed(FOUND, code="R102", missing=("torch",), other=("numpy",)))
    assert failing.said("code") == [("no", "R102")]
    assert failing.said("contract") == [("yes", "")]
    assert failing.said("libraries") == [("no", "torch"), ("yes", "numpy")]
    assert Asked(changed(FOUND, weak=True)).said("code") == [("no", "sandbox")]
    assert Asked(changed(FOUND, code="R999")).said("code") == [("no", "R000")]


def test_too_little_memory_is_told_and_so_is_that_nobody_knows() -> None:
    assert Asked(changed(FOUND, free_mib=79.0)).said("memory") == [("no", "")]
    unknown = Asked(changed(FOUND, free_mib=None))
    assert unknown.said("memory") == []
    assert unknown.member.metrics == {}


def test_figures_whose_names_the_policy_does_not_list_stay() -> None:
    flows = tuple(
        msgspec.structs.replace(rule, names=("all",)) if rule.kind == "metric" else rule
        for rule in (*Plant("").policy.flows, STATISTIC)
    )
    asked = Asked(flows=flows)
    assert asked.member.metrics == {}
    assert asked.said("memory") == [("yes", "")]


def test_the_samples_that_were_loaded_are_those_that_the_policy_is_asked_with() -> None:
    flows = (FlowRule("model_update", ("fog",), min_samples=91), *Plant("").policy.flows[1:], STATISTIC)
    assert Asked(flows=flows).said("model_update") == [("no", "samples")]
    assert Asked(changed(FOUND, samples=None), flows=flows).said("model_update") == [("yes", "")]


def test_a_check_fetches_no_model_and_keeps_that_of_a_run() -> None:
    asked = Asked()
    cache = asked.plant.egress._cache
    assert cache.get(asked.plant.spec.model) is None
    assert cache.get(asked.plant.spec.bundle) is not None


# --- asked for nothing but which data it has -----------------------------------------------------------

WINDOW = Window("f1" * 32, 3, 4096, "0a" * 32)
COUNTED = changed(FOUND, lines=(*LINES, Line("present", "t", 90, 0)))


@pytest.fixture
def has_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shop, "window", WINDOW)


def which(**more: Any) -> Asked:
    return Asked(**{"finds": COUNTED, "needs": Needs(metrics=("all",), window=True), **more})


@pytest.mark.usefixtures("has_data")
def test_a_node_that_is_asked_which_data_it_has_tells_their_fingerprint_and_loads_no_code() -> None:
    asked = which()
    (event,) = asked.events
    assert (event.what, event.run) == ("data", "c-1")
    assert event.fields == as_fields(WINDOW, 90)
    assert {each.word for each in asked.member.said} == {"yes"}
    assert {each.about for each in asked.member.said} == {*FLOWS, "code", "data", "contract"}
    assert asked.member.metrics == {}
    assert not Shop.given[0]
    assert asked.downloads == 0
    assert asked.plant.egress._cache.get(asked.plant.spec.bundle) is None
    assert asked.plant.ledger.of("code") == [], "no code ran"
    assert sorted(asked.flows()) == [("metric", "", None), ("statistic", "", None)]


@pytest.mark.usefixtures("has_data")
def test_a_policy_that_asks_for_a_sandbox_lets_an_answer_leave_in_which_no_code_had_a_part() -> None:
    asked = which(code=msgspec.structs.replace(Plant("").policy.code, min_sandbox_level=3))
    assert asked.said("statistic") == [("yes", "")]
    assert len(asked.events) == 1


@pytest.mark.usefixtures("has_data")
@pytest.mark.parametrize(
    ("policy", "about", "said"),
    [
        ({"flows": Plant("").policy.flows}, "statistic", ("no", "kind")),
        ({"code": Code((), "ask")}, "code", ("wait", "code-ask")),
        ({"sources": {"data": Source(("t",))}}, "data", ("no", "columns")),
    ],
)
def test_where_the_policy_lets_no_fingerprint_leave_or_no_run_begin_no_byte_is_read_for_it(
    policy: dict[str, Any], about: str, said: tuple[str, str]
) -> None:
    asked = which(**policy)
    assert asked.said(about) == [said]
    assert asked.events == []
    assert Shop.surveyed is None
    assert Shop.given is None
    assert [flow[0] for flow in asked.flows()] == ["metric"]


@pytest.mark.usefixtures("has_data")
def test_a_fingerprint_of_fewer_rows_than_the_policy_asks_for_stays_and_the_node_says_so() -> None:
    flows = (*Plant("").policy.flows, FlowRule("statistic", ("fog",), "clear", min_cell=91))
    asked = which(flows=flows)
    assert asked.events == []
    assert asked.said("statistic") == [("no", "")]
    assert asked.said("contract") == [("yes", "")]


@pytest.mark.usefixtures("has_data")
def test_without_a_contract_no_worker_is_started_and_nobody_counts_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Asked, "agreed", False)
    asked = which(flows=(*Plant("").policy.flows, FlowRule("statistic", ("fog",), "clear")))
    (event,) = asked.events
    assert event.fields == as_fields(WINDOW, None)
    assert Shop.given is None


@pytest.mark.parametrize(("code", "why"), [("", "R103"), ("R114", "R114")])
def test_of_data_that_cannot_be_read_or_break_the_contract_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    monkeypatch.setattr(Shop, "window", WINDOW if code else None)
    asked = which(finds=changed(COUNTED, code=code))
    assert asked.events == []
    assert asked.said("contract") == [("no", why)]


@pytest.mark.parametrize("said", [(Said("code", "no", "row 7: 0.25"),), (Said("libraries", "no", "pandas"),)])
def test_an_agent_that_says_other_words_is_stopped_at_its_own_egress(said: tuple[Said, ...]) -> None:
    plant = Plant("")

    async def live() -> None:
        settings = {**plant.spec.settings, **as_needs(NEEDS)}
        spec = msgspec.structs.replace(plant.spec, run="c-1", settings=settings)
        plan = encode(round_plan(spec, "fog-0", 1, 1, "check", spec.model))
        with pytest.raises(Refused, match="malformed|cannot be read"):
            await plant.egress.submit(plan, None, 0, Member(EDGE, said=said))

    run_virtual(live())
    assert plant.ledger.of("intent") == []


def test_a_node_that_does_not_know_a_task_drops_its_plan_and_goes_on_with_the_next() -> None:
    async def story(plant: Plant) -> None:
        known = encode(round_plan(plant.spec, "fog-0", 1, 1, "check", plant.spec.model))
        later = known.replace(b"check", b"later")
        assert len(later) == len(known)
        await plant.broker.connect("fog-0").publish(f"plan.{EDGE}", later)
        await plant.sleep(1)
        assert plant.egress.refused == {"R305": 1}
        (row,) = await plant.ask()
        assert row.weight > 0

    lived(Plant(""), story)
