"""The way up: all that leaves a node passes here, and nothing else holds keys or network.

An edge's trained weights come in as float32; what goes out is their difference to the base
model on the plan's grid, made durable before it is first sent and sent with the same bytes
until the parent acknowledges it. Every payload is counted by kind before it leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from reuna.core.errors import (
    BadMessage,
    BusDown,
    Corrupted,
    Refused,
    ReunaError,
    StorageError,
    Unreachable,
    Untrusted,
)
from reuna.core.ports import Blob, Blobs, BlobStore, Bus, Clock, HandlePlan, Offload, Spool
from reuna.core.records import Contribution, Event, Hello, Member, Plan, Receipt
from reuna.exchange.encode import encode_difference, extent, schema_of
from reuna.exchange.flows import AGAIN_S, FlowControl, Passage
from reuna.exchange.intents import Leaving
from reuna.exchange.payloads import Among, Made, contribution, made_for, message
from reuna.exchange.room import when_there_is_room
from reuna.learn import grid as fixed
from reuna.loop import train
from reuna.wire import decode, digest_bytes, encode, message_digest

#: The plan inside signed bytes. Raises `Untrusted`, `BadMessage`, `DiskFull`.
OpenPlan = Callable[[bytes], bytes]
#: Why the fleet's code role does not vouch for a bundle, empty when it does.
Unsigned = Callable[[str], Awaitable[str]]
log = logging.getLogger("reuna.egress")
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0


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
        flows: FlowControl,
        clock: Clock,
        offload: Offload,
        open_plan: OpenPlan,
        among: Among,
        unsigned: Unsigned,
    ) -> None:
        self.name = name
        self._parent = parent
        self._bus = bus
        self._store = store
        self._cache = cache
        self._outbox = outbox
        self._flows = flows
        self._clock = clock
        self._offload = offload
        self._open_plan = open_plan
        self._among = among
        self._unsigned = unsigned
        self.refused: dict[str, int] = {}
        self._warned: dict[str, float] = {}  #: what the policy refused and when that was last said
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
                await self._unsigned(plan.bundle)  # who passes plans on has the metadata that they need
                await handle(data, signed)

        await self._bus.subscribe(f"plan.{self.name}", heard)

    async def fetch(self, digest: str, size: int) -> Blob:
        """The blob from the cache, else from the parent, however often the line is cut.

        Raises `DiskFull`.
        """
        held = self._cache.get(digest)
        if held is not None:
            return held
        wait = FIRST_RETRY_S
        while True:
            try:
                return await self._store.fetch(digest, size)
            except Unreachable:
                await self._clock.sleep(wait)
                wait = min(2 * wait, LAST_RETRY_S)

    async def approved(self, bundle: str) -> int:
        """See `Link.approved`."""
        unsigned = await self._unsigned(bundle)
        return await self._offload(lambda: self._flows.approved(bundle, unsigned))

    async def submit(
        self, plan_bytes: bytes, weights: Blob | None, weight: int, member: Member, level: int = 0
    ) -> Receipt | None:
        """Encode once, make durable, send until acknowledged. See `Link.submit`."""
        plan, digest = decode(Plan, plan_bytes), message_digest(plan_bytes)
        manifest = self._kept(plan, digest)
        if manifest is None:
            try:
                manifest = await self._offload(
                    lambda: self._prepare(plan, digest, weights, weight, member, level)
                )
            except Refused as refusal:
                self._count_refusal(refusal.reason)
                log.warning("nothing leaves for round %d of %s: %s", plan.round, plan.run, refusal)
                raise
        try:
            body = self._outbox.body(manifest) if manifest.size else None
        except Corrupted:  # its bytes went when a later round began: a late plan, answered long ago
            return None
        return await self._send(manifest, body, self._made(plan, manifest.members[0], level))

    async def hand_over(self, manifest: Contribution, body: Blob | None) -> Receipt | None:
        """Send a partial sum that the gateway has already made durable. Raises `Refused`."""
        for member in manifest.members:
            train.check_absence(member)
        return await self._send(manifest, body, Made())

    async def emit(self, event: Event) -> bool:
        """Append to the durable stream, however long the parent's server is away.

        What the site's policy refuses is dropped, counted, and stands in the ledger: False.
        """
        data = encode(event)
        passage = await self._leave(self._message("log", data, run=event.run, round=event.round))
        if passage is None:
            return False
        while True:
            try:
                await self._bus.append(f"event.{self.name}", data, _event_id(event))
            except BusDown:
                await self._clock.sleep(FIRST_RETRY_S)
            else:
                self._flows.arrived(passage, "stored")
                return True

    async def hello(self, hello: Hello) -> None:
        """Ask for the current plan."""
        data = encode(hello)
        if await self._leave(self._message("presence", data)) is not None:
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
        self, plan: Plan, digest: str, weights: Blob | None, weight: int, member: Member, level: int
    ) -> Contribution:
        """The node's answer, durable and allowed by the site's policy. Raises `Refused`."""
        self._outbox.drop(plan.run, plan.round)
        train.check_absence(member)
        member = self._without_secret_metrics(member)
        if weights is None:
            said = Member(self.name, metrics=member.metrics, absent=member.absent)
            manifest, body = train.answer(plan, digest, said), None
            made = self._made(plan, member, level)
        else:
            manifest, body, made = self._encode(plan, digest, weights, weight, member, level)
        self._flows.leave(*contribution(manifest, self._parent, self._clock.now(), made, self._among))
        self._outbox.commit(manifest, body)
        return manifest

    def _made(self, plan: Plan, member: Member, level: int) -> Made:
        """Who gives nothing says it in our words and without a number, so no code had a part in it."""
        made = made_for(plan, self._among, level)
        return msgspec.structs.replace(made, code="", sandbox=0) if member.absent else made

    def _without_secret_metrics(self, member: Member) -> Member:
        """Metrics whose names the policy does not list stay here."""
        listed = self._flows.listed("metric", self._parent, member.metrics)
        kept = {name: value for name, value in member.metrics.items() if name in listed}
        return msgspec.structs.replace(member, metrics=kept)

    def _encode(
        self, plan: Plan, digest: str, weights: Blob, weight: int, member: Member, level: int
    ) -> tuple[Contribution, Blob, Made]:
        base = self._cache.get(plan.model)
        if base is None:
            raise Corrupted(f"the base model {plan.model[:12]} is not in the cache any more")
        capped = Member(node=self.name, weight=min(weight, plan.max_weight), metrics=member.metrics)
        facts = extent(base, weights, plan.params)
        width = fixed.needed_width(facts.largest, plan.grid)
        writer = self._outbox.begin(train.answer(plan, digest, capped, "0" * 64, width))
        saturated = encode_difference(base, weights, plan.params, plan.grid, width, writer)
        body = writer.seal()
        counted = msgspec.structs.replace(capped, digest=body.digest, saturated=saturated)
        manifest = train.answer(plan, digest, counted, body.digest, width)
        return manifest, body, made_for(plan, self._among, level, facts, schema_of(base))

    async def _send(self, manifest: Contribution, body: Blob | None, made: Made) -> Receipt | None:
        """Send under the entries that it has in the ledger, or under new ones."""
        passage = await self._leave(
            *contribution(manifest, self._parent, self._clock.now(), made, self._among)
        )
        if passage is None:
            return None
        wait = FIRST_RETRY_S
        while True:
            try:
                receipt = await self._store.send(manifest, body)
            except Refused as refusal:
                self._count_refusal(refusal.reason)
                self._flows.arrived(passage, f"refused: {refusal.reason}")
                return None
            except Unreachable:
                await self._clock.sleep(wait)
                wait = min(2 * wait, LAST_RETRY_S)
            else:
                self._flows.arrived(passage, "acknowledged")
                return receipt

    # --- what leaves ---------------------------------------------------------------------------

    async def _leave(self, *payloads: Leaving) -> Passage | None:
        """The passage, None when the site's policy refuses. Waits for a disk that is full."""
        try:
            return await when_there_is_room(
                lambda: self._offload(lambda: self._flows.leave(*payloads)), self._clock, log
            )
        except Refused as refusal:
            self._count_refusal(refusal.reason)
            self._warn(str(refusal))
            return None

    def _warn(self, refusal: str) -> None:
        """Each refusal of the policy once a minute: a node says hello every few seconds."""
        now = self._clock.now()
        if now - self._warned.get(refusal, -AGAIN_S) >= AGAIN_S:
            self._warned = {why: at for why, at in self._warned.items() if now - at < AGAIN_S}
            self._warned[refusal] = now
            log.warning("nothing of that leaves: %s", refusal)

    def _message(self, kind: str, data: bytes, run: str = "", round: int = 0) -> Leaving:
        return message(kind, self._parent, data, self._clock.now(), run, round)

    def _refuse_plan(self, reason: str, error: ReunaError) -> None:
        self._count_refusal(reason)
        log.warning("refused a plan: %s %s", error.code, error)

    def _count_refusal(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1


def _event_id(event: Event) -> str:
    return f"{event.node}.{event.boot}.{event.seq}"
