"""The cloud's plans: what each fog is asked in a round, signed and published until it has answered.

`reuna.loop.plan` decides what a plan says. Published is what the intake holds open: a plan that was
answered, or whose round is closed, is announced no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reuna.core.ports import Blob, Bus
from reuna.core.records import Hello, RunSpec, Task
from reuna.exchange.intake import Intake
from reuna.loop import plan as planning
from reuna.loop.plan import Going
from reuna.wire import PACKS, asks_for, decode_plan, packed

Seal = Callable[[bytes], bytes]  #: a plan's bytes with the cloud's signature


class Planner:
    """Makes the plans of a round, and tells fogs of them."""

    def __init__(self, bus: Bus, intake: Intake, seal: Seal) -> None:
        self._bus = bus
        self._intake = intake
        self._seal = seal
        self.speaks: dict[str, int] = {}  #: fog -> the newest protocol of its last hello

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

    def older(self, plans: Mapping[str, bytes]) -> set[str]:
        """Fogs that do not know what their plan asks, by their last hello."""
        known = {fog: newest for fog, newest in self.speaks.items() if fog in plans}
        return {fog for fog, newest in known.items() if newest < asks_for(decode_plan(plans[fog]))}

    async def on_hello(self, hello: Hello) -> None:
        """A fog is there (again): it gets the open plan at once."""
        self.speaks[hello.node] = hello.protocol
        if self._intake.hears(hello):
            await self.announce(hello.node)

    async def announce(self, child: str) -> None:
        """Publish the open plan of one fog, if it has not answered yet."""
        data = self._intake.ask(child)
        if data is not None:
            signed = self._seal(data)
            await self._bus.publish(
                f"plan.{child}", packed(signed) if self.speaks.get(child, 0) >= PACKS else signed
            )
