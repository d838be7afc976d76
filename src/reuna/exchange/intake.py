"""The way in at a parent: judges, keeps and counts the contributions of one round at a time.

Fog and cloud use the same class. What may come in is decided by `reuna.loop.train`; what came
in is kept by the spool; the sum is folded from the committed rows, never from memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.receiver import SpoolReceiver, commit_all, receipt_of
from reuna.core.errors import BlobNotFound, Refused, ReunaError, Unreachable
from reuna.core.patience import LOOK_S
from reuna.core.ports import Blob, Blobs, Entry, Receiver, Spool
from reuna.core.records import Contribution, Hello, Plan, Receipt, Refusals
from reuna.core.tree import patience
from reuna.exchange.bodies import Between, Check, lot_by_lot, open_body, open_each
from reuna.exchange.buffer import Buffer
from reuna.exchange.moving import ABOVE, Moving
from reuna.learn import staleness
from reuna.learn.distances import Read
from reuna.learn.grid import Ints
from reuna.learn.sums import Part, fold
from reuna.loop import train
from reuna.loop.train import each_refusal
from reuna.wire import decode_plan, message_digest

STARTS_S = 60.0  #: a parent that opened no round since it was started is asked again for so long
FETCHED = 16  #: digests fetched last that are known
RECENT = 4  #: models that children may still fetch where they work on several
Fetch = Callable[[str, int], Awaitable[Blob]]
Announce = Callable[[str], Awaitable[None]]  #: `Intake.ask` gives the plan of that child
Away = Callable[[list[str]], Collection[str]]  #: those of children for whom the round need not wait


def _nobody_is_away(children: list[str]) -> Collection[str]:
    """Where all are waited for until the deadline."""
    return ()


#: A file of the fleet's metadata by name, None when there is none.
Metadata = Callable[[str], bytes | None]


#: A signed release by digest, None when that is none.
Released = Callable[[str], Awaitable[Blob | None]]


async def _no_release(digest: str) -> Blob | None:
    """Where nothing is released: simulations of the round alone."""
    return None


def _no_metadata(name: str) -> bytes | None:
    """Where nothing is signed: simulations of the round alone."""
    return None


class Asked:
    """What one child was asked in the open round."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.plan = decode_plan(data)
        self.digest = message_digest(data)


