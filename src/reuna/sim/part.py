"""A part of a simulated fleet: some fogs and their edges, whose cloud is in another process.

The same nodes as in `reuna.sim.fleet`, in virtual time of their own: a part answers to one plan, and
its time stands still until the next. So a node's answer is a function of the plans it was given, and
which process it lives in changes no bit.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import msgspec

from reuna.adapters.receiver import SpoolReceiver, commit_all, receipt_of
from reuna.core.errors import BlobNotFound, Refused, ReunaError
from reuna.core.ports import Blob, Receiver
from reuna.core.records import Contribution, Receipt
from reuna.core.tree import Above as Over
from reuna.sim.clock import SimClock, VirtualLoop, seldom_collected, settle
from reuna.sim.fleet import BUNDLE, FairWeather, SimEdge, SimFleet
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks
from reuna.sim.storage import MemoryBlob, MemorySpool
from reuna.wire import decode, digest_bytes, encode

Fogs = Mapping[str, Mapping[str, SimEdge]]


class Fault(msgspec.Struct, frozen=True):
    """An error of ours that goes from one process to another."""

    code: str
    message: str
    next_step: str


class Answer(NamedTuple):
    """What a fog gave to a plan: manifest and body as they would go over the line; or why the run ends."""

    manifest: bytes
    body: bytes = b""
    fault: Fault | None = None


class Totals(msgspec.Struct, frozen=True):
    """What a part counted: bytes that left by kind, and what was refused."""

    bytes_by_kind: dict[str, int] = {}
    refused: dict[str, int] = {}


class Above:
    """The `Depot` of the fogs' parent: offers model and bundle, keeps what comes until it is fetched."""

    def __init__(self) -> None:
        self.model = MemoryBlob(b"", "")
        self._bundle = MemoryBlob(BUNDLE, digest_bytes(BUNDLE))
        self._spool = MemorySpool()
        self._arrived = asyncio.Event()
        self._rows: list[Contribution] = []

    async def blob(self, peer: str, digest: str) -> Blob:
        for blob in (self.model, self._bundle):
            if digest == blob.digest:
                return blob
        raise BlobNotFound(f"no blob {digest[:12]} is offered to {peer}")

    def receive(self, peer: str, manifest: Contribution) -> Receiver | Receipt:
        key = (manifest.run, manifest.round, manifest.attempt)
        if any(row == manifest for row in self._spool.rows(*key)):
            return receipt_of(manifest)

        def note(row: Contribution, _body: Blob | None) -> None:
            self._rows.append(row)

        return SpoolReceiver(self._spool, manifest, note)

    def commit(self, receivers: Sequence[Receiver]) -> Sequence[Receipt | ReunaError]:
        return commit_all(self._spool, receivers)

    def metadata(self, name: str) -> bytes | None:
        return None

    def count_refusal(self, peer: str, refusal: Refused) -> None:
        """Nothing is refused here; the cloud judges."""

    def moves(self, peer: str, what: str, done: int, size: int) -> None:
        """Nobody is slow here."""

    async def received(self, receipt: Receipt) -> None:
        self._arrived.set()

    async def next(self) -> Answer:
        """The next contribution that was committed."""
        while not self._rows:
            self._arrived.clear()
            await self._arrived.wait()
        row = self._rows.pop(0)
        body = self._spool.body(row) if row.size else None
        answer = Answer(encode(row), body.read(0, body.size) if body else b"")
        self._spool.drop(row.run, row.round)
        return answer


class Part:
    """Lives as long as the run. Not for use inside a running event loop."""

    def __init__(self, fogs: Fogs, over: Over) -> None:
        self._calm = ExitStack()
        self._calm.enter_context(seldom_collected())
        self._loop = VirtualLoop()
        self._loop.set_task_factory(adopting_tasks)  # type: ignore[arg-type]  # as `run_virtual` takes it
        self._fleet = SimFleet(
            fogs, SimClock(), lambda: SimJournal(JournalStore()), FairWeather(), above=within(fogs, over)
        )
        self._above = Above()
        self._fleet.depots["cloud"] = self._above
        self._loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        self._fleet.outcome = asyncio.get_running_loop().create_future()
        self._bus = self._fleet.hub.connect("cloud")
        for node in self._fleet.nodes:
            if node != "cloud":
                self._fleet.start(node)
        await asyncio.sleep(0.1)  # virtual: until all listen

    def answer(self, fog: str, plan: bytes, model: MemoryBlob | None = None) -> Answer:
        """What ``fog`` and its edges make of a plan. ``model``: where it does not ride in the plan."""
        if model is not None:
            self._above.model = model
        try:
            return self._loop.run_until_complete(self._ask(fog, plan))
        except ReunaError as error:
            return Answer(b"", fault=Fault(error.code, error.message, error.next_step))

    async def _ask(self, fog: str, plan: bytes) -> Answer:
        assert self._fleet.outcome is not None
        await self._bus.publish(f"plan.{fog}", plan)
        answer, failed = asyncio.ensure_future(self._above.next()), self._fleet.outcome
        try:
            either: list[asyncio.Future[Any]] = [answer, failed]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
            return await answer
        finally:
            answer.cancel()

    def end(self) -> Totals:
        """End all nodes."""
        kinds: Counter[str] = Counter()
        for meter in self._fleet.meters.values():
            for flow in meter.lines:
                kinds[flow.kind] += flow.payload_bytes
        self._fleet.note_refusals()
        for node in self._fleet.nodes:
            self._fleet.kill(node)
        settle(self._loop)
        self._calm.close()
        return Totals(dict(kinds), dict(self._fleet.refused))


def within(fogs: Fogs, over: Over) -> dict[str, str]:
    """What of ``over`` is about these fogs."""
    return {fog: over[fog] for fog in fogs if fog in over}


def decoded(answer: Answer) -> tuple[Contribution, MemoryBlob | None]:
    """Manifest and body as the cloud takes them."""
    manifest = decode(Contribution, answer.manifest)
    return manifest, MemoryBlob(answer.body, manifest.digest) if manifest.size else None
