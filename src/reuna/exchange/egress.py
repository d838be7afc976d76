"""The way up: all that leaves a node passes here, and nothing else holds keys or network.

An edge's trained weights come in as float32; what goes out is their difference to the base
model on the plan's grid, made durable before it is first sent and sent with the same bytes
until the parent acknowledges it. Every payload is counted by kind before it leaves.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec

from reuna.core import bins, labelled, operating, plans, watched
from reuna.core.contract_report import is_report, without_small
from reuna.core.errors import (
    BadMessage,
    BlobNotFound,
    BusDown,
    Corrupted,
    DiskFull,
    Refused,
    ReunaError,
    StorageError,
    Unreachable,
    Untrusted,
)
from reuna.core.fingerprint import is_told
from reuna.core.ports import Blob, Blobs, BlobStore, Bus, Clock, HandlePlan, Offload, Spool
from reuna.core.records import Contribution, Event, Hello, Member, Plan, Receipt, Rehearsal, Terms, Work
from reuna.exchange.encode import Shaped, TooWideError, schema_of
from reuna.exchange.extent import length
from reuna.exchange.flows import AGAIN_S, FlowControl, Passage
from reuna.exchange.inline import model_inside
from reuna.exchange.intents import Leaving
from reuna.exchange.leftovers import Left, Leftovers
from reuna.exchange.payloads import (
    Among,
    Made,
    ahead,
    code_had_a_part,
    contribution,
    made_for,
    message,
    statistic,
    steps_of,
)
from reuna.exchange.room import when_there_is_room
from reuna.exchange.steps import take_step
from reuna.exchange.weigher import Weigher
from reuna.loop import train
from reuna.wire import decode_plan, digest_of_hashes, encode, hash_blocks, message_digest, unpacked

#: The plan inside signed bytes, as they came: packed or not. Raises `Untrusted`, `BadMessage`, `DiskFull`.
OpenPlan = Callable[[bytes], bytes]
#: Why the fleet's code role does not vouch for a bundle, empty when it does.
Unsigned = Callable[[str], Awaitable[str]]
log = logging.getLogger("reuna.egress")
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
OVER = "stale"  #: why what waited does not leave any more
LOOK_S = 1.0  #: between two looks whether what waits may leave
RECENT = 4  #: models that are kept where nodes work on several
#: How counts of few rows stay here, by event; others are counts by rule of the contract.
SMALL = {
    bins.WHAT: bins.without_small,
    watched.WHAT: watched.without_small,
    labelled.WHAT: labelled.without_small,
}
#: Whether an event says nothing but counts, and which data they are of.
COUNTS = (is_report, bins.is_bins, is_told, watched.is_watched, labelled.is_labelled)
T = TypeVar("T")


class Prepared(NamedTuple):
    """A node's answer, durable; without a passage it may only leave later."""

    manifest: Contribution
    body: Blob | None
    passage: Passage | None


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
        leftovers: Leftovers,
        passed_on: Callable[[], Collection[str]] = tuple,
        weigher: Weigher | None = None,
    ) -> None:
        """``passed_on``: digests of blobs in the cache that nodes below may ask for, beside models."""
        self._weigher = weigher or Weigher()
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
        self._leftovers = leftovers
        self._passed_on = passed_on
        self.refused: dict[str, int] = {}
        self._warned: dict[str, float] = {}  #: what the policy refused and when that was last said
        self._heard: Plan | None = None  #: the newest plan
        self._mute = ("", "", 0.0)  #: plan that is not answered, mark of the policy, not before
        self._models: tuple[str, ...] = ("", "")  #: of the plan before and of this one
        self._at = ""  #: the model that the place has fetched last
        self._run = ""  #: that of the plan before
        self._width = 0  #: bytes per integer of the plain update before
        self._ahead: asyncio.Future[Blob] | None = None  #: the transfer that a plan began
        self._stepping = asyncio.Lock()
        self._astray = ""  #: a step that led to another model, or is not to be had

    async def listen(self, handle: HandlePlan) -> None:
        """Call ``handle`` with each signed plan for this node; all else is counted and dropped."""

        async def heard(_subject: str, came: bytes) -> None:
            try:
                data = self._open_plan(came)
                plan = decode_plan(data)
                if plan.task != "check":  # nothing is trained, so that no model is needed
                    _check_inside(plan)
                    self._forget_models(plan)
                if plan.task in ("local", "evaluate") and self.name in plan.cohort:
                    await self._offload(partial(self._leftovers.end, plan.run))
            except Untrusted as error:
                self._refuse_plan(error.reason, error)
            except (BadMessage, StorageError) as error:
                self._refuse_plan(error.code, error)
            else:
                self._heard = plan
                self._fetch_ahead(plan)
                unsigned = await self._unsigned(plan.bundle)  # who passes plans on has the metadata they need
                worth, terms = await self._may_answer(plan, message_digest(data), unsigned)
                if worth:
                    await handle(data, unpacked(came), terms)

        await self._bus.subscribe(f"plan.{self.name}", heard)

    async def fetch(self, digest: str, size: int) -> Blob:
        """The blob from the cache, else from the parent, however often the line is cut.

        Raises `DiskFull`.
        """
        if digest in self._models:
            self._at = digest
        held = self._cache.get(digest)
        if held is not None:
            return held
        wait = FIRST_RETRY_S
        while True:
            try:
                return await self._bring(digest, size)
            except Unreachable:
                await self._clock.sleep(wait)
                wait = min(2 * wait, LAST_RETRY_S)

    async def _bring(self, digest: str, size: int) -> Blob:
        """A blob from the parent: by the step from the model before, where there is one, else whole."""
        return await self._by_step(digest) or await self._store.fetch(digest, size)

    async def _by_step(self, digest: str) -> Blob | None:
        """The plan's model, made of the one before; None where that cannot be. Raises `Unreachable`."""
        plan = self._heard
        if plan is None or digest != plan.model or plan.step in ("", self._astray):
            return None
        if not self._weigher.steps(plan):
            return None
        async with self._stepping:
            before, held = self._cache.get(plan.base), self._cache.get(digest)
            if before is None or held is not None:
                return held
            try:
                step = await self._store.fetch(plan.step, plan.step_size)
                made = await self._offload(
                    lambda: self._weigher.taken(plan, lambda: take_step(before, step, digest, self._cache))
                )
            except (BlobNotFound, Corrupted):
                made = None
            if made is None:
                log.warning(
                    "the step to the model of round %d cannot be used: it is fetched whole", plan.round
                )
                self._astray = plan.step
            return made

    async def approved(self, work: Work) -> Terms:
        """See `Link.approved`."""
        unsigned = await self._unsigned(work.bundle)
        return await self.in_time(lambda: self._flows.approved(work, unsigned))

    async def rehearse(self, plan_bytes: bytes, samples: int) -> Rehearsal:
        """See `Link.rehearse`. Who is no edge of the plan's cohort sums up those under it."""
        plan = decode_plan(plan_bytes)
        unsigned = await self._unsigned(plan.bundle)
        now = self._clock.now()
        asked = ahead(plan, self.name, self._parent, now, self._among, samples, unsigned)
        return await self._offload(lambda: self._flows.rehearse(asked))

    async def submit(
        self, plan_bytes: bytes, weights: Blob | None, weight: int, member: Member, level: int = 0
    ) -> Receipt | None:
        """Encode once, make durable, send until acknowledged. See `Link.submit`."""
        plan, digest = decode_plan(plan_bytes), message_digest(plan_bytes)

        def prepare() -> Prepared | None:
            kept = self._kept(plan, digest)
            if kept is None:
                return self._prepare(plan, digest, weights, weight, member, level)
            try:
                return Prepared(kept, self._outbox.body(kept) if kept.size else None, None)
            except Corrupted:  # its bytes went when a later round began: a late plan, answered long ago
                return None

        try:
            return await self._deliver(plan, prepare, partial(self._made, level=level))
        except Refused as refusal:
            self._count_refusal(refusal.reason)
            log.warning("nothing leaves for round %d of %s: %s", plan.round, plan.run, refusal)
            if member.absent:
                self._mute = (digest, self._flows.mark(), math.inf)
            raise

    async def hand_over(self, plan_bytes: bytes, manifest: Contribution, body: Blob | None) -> Receipt | None:
        """Send a partial sum that the gateway has already made durable. See `Link.hand_over`."""
        plan, digest = decode_plan(plan_bytes), message_digest(plan_bytes)

        def prepare() -> Prepared:
            try:
                passage = self._passage(manifest, self._of_a_sum(plan, manifest, body))
            except DiskFull:  # who asks for it again waits for room
                passage = None
            return Prepared(manifest, body, passage)

        try:
            for member in manifest.members:
                train.check_words(plan, member)
            return await self._deliver(plan, prepare, self._of_a_sum)
        except Refused as refusal:
            self._count_refusal(refusal.reason)
            log.warning("nothing leaves for round %d of %s: %s", plan.round, plan.run, refusal)
            self._mute = (digest, self._flows.mark(), math.inf)
            raise

    async def emit(self, event: Event) -> bool:
        """Append to the durable stream, however long the parent's server is away.

        Outside of the policy's hours it waits for them. What the policy refuses is dropped, counted, and
        stands in the ledger: False.
        """
        counted = any(is_one(event) for is_one in COUNTS)
        if counted:
            event = await self._offload(partial(self._without_small_counts, event))
        elif event.what == operating.WHAT:
            least = await self._offload(lambda: self._flows.least_cell("statistic", self._parent))
            event = operating.hidden(event, least)
        data = encode(event)

        def leave() -> Passage:
            if counted:
                return self._flows.leave(statistic(event, self._parent, data, self._clock.now()))
            return self._flows.leave(self._message("log", data, run=event.run, round=event.round))

        try:
            passage = await self.in_time(leave)
        except Refused as refusal:
            self._count_refusal(refusal.reason)
            self._warn(str(refusal))
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
        await self.say("hello", encode(hello))

    async def say(self, word: str, data: bytes) -> bool:
        """That this node is there, or who is below it; whether the policy let it and somebody heard it."""
        leaving = self._message("presence", data)
        if await self._leave(leaving) is None:
            return False
        heard = await self._bus.publish(f"{word}.{self.name}", data)
        if not heard:
            self._flows.stayed(leaving)
        return heard

    async def _may_answer(self, plan: Plan, digest: str, unsigned: str) -> tuple[bool, Terms | None]:
        """Whether work on a plan is worth its while: else it would be done again each time it is heard.

        Not while the policy lets nothing of its size leave, nor when it has refused the answer to this
        very plan, until something of that changes. And on what terms its code may run at this node; None
        where it may not, or not now: who asks for them hears why.
        """
        plain = plan.task == "train" and not train.packs(plan)
        size = plan.params if plain else 0  # a byte for each number, at the least
        trains = plan.task != "check" and self.name in plan.cohort
        work = plans.work(plan) if trains else None
        muted, mark, until = self._mute

        def look() -> Terms | None:
            if muted == digest and self._clock.now() < until and self._flows.mark() == mark:
                raise Refused(OVER, "it was refused a moment ago")
            return self._flows.moment(size, self._parent, work, unsigned)

        try:
            if muted != digest:
                with suppress(BlockingIOError):  # else a thread waits, and reads or writes what has changed
                    return True, self._flows.glance(size, self._parent, work, unsigned)
            return True, await self._offload(look)
        except Refused as refusal:
            if refusal.reason == OVER:
                return False, None
            self._count_refusal(refusal.reason)
            self._warn(f"round {plan.round} of {plan.run} goes on without this node: {refusal}")
            until = math.inf if refusal.until is None else refusal.until
            self._mute = (digest, await self._offload(self._flows.mark), until)
            return False, None
        except StorageError:  # whoever answers waits for the disk, and says so
            return True, None

    def _model(self, plan: Plan) -> Blob | None:
        """The model that updates of a plan begin with."""
        return model_inside(plan) or self._cache.get(plan.model)

    def _fetch_ahead(self, plan: Plan) -> None:
        """Begin on the model while the place makes ready; its own `fetch` shares the transfer."""
        if plan.task != "check" and plan.inline is None and self._cache.get(plan.model) is None:
            self._ahead = asyncio.ensure_future(self._bring(plan.model, plan.model_size))
            self._ahead.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _forget_models(self, plan: Plan) -> None:
        """Keep this plan's model and the one before it; a run of many rounds would fill the disk.

        Where nodes work on several, some more, and the one that the place works on. A model inside a plan
        lies nowhere: a run of such has something to forget only when it begins. Models of a run are written
        over by the next of the run alone: code of another may still have one open.
        """
        begins, self._run = plan.run != self._run, plan.run
        if plan.model != self._models[-1] and (begins or plan.inline is None):
            self._models = (*self._models, plan.model)[-RECENT if plan.buffer else -2 :]
            kept = (*self._models, plan.base, plan.step, plan.bundle, *self._passed_on())
            self._cache.prune((*kept, self._at) if plan.buffer else kept, reuse=not begins)

    def _kept(self, plan: Plan, digest: str) -> Contribution | None:
        """The contribution made for this very plan before a restart, if there is one."""
        for row in self._outbox.rows(*plan.key):
            if row.sender == self.name and row.plan == digest:
                return row
        return None

    def _prepare(
        self, plan: Plan, digest: str, weights: Blob | None, weight: int, member: Member, level: int
    ) -> Prepared:
        """The node's answer, durable; the site's policy lets it leave now or later. Raises `Refused`."""
        self._outbox.drop(plan.run, plan.round)
        train.check_words(plan, member)
        member = self._without_secret_metrics(member)
        if weights is None:
            said = Member(self.name, metrics=member.metrics, absent=member.absent, said=member.said)
            manifest, body = train.answer(plan, digest, said), None
            made = self._made(plan, manifest, None, level)
        else:
            manifest, body, made = self._encode(plan, digest, weights, weight, member, level)
        passage = self._passage(manifest, made)
        self._outbox.commit(manifest, body)  # also what may only leave later
        return Prepared(manifest, body, passage)

    def _passage(self, manifest: Contribution, made: Made) -> Passage | None:
        """Under which it leaves now, None where it may only later. Raises `Refused`."""
        try:
            return self._flows.leave(*self._payloads(manifest, made))
        except Refused as refusal:
            if refusal.until is None:
                raise
            return None

    def _made(self, plan: Plan, manifest: Contribution, body: Blob | None, level: int) -> Made:
        """How an answer that is kept came to be."""
        norm, schema = self._extent(plan, manifest, body)
        made = made_for(plan, self.name, self._among, level, norm, schema)
        if code_had_a_part(plan, manifest.members[0]):
            return made
        return msgspec.structs.replace(made, code="", sandbox=0)

    def _of_a_sum(self, plan: Plan, manifest: Contribution, body: Blob | None) -> Made:
        """How a partial sum came to be; its cohort is that of its members."""
        norm, schema = self._extent(plan, manifest, body)
        return Made(steps=steps_of(plan), norm=norm, schema=schema)

    def _extent(self, plan: Plan, manifest: Contribution, body: Blob | None) -> tuple[float | None, str]:
        """Length and schema of what lies there encoded."""
        if body is None:
            return None, ""
        base = self._model(plan)
        return length(manifest, body, plan.grid), "" if base is None else schema_of(base)

    def _without_secret_metrics(self, member: Member) -> Member:
        """Metrics whose names the policy does not list stay here."""
        listed = self._flows.listed("metric", self._parent, member.metrics)
        kept = {name: value for name, value in member.metrics.items() if name in listed}
        return msgspec.structs.replace(member, metrics=kept)

    def _without_small_counts(self, event: Event) -> Event:
        """Counts of fewer rows than the policy asks for stay here."""
        least = self._flows.least_cell("statistic", self._parent)
        kept = SMALL.get(event.what, without_small)
        return msgspec.structs.replace(event, fields=kept(event.fields, least))

    def _encode(
        self, plan: Plan, digest: str, weights: Blob, weight: int, member: Member, level: int
    ) -> tuple[Contribution, Blob, Made]:
        base = self._model(plan)
        if base is None:
            raise Corrupted(f"the base model {plan.model[:12]} is not in the cache any more")
        capped = Member(node=self.name, weight=min(weight, plan.max_weight), metrics=member.metrics)
        shaped = Shaped(plan, base, weights, self.name, self._past(plan), self._leftovers.new)
        sent, body = self._write(plan, digest, capped, shaped)
        if shaped.left is not None:
            self._leftovers.keep(plan, shaped.left.seal(), plan.carried.get(self.name, 0))
        counted = msgspec.structs.replace(capped, digest=body.digest, saturated=shaped.saturated)
        manifest = msgspec.structs.replace(sent, members=(counted,))
        made = made_for(plan, self.name, self._among, level, shaped.norm, schema_of(base))
        return manifest, body, made

    def _write(self, plan: Plan, digest: str, member: Member, shaped: Shaped) -> tuple[Contribution, Blob]:
        """The update's integers, each in as few bytes as the largest of them needs.

        That is most often as many as in the round before, so that an update is read once.
        """

        def write(width: int) -> tuple[Contribution, Blob] | None:
            draft = train.answer(plan, digest, member, "0" * 64, width)
            try:
                written = self._weigher.write(plan, draft, partial(shaped.lots, width), self._outbox.begin)
            except TooWideError:
                return None
            return written if shaped.width == width else None

        guess = self._width if shaped.is_plain else 0
        written = (write(guess) if guess else None) or write(shaped.needed())
        if written is None:
            raise Corrupted(f"what was trained for round {plan.round} changed while it was read")
        self._width = shaped.width if shaped.is_plain else self._width
        return written

    def _past(self, plan: Plan) -> Left | None:
        """What this node did not send before and adds now."""
        carried = plan.carried.get(self.name, 0)
        return self._leftovers.after(plan.run, carried, plan.params) if carried else None

    async def _deliver(
        self,
        plan: Plan,
        prepare: Callable[[], Prepared | None],
        made_of: Callable[[Plan, Contribution, Blob | None], Made],
    ) -> Receipt | None:
        """Prepare an answer and send it until it is acknowledged; ``made_of`` says how one came to be.

        None when it never is. Raises what ``prepare`` raises, and `Refused` ('policy').
        """
        prepared, receipt = await self._send_prepared(prepare)
        if receipt is not None or prepared is None:
            return receipt
        manifest, body, passage = prepared
        if passage is None:
            made = await self._offload(partial(made_of, plan, manifest, body))
            passage = await self._pass(plan, manifest, made)
        return await self._send(manifest, body, passage)

    async def _pass(self, plan: Plan, manifest: Contribution, made: Made) -> Passage | None:
        """Under the entries that it has in the ledger, or under new ones, when the policy lets it.

        None when a later plan was heard before it might leave. Raises `Refused` ('policy').
        """
        try:
            return await self.in_time(lambda: self._flows.leave(*self._payloads(manifest, made)), plan)
        except Refused as refusal:
            if refusal.reason == OVER:
                return None
            raise

    def _payloads(self, manifest: Contribution, made: Made) -> tuple[Leaving, ...]:
        return contribution(manifest, self._parent, self._clock.now(), made, self._among)

    async def _send_prepared(
        self, prepare: Callable[[], Prepared | None]
    ) -> tuple[Prepared | None, Receipt | None]:
        """Prepare an answer and send it at once in the same thread, if it may leave now.

        None instead of the answer when there is nothing to send any more. Raises what ``prepare`` raises.
        """
        found: list[Prepared] = []

        def make() -> tuple[Contribution, Blob | None] | None:
            prepared = prepare()
            if prepared is None:
                return None
            found.append(prepared)
            return None if prepared.passage is None else (prepared.manifest, prepared.body)

        try:
            receipt = await self._store.send_made(make)
        except (Refused, Unreachable) as error:
            if not found or found[0].passage is None:
                raise
            if isinstance(error, Refused):
                self._turned_away(found[0].passage, error)
                return None, None
            await self._clock.sleep(FIRST_RETRY_S)
            return found[0], None
        if not found:
            return None, None
        if receipt is not None and found[0].passage is not None:
            self._flows.arrived(found[0].passage, "acknowledged")
        return found[0], receipt

    def _turned_away(self, passage: Passage, refusal: Refused) -> None:
        """The parent never takes it."""
        self._count_refusal(refusal.reason)
        self._flows.arrived(passage, f"refused: {refusal.reason}")

    async def _send(
        self, manifest: Contribution, body: Blob | None, passage: Passage | None
    ) -> Receipt | None:
        """Until it is acknowledged. Nothing is sent without a passage, or of what the parent refuses."""
        if passage is None:
            return None
        wait = FIRST_RETRY_S
        while True:
            try:
                receipt = await self._store.send(manifest, body)
            except Refused as refusal:
                self._turned_away(passage, refusal)
                return None
            except Unreachable:
                await self._clock.sleep(wait)
                wait = min(2 * wait, LAST_RETRY_S)
            else:
                self._flows.arrived(passage, "acknowledged")
                return receipt

    # --- what leaves ---------------------------------------------------------------------------

    async def in_time(self, ask: Callable[[], T], plan: Plan | None = None) -> T:
        """What the site's policy says, asked again while it says later; waits for a disk that is full.

        Raises `Refused` when it says no, or when a later plan than ``plan`` was heard meanwhile.
        """
        while True:
            try:
                return await when_there_is_room(lambda: self._offload(ask), self._clock, log)
            except Refused as refusal:
                if refusal.until is None:
                    raise
                self._warn(f"it waits: {refusal}")
                await self._until(refusal.until, plan)
            if self._is_over(plan):
                raise Refused(OVER, "a later plan was heard while it waited")

    async def _until(self, when: float, plan: Plan | None) -> None:
        """Until then, another policy, a turn of the kill switch, or a plan that makes it pointless."""
        mark = await self._offload(self._flows.mark)
        while self._clock.now() < when and not self._is_over(plan):
            await self._clock.sleep(min(LOOK_S, max(0.0, when - self._clock.now())))
            if await self._offload(self._flows.mark) != mark:
                return

    def _is_over(self, plan: Plan | None) -> bool:
        """Whether a plan was heard that replaces this one."""
        return plan is not None and self._heard is not None and plans.newer(self._heard, plan)

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


def _check_inside(plan: Plan) -> None:
    """Raises `Corrupted` for a model inside that is not the plan's."""
    if plan.inline is not None and digest_of_hashes(hash_blocks(plan.inline)) != plan.model:
        raise Corrupted(f"the model inside the plan of round {plan.round} has another digest")


def _event_id(event: Event) -> str:
    return f"{event.node}.{event.boot}.{event.seq}"