class Intake:
    """The `Depot` of a fog or the cloud: one open round, its children, their committed rows."""

    def __init__(
        self,
        name: str,
        blobs: Blobs,
        spool: Spool,
        fetch: Fetch | None = None,
        announce_s: float = 1.0,
        metadata: Metadata = _no_metadata,
        released: Released = _no_release,
    ) -> None:
        self.name = name
        self.blobs = blobs
        self.spool = spool
        self.refused: Refusals = {}
        self._told: Refusals = {}  #: those that stand in rows that closed a round
        self._fetch = fetch
        self._announce_s = announce_s
        self._patience = 1.0  #: in deadlines of the open round
        self.metadata = metadata
        self._released = released
        self._asked: dict[str, Asked] = {}
        self._offers: list[
            dict[str, int]
        ] = []  #: digests and sizes that children may fetch, newest round first
        self._fetched: deque[str] = deque(maxlen=FETCHED)
        self._buffer: Buffer | None = None  #: where updates of several rounds make a step
        self._rows: dict[str, Contribution] = {}  #: committed rows of the open round, as in the spool
        self._closed = False
        self._since = 0.0
        self._tried_s: float | None = None  #: when a child first sent something, and no round was open
        self.moving = Moving()
        self._changed = asyncio.Event()
        self._gate = threading.Condition()
        self._counting = threading.Lock()
        self._committing = 0

    # --- the round ---------------------------------------------------------------------------

    def open(self, asked: Mapping[str, bytes]) -> bool:
        """Begin a round: what each child is asked. True when it was closed before a restart."""
        closing = self.closing_row()
        shared = {data: Asked(data) for data in set(asked.values())}
        self._asked = {child: shared[data] for child, data in asked.items()}
        levels = max(train.levels(each.plan, [child]) for child, each in self._asked.items())
        self._patience = patience(levels)
        plan = self._plan()
        self._rows = {row.sender: row for row in self.spool.rows(*plan.key)}
        self._buffer = self._buffered(plan, closing)
        sizes = {plan.model: plan.model_size, plan.bundle: plan.bundle_size, plan.step: plan.step_size}
        self._offers = [sizes, *self._offers][: RECENT if plan.buffer else 1]
        self._since = asyncio.get_running_loop().time()
        self.moving.begin()
        self._closed = self.closing_row() is not None
        self._changed.set()
        return self._closed

    def _buffered(self, plan: Plan, closing: Contribution | None) -> Buffer | None:
        """What is held for a plan beside what answers it; ``closing``: the row of the round that was open."""
        if not plan.buffer:
            return None
        if self._buffer is None or self._buffer.run != plan.run:
            return Buffer(self.name, plan.run, self.spool.rows_of_run(plan.run), plan.round)
        self._buffer.closings = []
        if closing is not None and closing.run == plan.run and closing.round < plan.round:
            self._buffer.take(closing)
        return self._buffer

    def holds(self, asked: Mapping[str, bytes]) -> bool:
        """Whether the open round is this one."""
        return {child: each.data for child, each in self._asked.items()} == asked

    def unsent(self) -> list[Contribution]:
        """Rows that closed rounds before a restart, and may not have reached the parent above."""
        return [] if self._buffer is None else [row for row in self._buffer.closings if row.size]

    def ask(self, child: str) -> bytes | None:
        """The open plan of a child that has not answered yet (for one that says hello)."""
        asked = self._asked.get(child)
        if asked is None or child in self._rows or (self._closed and self._buffer is None):
            return None
        return asked.data

    def hears(self, hello: Hello) -> bool:
        """Whether a child that says hello is to be told the open plan, which it does not work on yet."""
        asked = self._asked.get(hello.node)
        return self.moving.hears(hello, asked.digest if asked else "")

    async def collect(
        self, announce: Announce, away: Away = _nobody_is_away, enough: int | None = None
    ) -> None:
        """Announce the round to whoever has not answered, until all have or the deadline is over.

        It is held open past the deadline, within bounds, while a child's transfer moves, see
        `reuna.core.patience`.

        It ends sooner with ``enough`` members that give (None: as many as the plan says), and when all that
        lack are ``away`` and none of their transfers moves. Those are asked too: who comes back before the
        round is closed may still give.
        """
        enough = self._plan().enough if enough is None else enough
        while True:
            self._changed.clear()
            missing = train.missing(self._asked, list(self._rows))
            waited = asyncio.get_running_loop().time() - self._since
            left = self.moving.ends_s(self._plan().deadline_s * self._patience, missing) - waited
            if not missing or (left <= 0 and not self._is_empty()):
                return
            due = await self.tell(announce)
            if self._may_end(missing, away, enough):
                return
            await self._wait_for_change(self._look_s(left, due - waited))

    async def tell(self, announce: Announce) -> float:
        """Announce the round to whoever has not answered, if due; when it next is (s since the opening)."""
        children, due = self.moving.due(train.missing(self._asked, list(self._rows)))
        if asyncio.get_running_loop().time() - self._since >= due:
            for child in children:
                await announce(child)
            due = self.moving.announced(self._announce_s)
        return due

    def _may_end(self, missing: list[str], away: Away, enough: int) -> bool:
        """Whether the round need not wait for those that lack."""
        if enough and train.is_enough(self._plan(), self.rows(), enough):
            return True
        if self._is_empty() or any(map(self.moving.moves, missing)):
            return False
        return len(away(missing)) == len(missing)

    def _look_s(self, left: float, due: float) -> float:
        """Until the round is looked at again, if nothing comes."""
        looks = [due]
        if left > 0:
            looks.append(left)
        if self.moving.held:
            looks.append(LOOK_S)
        if self._plan().away_s:
            looks.append(self._announce_s)
        return min(looks)

    def _is_empty(self) -> bool:
        """Whether there is nothing to make a step of, where a step is made of what there is."""
        return self._buffer is not None and not train.taking_part(self.rows())

    async def _wait_for_change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0) + 1e-3):
                await self._changed.wait()
        except TimeoutError:
            return

    def rows(self) -> list[Contribution]:
        """Committed contributions of the children in the open round, and what else makes its step."""
        own = [row for sender, row in sorted(self._rows.items()) if sender in self._asked]
        if self._buffer is None:
            return own
        return [*self._buffer.rows(self.closing_row()), *(row for row in own if row.kind == "report")]

    def closing_row(self) -> Contribution | None:
        """The row that closed the open round, if it is closed."""
        return self._rows.get(self.name)

    def freeze(self, key: tuple[str, int, int]) -> list[Contribution]:
        """The rows that count; from here on nothing else is accepted.

        Blocks while one is being committed. Raises `Refused` when another round was opened.
        """
        with self._gate:
            if self._plan().key != key:
                raise Refused("stale", f"round {key[1]} was replaced while it closed")
            self._closed = True
            self._gate.wait_for(lambda: self._committing == 0)
            return self.rows()

    def close(self, row: Contribution, body: Blob | None = None) -> None:
        """Make the close durable: after a restart `closing_row` gives ``row`` again."""
        self.spool.commit(row, body)
        if self._plan().key == (row.run, row.round, row.attempt):
            self._rows[self.name] = row
        for sender, reason, times in each_refusal(row.refused):
            _count(self._told, sender, reason, times)

    @contextmanager
    def committing(self, manifest: Contribution) -> Iterator[None]:
        """Around a commit: the round cannot close in the middle of it. Raises `Refused`."""
        with self._gate:
            self._still_open(manifest)
            self._committing += 1
        try:
            yield
            if (manifest.run, manifest.round, manifest.attempt) == self._plan().key:
                self._rows[manifest.sender] = manifest
            if self._buffer is not None:
                self._buffer.add(manifest)
        finally:
            with self._gate:
                self._committing -= 1
                self._gate.notify_all()

    def sum(self, rows: list[Contribution], params: int) -> Iterator[NDArray[np.int64]]:
        """Blocks of the exact weighted sum over the rows; see `reuna.learn.sums.fold`."""
        bodies = {row.sender: open_body(row, self.spool.body(row)) for row in rows if row.size}

        def read(part: Part[Contribution], start: int, count: int) -> Ints:
            return bodies[part.source.sender](start, count)

        return fold(read, train.parts(rows), params)

    def step(self, rows: list[Contribution], round: int, params: int) -> Iterator[NDArray[np.float64]]:
        """The same where updates may be of several rounds: by `reuna.loop.train.weighted`."""
        parts: list[Part[Between]] = []
        for row in rows:
            if row.size:
                each = open_each(row, self.spool.body(row))
                times, _ = train.weighted(train.given_by(row), round)
                parts += [Part(b, row.width, by) for b, by in zip(each, times, strict=True)]

        def read(part: Part[Between], start: int, count: int) -> Ints:
            return part.source(start, count)

        return staleness.fold(read, parts, params)

    def values(self, rows: list[Contribution]) -> Iterator[Ints]:
        """Integers of the single updates of ``rows``, lot by lot, by node and then by round."""
        found = self._singly(rows)
        for update in sorted(found):
            yield from lot_by_lot(found[update], max(row.params for row in rows))

    def updates(self, rows: list[Contribution]) -> tuple[Read, int]:
        """Single updates of ``rows``, in the order of their nodes' names: how to read them, and how many.

        A row of kind ``update`` has one, of kind ``updates`` one for each member that gave something.
        """
        found = self._singly(rows)
        in_order = [found[update] for update in sorted(found)]

        def read(start: int, count: int) -> NDArray[np.int32]:
            block = np.empty((len(in_order), count), np.int32)
            for values, between in zip(block, in_order, strict=True):
                values[:] = between(start, count)
            return block

        return read, len(found)

    def _singly(self, rows: list[Contribution]) -> dict[tuple[str, int], Between]:
        """Node and round of each update that was given -> how it is read."""
        return {
            (member.node, member.base): between
            for row in rows
            if row.size
            for member, between in zip(train.given_by(row), open_each(row, self.spool.body(row)), strict=True)
        }

    def _plan(self) -> Plan:
        return next(iter(self._asked.values())).plan

    # --- the depot ---------------------------------------------------------------------------

    async def blob(self, peer: str, digest: str) -> Blob:
        """Model and bundle of the open round, to the children that were asked; a signed release to all."""
        size = self._offered(peer, digest)
        if size is None:
            released = await self._released(digest)
            if released is None:
                raise BlobNotFound(f"no blob {digest[:12]} is offered to {peer}")
            return released
        if digest not in self._fetched:
            self._fetched.append(digest)
        held = self.blobs.get(digest)
        if held is not None:
            return held
        if self._fetch is None:
            raise BlobNotFound(f"no blob {digest[:12]} is offered to {peer}")
        fetched = await self._fetch(digest, size)
        self.blobs.know(digest, fetched.hashes)
        held = self.blobs.get(digest)
        if held is None:
            raise BlobNotFound(f"the blob {digest[:12]} was damaged on its way")
        return held

    def was_fetched(self, digest: str) -> bool:
        """Whether a child has asked for a blob of late that a round offers."""
        return digest in self._fetched

    def _offered(self, peer: str, digest: str) -> int | None:
        """Its size, None when the round offers none of that digest to the peer."""
        if peer not in self._asked:
            return None
        return next((sizes[digest] for sizes in self._offers if sizes.get(digest)), None)

    def receive(self, peer: str, manifest: Contribution) -> Receiver | Receipt:
        """Judge the manifest, then take the body from where an earlier try ended.

        Raises `Unreachable` where it is not known yet what is asked: what answers a round that a restarted
        parent is about to open again would be refused otherwise, for its sender may be at a later one.
        """
        asked = self._asked.get(peer)
        try:
            same = self._accepted_before(peer, manifest)
            if same is not None:
                return same
            if not self._asked and self._is_starting():
                raise Unreachable(f"{self.name} was started a moment ago and has opened no round yet")
            if asked and self._closed and train.is_next(asked.plan, manifest):
                raise Unreachable(f"{self.name} carries out round {asked.plan.round} once more")
            plan, digest = (asked.plan, asked.digest) if asked else (None, "")
            if plan is not None and self._buffer is not None:
                plan, digest = train.answers(plan, digest, manifest)
            train.admit(plan, digest, manifest, peer, self._asked, self._closed and self._buffer is None)
            if self._buffer is not None:
                train.counts_twice(manifest, self._buffer.counted)
        except Refused as refusal:
            self.count_refusal(peer, refusal)
            raise
        assert plan is not None
        return RoundReceiver(self, plan, manifest)

    def _is_starting(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._tried_s = now if self._tried_s is None else self._tried_s
        return now - self._tried_s < STARTS_S

    def commit(self, receivers: Sequence[Receiver]) -> Sequence[Receipt | ReunaError]:
        """See `Depot.commit`."""
        return commit_all(self.spool, receivers)

    def _accepted_before(self, peer: str, manifest: Contribution) -> Receipt | None:
        if manifest.sender != peer:
            return None
        row = self._committed(manifest)
        if row is None:
            return None
        if row == manifest:
            return receipt_of(row)
        raise Refused("conflict", f"{peer} sent a second contribution for round {row.round}")

    def _committed(self, manifest: Contribution) -> Contribution | None:
        """The row committed for the manifest's key, in the open round or an earlier one."""
        key = (manifest.run, manifest.round, manifest.attempt)
        if self._asked and key == self._plan().key:
            return self._rows.get(manifest.sender)
        earlier = {row.sender: row for row in self.spool.rows(*key)}
        return earlier.get(manifest.sender)

    def moves(self, peer: str, what: str, done: int, size: int) -> None:
        """See `Depot.moves`."""
        if peer in self._asked:
            self.moving.saw(peer, what, done, size)

    def comes(self, digest: str, done: int, size: int) -> None:
        """So many bytes of what children of the open round wait for have come down to this place itself."""
        if self._offers and digest in self._offers[0]:
            self.moving.saw(ABOVE, digest, done, size)

    async def received(self, receipt: Receipt) -> None:
        """A contribution was committed."""
        self.moving.answered(self._announce_s)
        self._changed.set()

    def _still_open(self, manifest: Contribution) -> None:
        plan = self._plan()
        if self._buffer is not None:
            train.counts_twice(manifest, self._buffer.counted)
            if train.is_behind(plan, manifest):
                return
        if (manifest.run, manifest.round, manifest.attempt) != plan.key:
            raise Refused("stale", f"round {manifest.round} was replaced while {manifest.sender} sent")
        if self._closed and self._buffer is None:
            raise Refused("closed", f"round {manifest.round} closed while {manifest.sender} sent")

    def count_refusal(self, peer: str, refusal: Refused) -> None:
        """Count, so that the operator sees who sends what is refused."""
        with self._counting:
            _count(self.refused, peer, refusal.reason, 1)

    def newly_refused(self) -> Refusals:
        """What was refused and stands in no row that closed a round."""
        found: Refusals = {}
        with self._counting:
            for sender, reason, times in each_refusal(self.refused):
                new = times - self._told.get(sender, {}).get(reason, 0)
                if new:
                    _count(found, sender, reason, new)
        return found


def _count(sums: Refusals, sender: str, reason: str, times: int) -> None:
    of_sender = sums.setdefault(sender, {})
    of_sender[reason] = of_sender.get(reason, 0) + times


class RoundReceiver(SpoolReceiver):
    """One upload into the open round: judged again, as a whole, at the moment of its commit."""

    def __init__(self, intake: Intake, plan: Plan, manifest: Contribution) -> None:
        self._check = Check(plan, manifest)
        super().__init__(intake.spool, manifest, self._check.end)
        self._intake = intake

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """As `SpoolReceiver.write`; what is written is judged at once, and refused when all is there."""
        super().write(data, hashes)
        self._check.see(data)

    def committing(self) -> Generator[Entry, None, Receipt]:
        """As `SpoolReceiver.committing`, unless the round was closed or replaced meanwhile."""
        try:
            with self._intake.committing(self._manifest):
                return (yield from super().committing())
        except Refused as refusal:
            self._intake.count_refusal(self._manifest.sender, refusal)
            raise
