"""What the cloud publishes of a round, and in which form."""

from __future__ import annotations

from reuna.cloud.plan import Planner
from reuna.core.records import Hello
from reuna.exchange.intake import Intake
from reuna.loop.plan import plans
from reuna.sim.bus import MemoryBroker
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec, unsealed
from reuna.sim.storage import MemoryBlobs, MemorySpool
from reuna.wire import PACKS, unpacked


def test_only_who_says_that_it_reads_them_is_sent_packed_plans() -> None:
    spec = make_spec(fleet_of(1, 1), Walker(), 1, settings={"contract": "a rule of each signal, " * 100})[0]
    came: list[bytes] = []

    async def live() -> None:
        clock = SimClock()
        broker = MemoryBroker()
        intake = Intake("cloud", MemoryBlobs(), MemorySpool())
        planner = Planner(broker.connect("cloud"), intake, unsealed)
        plan = plans(spec, 1, 1, "train", spec.model, None)
        intake.open(plan)

        async def hear(_subject: str, data: bytes) -> None:
            came.append(data)

        await broker.connect("fog-0").subscribe("plan.fog-0", hear)
        await planner.announce("fog-0")
        await clock.sleep(1)
        for protocol in (PACKS - 1, PACKS, PACKS - 1):
            await planner.on_hello(Hello("fog-0", "boot", "0", protocol=protocol))
            await clock.sleep(1)
        assert [unpacked(data) for data in came] == [plan["fog-0"]] * 4
        assert [data == plan["fog-0"] for data in came] == [True, True, False, True]

    run_virtual(live())
