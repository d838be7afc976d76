"""Fogs and edges of a simulated fleet in other processes, wherever these are; its cloud is here.

The cloud's virtual time stands still while any of them computes. An answer depends on its plan alone,
so that neither their number nor the order of their answers changes a bit. A process that is lost is
begun anew and asked again; one that is lost time after time ends the run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from reuna.core.errors import RunFailed, WorkerFailed
from reuna.core.foreign import told
from reuna.core.tree import Above, tops, tree_under
from reuna.sim.clock import VirtualLoop
from reuna.sim.fleet import SimEdge, SimFleet
from reuna.sim.freight import MemoryFreight
from reuna.sim.part import Answer, Fogs, Totals, decoded
from reuna.sim.storage import MemoryBlob, MemoryBlobs
from reuna.wire import decode_plan, unpacked

PATIENCE_S = 0.2  #: real seconds; how soon it is noticed that somebody stops the run
MOST_LOSSES = 3  #: processes lost while they worked on the same plan


class Lost(Exception):
    """A process ended; says how."""


class Hands(Protocol):
    """Processes that hold a `Part` each, told apart by their place from 0 on."""

    def begin(self, place: int) -> None:
        """Begin the process of a place, anew where it was lost."""

    def ask(self, place: int, fog: str, plan: bytes, model: MemoryBlob | None) -> None:
        """Give it a plan to answer; it has none in hand."""

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:
        """What came of the plans given, at the latest after ``seconds``."""

    def end(self) -> list[Totals]:
        """End all in good order."""

    def kill(self) -> None:
        """End all at once, whatever they do; nothing of them is left."""


def dealt(fogs: Fogs, processes: int, above: Above) -> list[dict[str, Mapping[str, SimEdge]]]:
    """Fogs for each process: the same number of edges each, as near as whole fogs allow.

    A fog directly under the cloud is in one of them with all that stands under it.
    """
    whole = {top: list(tree_under(top, fogs, above)) for top in tops(fogs, above)}
    edges = {top: sum(len(fogs[fog]) for fog in whole[top]) for top in whole}
    parts: list[dict[str, Mapping[str, SimEdge]]] = [{} for _ in range(max(1, min(processes, len(whole))))]
    sizes = [0] * len(parts)
    for top in sorted(whole, key=lambda top: (-edges[top], top)):
        place = sizes.index(min(sizes))
        parts[place].update({fog: fogs[fog] for fog in whole[top]})
        sizes[place] += edges[top]
    return parts


class Crew:
    """What stands in for the fogs at the cloud's bus."""

    def __init__(self, hands: Hands, places: Sequence[Sequence[str]]) -> None:
        self._hands = hands
        self._place = {fog: place for place, fogs in enumerate(places) for fog in fogs}
        self._waiting: list[deque[tuple[str, bytes]]] = [deque() for _ in places]
        self._asked: list[tuple[str, bytes] | None] = [None for _ in places]
        self._losses = [0 for _ in places]
        self._fleet: SimFleet | None = None
        self._sending: set[asyncio.Task[None]] = set()
        for place in range(len(places)):
            hands.begin(place)

    async def join(self, fleet: SimFleet) -> None:
        """Answer for the fogs to the cloud of ``fleet``, in whose loop this is called."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self._fleet = fleet
        fleet.steps = False  # the processes share memory in which whole models lie
        loop.outside = self._look
        for fog in self._place:
            bus = fleet.hub.connect(fog)
            await bus.subscribe(f"plan.{fog}", self._hear)

    async def _hear(self, subject: str, data: bytes) -> None:
        fog = subject.removeprefix("plan.")
        place, plan = self._place[fog], unpacked(data)
        if (fog, plan) != self._asked[place] and (fog, plan) not in self._waiting[place]:
            self._waiting[place].append((fog, plan))
            self._hand_out(place)

    def _hand_out(self, place: int) -> None:
        if self._asked[place] is None and self._waiting[place]:
            self._asked[place] = self._waiting[place].popleft()
            self._ask(place)

    def _ask(self, place: int) -> None:
        asked = self._asked[place]
        assert asked is not None
        self._hands.ask(place, *asked, self._model(asked[1]))

    def _model(self, data: bytes) -> MemoryBlob | None:
        assert self._fleet is not None
        plan = decode_plan(data)
        if plan.inline is not None:
            return None
        held = self._fleet.disks["cloud"].blobs.get(plan.model)
        assert held is not None
        return held

    # --- answers -----------------------------------------------------------------------------

    def _look(self) -> bool:
        """Called when nothing is ready: whether there is something to wait for in real time."""
        if not any(self._asked):
            return False
        for place, found in self._hands.wait(PATIENCE_S):
            if isinstance(found, Lost):
                self._again(place, found)
            else:
                self._take(place, found)
        return True

    def _take(self, place: int, answer: Answer) -> None:
        asked, self._asked[place] = self._asked[place], None
        assert asked is not None and self._fleet is not None
        self._losses[place] = 0
        if answer.fault is not None:
            fault = answer.fault
            error = told(fault.code, fault.message, fault.next_step)
            self._fleet.fail(error or RunFailed(fault.message, fault.next_step))
            return
        task = asyncio.get_running_loop().create_task(self._send(asked[0], answer))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        self._hand_out(place)

    async def _send(self, fog: str, answer: Answer) -> None:
        assert self._fleet is not None
        fleet = self._fleet
        await MemoryFreight(lambda: fleet.depots["cloud"], fog, MemoryBlobs()).send(*decoded(answer))

    def _again(self, place: int, lost: Lost) -> None:
        assert self._fleet is not None
        self._losses[place] += 1
        if self._losses[place] == MOST_LOSSES:
            self._fleet.fail(
                WorkerFailed(
                    f"a process of the simulation was lost {MOST_LOSSES} times in a row: {lost}",
                    "Is there enough memory? Ask for fewer processes: each holds models of its own nodes.",
                )
            )
            return
        self._hands.begin(place)
        if self._asked[place] is not None:
            self._ask(place)
