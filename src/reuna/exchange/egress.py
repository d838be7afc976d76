"""The way up: all that leaves a node passes here, and nothing else holds keys or network.

An edge's trained weights come in as float32; what goes out is their difference to the base
model on the plan's grid, made durable before it is first sent and sent with the same bytes
until the parent acknowledges it. Every payload is counted by kind before it leaves.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import (
    BadMessage,
    BusDown,
    Corrupted,
    DiskFull,
    Refused,
    ReunaError,
    StorageError,
    Unreachable,
    Untrusted,
)
from reuna.core.ports import Blob, Blobs, BlobStore, BlobWriter, Bus, Clock, HandlePlan, Offload, Spool
from reuna.core.records import Contribution, Event, Grid, Hello, Member, Plan, Receipt
from reuna.exchange.meter import Meter
from reuna.learn import grid as fixed
from reuna.loop import train
from reuna.wire import BLOCK, decode, digest_bytes, encode, message_digest

#: The plan inside signed bytes. Raises `Untrusted`, `BadMessage`, `DiskFull`.
OpenPlan = Callable[[bytes], bytes]
log = logging.getLogger("reuna.egress")
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
ENCODED = BLOCK  #: values that are encoded at a time: whole blocks of each width


class Egress:
    """Implements the `Link` port in the process that owns the network."""

    def __init__(
        self,
        name: str,
        parent: str,
        bus: Bus,
        store: BlobStore,
        cache: Blobs,
        outbox: Spool,
        meter: Meter,
        clock: Clock,
        offload: Offload,
        open_plan: OpenPlan,
    ) -> None:
        self.name = name
        self._link = f"{name} → {parent}"
        self._bus = bus
        self._store = store
        self._cache = cache
        self._outbox = outbox
        self._meter = meter
        self._clock = clock
        self._offload = offload
        self._open_plan = open_plan
        self.refused: dict[str, int] = {}
        self._models = ("", "")  #: of the plan before and of this one

    async def listen(self, handle: HandlePlan) -> None:
        """Call ``handle`` with each signed plan for this node; all else is counted and dropped."""

        async def heard(_subject: str, signed: bytes) -> None:
            try:
                data = self._open_plan(signed)
                plan = decode(Plan, data)
                self._keep_inline(plan)
                self._forget_models(plan)
            except Untrusted as error:
                self._refuse_plan(error.reason, error)
            except (BadMessage, StorageError) as error:
                self._refuse_plan(error.code, error)
            else:
                await handle(data, signed)

        await self._bus.subscribe(f"plan.{self.name}", heard)

    async def fetch(self, digest: str, size: int) -> Blob:
        """The blob from the cache, else from the parent, however often the line is cut."""
        held = self._cache.get(digest)
        if held is not None:
            return held
        wait = FIRST_RETRY_S
        while True:
            try:
                return await self._store.fetch(digest, size)
            except (Unreachable, DiskFull):
                await self._clock.sleep(wait)
                wait = min(2 * wait, LAST_RETRY_S)

    async def submit(
        self, plan_bytes: bytes, weights: Blob | None, weight: int, member: Member
    ) -> Receipt | None:
        """Encode once, make durable, send until acknowledged. See `Link.submit`."""
        plan, digest = decode(Plan, plan_bytes), message_digest(plan_bytes)
        manifest = self._kept(plan, digest)
        if manifest is None:
            manifest = await self._offload(lambda: self._prepare(plan, digest, weights, weight, member))
        try:
            body = self._outbox.body(manifest) if manifest.size else None
        except Corrupted:  # its bytes went when a later round began: a late plan, answered long ago
            return None
        return await self._send(manifest, body)

    async def hand_over(self, manifest: Contribution, body: Blob | None) -> Receipt | None:
        """Send a partial sum that the gateway has already made durable."""
        return await self._send(manifest, body)

    async def emit(self, event: Event) -> None:
        """Append to the durable stream, however long the parent's server is away."""
        data = encode(event)
        self._meter.count(self._link, "log", len(data))
        while True:
            try:
                return await self._bus.append(f"event.{self.name}", data, _event_id(event))
            except BusDown:
                await self._clock.sleep(FIRST_RETRY_S)

    async def hello(self, hello: Hello) -> None:
        """Ask for the current plan."""
        data = encode(hello)
        self._meter.count(self._link, "presence", len(data))
        await self._bus.publish(f"hello.{self.name}", data)

    def _keep_inline(self, plan: Plan) -> None:
        if plan.inline is None or self._cache.get(plan.model) is not None:
            return
        if digest_bytes(plan.inline) != plan.model:
            raise Corrupted(f"the model inside the plan of round {plan.round} has another digest")
        self._cache.put(plan.inline)

    def _forget_models(self, plan: Plan) -> None:
        """Keep this plan's model and the one before it; a run of many rounds would fill the disk."""
        if plan.model != self._models[-1]:
            self._models = (self._models[-1], plan.model)
            self._cache.prune((*self._models, plan.bundle))

    def _kept(self, plan: Plan, digest: str) -> Contribution | None:
        """The contribution made for this very plan before a restart, if there is one."""
        for row in self._outbox.rows(*plan.key):
            if row.sender == self.name and row.plan == digest:
                return row
        return None

    def _prepare(
        self, plan: Plan, digest: str, weights: Blob | None, weight: int, member: Member
    ) -> Contribution:
        self._outbox.drop(plan.run, plan.round)
        if weights is None:
            manifest = train.answer(plan, digest, member)
            self._outbox.commit(manifest, None)
            return manifest
        return self._encode(plan, digest, weights, weight, member)

    def _encode(self, plan: Plan, digest: str, weights: Blob, weight: int, member: Member) -> Contribution:
        base = self._cache.get(plan.model)
        if base is None:
            raise Corrupted(f"the base model {plan.model[:12]} is not in the cache any more")
        capped = Member(node=self.name, weight=min(weight, plan.max_weight), metrics=member.metrics)
        width = fixed.needed_width(largest_difference(base, weights, plan.params), plan.grid)
        writer = self._outbox.begin(train.answer(plan, digest, capped, "0" * 64, width))
        saturated = encode_difference(base, weights, plan.params, plan.grid, width, writer)
        body = writer.seal()
        counted = Member(
            node=self.name,
            weight=capped.weight,
            digest=body.digest,
            metrics=member.metrics,
            saturated=saturated,
        )
        manifest = train.answer(plan, digest, counted, body.digest, width)
        self._outbox.commit(manifest, body)
        return manifest

    async def _send(self, manifest: Contribution, body: Blob | None) -> Receipt | None:
        self._meter.count(self._link, "metric", len(encode(manifest)))
        if body is not None:
            self._meter.count(self._link, "model_update", manifest.size)
        wait = FIRST_RETRY_S
        while True:
            try:
                return await self._store.send(manifest, body)
            except Refused as refusal:
                self._count_refusal(refusal.reason)
                return None
            except Unreachable:
                await self._clock.sleep(wait)
                wait = min(2 * wait, LAST_RETRY_S)

    def _refuse_plan(self, reason: str, error: ReunaError) -> None:
        self._count_refusal(reason)
        log.warning("refused a plan: %s", error)

    def _count_refusal(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


def _event_id(event: Event) -> str:
    return f"{event.node}.{event.boot}.{event.seq}"


def largest_difference(base: Blob, weights: Blob, params: int) -> float:
    """The largest ``abs(weights - base)``.

    Both blobs are models as `reuna.core.tensors.pack` writes them, with equal headers. Raises
    `Refused` for another shape or a value that is not finite.
    """
    largest = 0.0
    for first, delta in _differences(base, weights, params):
        found = max(float(delta.max()), -float(delta.min()))
        if not math.isfinite(found):  # a NaN is the largest and the smallest
            raise Refused("not-finite", f"the update has values that are not finite after value {first}")
        largest = max(largest, found)
    return largest


def encode_difference(base: Blob, weights: Blob, params: int, grid: Grid, width: int, out: BlobWriter) -> int:
    """Write ``weights - base`` on the grid in ``width`` bytes each; how many values were clipped."""
    saturated = 0
    for _, delta in _differences(base, weights, params):
        integers, clipped = fixed.encode(delta, grid, width)
        saturated += clipped
        out.write(integers.data.cast("B"))
    return saturated


def _differences(base: Blob, weights: Blob, params: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Where each lot begins, and its values; whole blocks of any width but for the last."""
    start = _same_header(base, weights, params)
    for first in range(0, params, ENCODED):
        count = min(ENCODED, params - first)
        yield first, _floats(weights, start, first, count) - _floats(base, start, first, count)


def _same_header(base: Blob, weights: Blob, params: int) -> int:
    """Where the values start, once both headers are known to be equal."""
    length = int.from_bytes(base.read(0, 8), "little") + 8
    sizes = {base.size, weights.size}
    if sizes != {length + 4 * params} or base.read(0, length) != weights.read(0, length):
        raise Refused("shape", "the trained model's tensors are not those of the base model")
    return length


def _floats(blob: Blob, start: int, first: int, count: int) -> NDArray[np.float32]:
    return np.frombuffer(blob.read(start + 4 * first, 4 * count), "<f4")
