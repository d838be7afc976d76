"""The cloud's plans: what each fog is asked in a round, signed and published until it has answered.

`reuna.loop.plan` decides what a plan says. Published is what the intake holds open: a plan that was
answered, or whose round is closed, is announced no more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from reuna.core.ports import Blob, Bus
from reuna.core.records import Hello, Plan, RunSpec, Task
from reuna.exchange.heard import Heard
from reuna.exchange.intake import Intake
from reuna.loop import plan as planning
from reuna.loop import train
from reuna.loop.plan import Going
from reuna.wire import PACKS, asks_for, packed

Seal = Callable[[bytes], bytes]  #: a plan's bytes with the cloud's signature


class Planner:
    """Makes the plans of a round, and tells fogs of them."""

    def __init__(self, bus: Bus, intake: Intake, seal: Seal) -> None:
        self._bus = bus
        self._intake = intake
        self._seal = seal
        self.heard = Heard()  #: of the fogs

    def plans(
        self,
        spec: RunSpec,
        number: int,
        attempt: int,
        task: Task,
        model: Blob,
        before: str,
        going: Going,
    ) -> dict[str, bytes]:
        """The bytes of each fog's plan; a small model rides in them."""
        inline = model.read(0, model.size) if model.size <= planning.INLINE_LIMIT else None
        return planning.plans(spec, number, attempt, task, model.digest, inline, before, going)

    def older(self, plans: Mapping[str, Plan]) -> set[str]:
        """Fogs that do not know what their plan asks, by their last hello."""
        known = {fog: newest for fog, newest in self.heard.speaks.items() if fog in plans}
        return {fog for fog, newest in known.items() if newest < asks_for(plans[fog])}

    def away(self, plans: Mapping[str, Plan], missing: Collection[str]) -> frozenset[str]:
        """Fogs of ``plans`` for whom the round need not wait, of those that have not answered."""
        any_plan = next(iter(plans.values()))
        away = self.heard.away(any_plan, missing)
        edges = sum(len(plans[fog].cohort) for fog in away)
        return away if train.does_without(any_plan, edges) else frozenset()

    async def on_hello(self, hello: Hello) -> None:
        """A fog is there (again): it gets the open plan at once."""
        self.heard.take(hello)
        if self._intake.hears(hello):
            await self.announce(hello.node)

    async def announce(self, child: str) -> None:
        """Publish the open plan of one fog, if it has not answered yet."""
        data = self._intake.ask(child)
        if data is not None:
            self.heard.asks(child)
            signed = self._seal(data)
            await self._bus.publish(
                f"plan.{child}", packed(signed) if self.heard.speaks.get(child, 0) >= PACKS else signed
            )
