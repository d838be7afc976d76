"""What may only leave later: kept, tried when its time comes, and never a reason to work in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from reuna.core.errors import LearnerError
from reuna.core.records import Contribution, Event, Terms
from reuna.edge.train import Trainer
from reuna.exchange.egress import LOOK_S, Egress
from reuna.exchange.flows import SiteFlows
from reuna.exchange.intake import Intake
from reuna.exchange.intents import Standing
from reuna.loop.plan import round_plan
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import InPlace, SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import InlineWorkshop, make_spec, unsealed
from reuna.sim.freight import MemoryFreight
from reuna.sim.storage import MemoryBlobs, MemorySpool, no_leftovers
from reuna.trust.policy import Code, Limits, Policy, digest
from reuna.trust.policy_text import parse
from reuna.trust.requests import vouched, without_roster
from reuna.wire import encode
from tests.unit.exchange.test_flows import Written

EDGE, FOG = "edge-0-0", "spiffe://fleet/gateway/fog-0"
HOUR = 3600.0
#: The simulated clock begins on a Thursday at 00:00.
POLICY = f"""
format = "reuna/policy/v1"
site = "mill"
serial = 1
valid = {{ from = 2025-01-01, until = 2030-01-01 }}
signers = {{ threshold = 1, keys = {{ officer = "{"ab" * 32}" }} }}
recipients = {{ fog = "{FOG}" }}
code = {{ new_code = "ask", allow = [{{ digest = "BUNDLE", approved_by = ["officer"], until = 2029-01-01 }}] }}
sources = {{ data = {{ columns = ["*"] }} }}
flows = [
  {{ kind = "model_update", to = ["fog"], protection = "clear" }},
  {{ kind = "metric", to = ["fog"], names = ["*"] }},
  {{ kind = "log", to = ["fog"] }},
  {{ kind = "presence", to = ["fog"] }},
]
[limits]
LIMITS
"""


class Plant:
    """A fog that asks each second, and an edge below it with a real gate."""

    def __init__(self, limits: str, workshop: type[InlineWorkshop] = InlineWorkshop) -> None:
        self.spec, self.model, bundle = make_spec(fleet_of(1, 1), Walker(), 9)
        text = POLICY.replace("BUNDLE", self.spec.bundle).replace("LIMITS", limits)
        self.policy, self.stopped = parse(text, "policy.toml"), False
        self.clock, self.ledger = SimClock(), Written()
        self.flows = SiteFlows(self.ledger, lambda _now: self.standing(), self.clock, ())
        blobs, cache = MemoryBlobs(), MemoryBlobs()
        for data in (self.model, bundle):
            blobs.put(data)
        self.outbox, self.broker = MemorySpool(), MemoryBroker()
        self.fog = Intake("fog-0", blobs, MemorySpool())
        freight = MemoryFreight(lambda: self.fog, EDGE, cache)
        self.egress = Egress(
            EDGE, FOG, self.broker.connect(EDGE), freight, cache, self.outbox, self.flows, self.clock, InPlace(),
            unsealed, without_roster, vouched, no_leftovers(),
        )  # fmt: skip
        self.trainer = Trainer(EDGE, "boot", self.egress, workshop(Walker(), 5), self.clock)

    def standing(self) -> Standing:
        return Standing(self.policy, digest(self.policy), stopped=self.stopped)

    def now_says(self, **changes: Any) -> None:
        """Another policy is in force."""
        self.policy = msgspec.structs.replace(self.policy, serial=self.policy.serial + 1, **changes)

    async def ask(self, number: int = 1, seconds: float = 20.0, collect: bool = True) -> list[Contribution]:
        """Announce one round each second until it is answered or the time is over."""
        spec = msgspec.structs.replace(self.spec, deadline_s=seconds)
        plan = encode(round_plan(spec, "fog-0", number, 1, "train", spec.model))
        self.fog.open({EDGE: plan})
        bus = self.broker.connect("fog-0")

        async def publish(child: str) -> None:
            await bus.publish(f"plan.{child}", plan)

        await self.fog.collect(publish)
        return self.fog.rows()

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)

    def refused(self) -> list[str]:
        return [entry.decision for entry in self.ledger.of("refused")]

    def sent(self, flow: str = "model_update") -> list[float]:
        """When payloads of a kind were written down to leave, seconds since the simulation began."""
        begun = SimClock().now() - asyncio.get_running_loop().time()
        return [e.time_ms / 1000 - begun for e in self.ledger.of("intent") if e.flow == flow]


def lived(plant: Plant, story: Callable[[Plant], Awaitable[None]]) -> None:
    async def live() -> None:
        await plant.egress.listen(plant.trainer.on_plan)
        await story(plant)
        await plant.trainer.stop()

    run_virtual(live())


NIGHT = 'windows = ["Mon-Sun 22:00-05:00"]'


def test_outside_of_the_hours_nothing_is_trained_and_the_round_goes_on_without_the_node() -> None:
    async def story(plant: Plant) -> None:
        await plant.sleep(6 * HOUR)
        assert await plant.ask(seconds=22) == []
        assert plant.trainer.trained == []
        assert plant.refused() == ["wait"]

    lived(Plant(NIGHT), story)


def test_when_the_hours_begin_the_open_round_is_answered() -> None:
    async def story(plant: Plant) -> None:
        await plant.sleep(22 * HOUR - 30)
        (row,) = await plant.ask(seconds=100)
        assert row.weight > 0
        assert [key[1] for key in plant.trainer.trained] == [1]
        assert plant.sent()[0] >= 22 * HOUR

    lived(Plant(NIGHT), story)


class Slow(InlineWorkshop):
    """Training takes a minute."""

    async def fit(self, *given: Any) -> Any:
        await asyncio.sleep(60)
        return await super().fit(*given)


def test_an_update_that_is_ready_after_the_hours_is_kept_and_leaves_when_they_begin_again() -> None:
    async def story(plant: Plant) -> None:
        await plant.sleep(5 * HOUR - 30)
        round_of_a_day = asyncio.create_task(plant.ask(seconds=24 * HOUR))
        await plant.sleep(HOUR)
        assert [row.weight > 0 for row in plant.outbox.rows(plant.spec.run, 1, 1)] == [True]
        assert plant.sent() == []
        (row,) = await round_of_a_day
        assert row.weight > 0
        assert len(plant.trainer.trained) == 1
        (at,) = plant.sent()
        assert 0 <= at - 22 * HOUR <= LOOK_S

    lived(Plant(NIGHT, Slow), story)


def test_what_waits_for_a_round_that_is_replaced_never_leaves() -> None:
    async def story(plant: Plant) -> None:
        await plant.sleep(5 * HOUR - 30)
        await plant.ask(1, seconds=300)
        assert await plant.ask(2, seconds=300) == []
        await plant.sleep(24 * HOUR)
        assert plant.sent() == []

    lived(Plant(NIGHT, Slow), story)


def test_the_kill_switch_holds_what_is_under_way_and_lets_it_go_within_a_second() -> None:
    async def story(plant: Plant) -> None:
        asked = asyncio.create_task(plant.ask(seconds=HOUR))
        await plant.sleep(30)
        plant.stopped = True
        await plant.sleep(600)
        assert plant.sent() == plant.sent("metric") == plant.sent("log") == []
        plant.stopped = False
        await plant.sleep(2 * LOOK_S)
        (row,) = await asked
        assert row.weight > 0
        assert len(plant.trainer.trained) == 1

    lived(Plant("", Slow), story)


def test_when_the_bytes_of_the_day_are_used_up_the_update_leaves_on_the_next() -> None:
    async def story(plant: Plant) -> None:
        (first,) = await plant.ask(1)
        used = sum(entry.payload_bytes for entry in plant.ledger.of("intent"))
        plant.now_says(limits=Limits(bytes_per_day=2 * used - 1))
        (row,) = await plant.ask(2, seconds=25 * HOUR)
        assert row.weight == first.weight
        assert plant.sent()[1] >= 24 * HOUR
        assert [key[1] for key in plant.trainer.trained] == [1, 2]

    lived(Plant(""), story)


class Failing(InlineWorkshop):
    tries = 0

    async def fit(self, *_: Any) -> Any:
        Failing.tries += 1
        raise LearnerError("row 7: 0.25")


def without_metrics(policy: Policy) -> Any:
    return tuple(rule for rule in policy.flows if rule.kind != "metric")


def test_a_plan_whose_every_answer_is_refused_is_tried_again_only_under_another_policy() -> None:
    async def story(plant: Plant) -> None:
        flows, Failing.tries = plant.policy.flows, 0
        plant.now_says(flows=without_metrics(plant.policy))
        assert await plant.ask(seconds=120) == []
        assert Failing.tries == 1
        plant.now_says(flows=flows)
        (row,) = await plant.ask(seconds=20)
        assert Failing.tries == 2
        assert row.members[0].absent == "R107 the learner failed"

    lived(Plant("", Failing), story)


def test_a_node_whose_learner_fails_says_so_whatever_sandbox_its_policy_asks_for() -> None:
    async def story(plant: Plant) -> None:
        code = msgspec.structs.replace(plant.policy.code, min_sandbox_level=3)
        plant.now_says(code=code)
        (row,) = await plant.ask()
        assert row.members[0].absent == "R107 the learner failed"

    lived(Plant("", Failing), story)


def test_an_event_outside_of_the_hours_is_stored_when_they_begin() -> None:
    async def story(plant: Plant) -> None:
        await plant.sleep(6 * HOUR)
        assert await plant.egress.emit(Event(EDGE, "boot", 1, plant.clock.now(), "disk was full"))
        (at,) = plant.sent("log")
        assert at >= 22 * HOUR

    lived(Plant(NIGHT), story)


def test_on_what_terms_code_may_run_comes_with_the_plan_and_not_where_it_may_not_run() -> None:
    """What the policy says at that moment; who is asked for nothing that code does hears of none."""
    came: list[Terms | None] = []

    async def hear(_plan: bytes, _signed: bytes, terms: Terms | None) -> None:
        came.append(terms)

    async def live() -> None:
        plant = Plant("")
        await plant.egress.listen(hear)
        fog, plan = (
            plant.broker.connect("fog-0"),
            round_plan(plant.spec, "fog-0", 1, 1, "train", plant.spec.model),
        )

        async def ask(**changes: Any) -> None:
            await fog.publish(f"plan.{EDGE}", encode(msgspec.structs.replace(plan, **changes)))
            await plant.sleep(1)

        await ask()
        plant.now_says(code=msgspec.structs.replace(plant.policy.code, min_sandbox_level=3))
        await ask(round=2)
        await ask(round=3, cohort=("edge-9",))
        await ask(round=4, task="check")
        plant.now_says(code=Code())
        await ask(round=5)

    run_virtual(live())
    assert came == [Terms(0), Terms(3), None, None, None]
