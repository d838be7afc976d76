"""What the outside world must offer. Each port has a real adapter and a fake in `reuna.sim`.

Both pass the same contract tests (``tests/contract``). Asynchronous methods may be
cancelled at any await; whatever was reported done stays done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from reuna.core.errors import Refused, ReunaError
from reuna.core.records import (
    Contribution,
    Event,
    Hello,
    Member,
    Metrics,
    Receipt,
    Rehearsal,
    Setting,
    ShownHead,
    Terms,
    Work,
)
from reuna.core.second import Doubtful, Opinions
from reuna.core.tracking import Registered, Tracked

if TYPE_CHECKING:  # a gateway's agent has no use for numpy, and its threads would keep it in the network
    from numpy.typing import NDArray

T = TypeVar("T")
Handler = Callable[[str, bytes], Awaitable[None]]
Tensors: TypeAlias = "Mapping[str, NDArray[Any]]"
Entry: TypeAlias = "tuple[Contribution, Blob | None]"  #: a row to be recorded, and its body


class Clock(Protocol):
    """Time as an argument: wall time in seconds since the epoch, and waiting."""

    def now(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class Offload(Protocol):
    """Runs blocking work (disk, hashing) off the event loop; the simulator runs it in place."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


class Tracker(Protocol):
    """Where people look at runs. Blocking, for one thread; never on the way of a round.

    ``uri`` is its address as a person may read it.
    """

    uri: str

    def put(self, run: Tracked) -> str:
        """Hold all of ``run``; what is there already stays. Raises a `PeerError` or a `StorageError`."""

    def register(self, release: Registered) -> str:
        """Hold a release once, as a version: ``sent``, ``unchanged`` or ``deleted``. Raises as `put`."""

    def point(self, model: str, aliases: Mapping[str, str]) -> None:
        """Let aliases name the versions of these digests, '' for none; others stay. Raises as `put`."""


class Subscription(Protocol):
    async def stop(self) -> None: ...


class Bus(Protocol):
    """Words of at most 1 MB between a node and its parent."""

    async def publish(self, subject: str, data: bytes) -> bool:
        """To whoever listens now: at most once. False when it certainly stayed here."""

    async def subscribe(self, subject: str, handle: Handler) -> Subscription:
        """``subject`` may hold ``*`` for one token and end in ``.>``."""

    async def append(self, subject: str, data: bytes, msg_id: str) -> None:
        """Return when the nearest server has stored it durably.

        Raises `BusDown` when that took longer than the adapter's limit.
        """

    async def follow(self, subject: str, name: str, handle: Handler) -> Subscription:
        """Durable consumer ``name``: at least once, in order, done when ``handle`` returns."""

    async def close(self) -> None: ...


class Blob(Protocol):
    """A readable run of bytes whose digest is known."""

    digest: str
    size: int
    hashes: bytes  #: SHA-256 of each 64 KiB block, joined; empty when nobody has them at hand

    def read(self, offset: int, count: int) -> bytes: ...


#: What makes a contribution to send, and its body; None when there is nothing to send.
Make = Callable[[], tuple[Contribution, Blob | None] | None]


class BlobStore(Protocol):
    """Freight between a node and its parent, by digest; the node's side."""

    async def fetch(self, digest: str, size: int) -> Blob:
        """The blob, each block checked, resumed where a cut stopped it.

        Raises `BlobNotFound`, `Unreachable`, `Corrupted`, `DiskFull`.
        """

    async def send(self, manifest: Contribution, body: Blob | None) -> Receipt:
        """Hand over a contribution; returns when the parent holds it durably.

        Raises `Refused` (final), `Unreachable` (try again).
        """

    async def send_made(self, make: Make) -> Receipt | None:
        """`send` what ``make`` returns, in the thread that made it; None when it makes nothing.

        Raises as `send`, and what ``make`` raises, which may block.
        """

    async def metadata(self, name: str, limit: int) -> bytes | None:
        """A file of the fleet's metadata, of at most ``limit`` bytes and no byte read beyond.

        None when the parent has none. Raises `Unreachable`, `Untrusted` for a larger one.
        """

    async def close(self) -> None: ...


#: What a node does with a plan: its bytes, the signed bytes they came in, and on what terms its code may
#: run here at this moment (`Link.approved`); None: that is to be asked.
HandlePlan = Callable[[bytes, bytes, Terms | None], Awaitable[None]]


class Link(Protocol):
    """All that a place may say to its parent and hear from it. The egress is behind it."""

    async def listen(self, handle: HandlePlan) -> None:
        """Call ``handle`` with each plan for this node whose signature the egress has verified."""

    async def fetch(self, digest: str, size: int) -> Blob:
        """As `BlobStore.fetch`; tries again until it is there or the caller gives up."""

    async def approved(self, work: Work) -> Terms:
        """On what terms the site's policy lets a bundle run and read this node's data.

        Raises `NotApproved` while the site's officers can still let it run, `Refused` ('policy') when
        the policy takes no new code or lets it read nothing.
        """

    async def rehearse(self, plan: bytes, samples: int) -> Rehearsal:
        """What the site's policy would say to a plan's code and to what it would have leave.

        ``samples`` behind the update. Nothing leaves for it, and nothing is written down.
        """

    async def submit(
        self, plan: bytes, weights: Blob | None, weight: int, member: Member, level: int = 0
    ) -> Receipt | None:
        """An edge's answer: encoded on the plan's grid, made durable, then sent until acknowledged.

        ``level`` is that of the sandbox in which the project's code ran.
        ``weights`` is the trained model as `reuna.core.tensors.pack` writes it, None for a
        report. Returns None when the parent refused it for good. Raises `Refused` when our own
        side of the gate refuses it.
        """

    async def hand_over(self, plan: bytes, manifest: Contribution, body: Blob | None) -> Receipt | None:
        """A fog's partial sum for a plan, sent until acknowledged; None when the parent refused it for good.

        Raises `Refused` when the site's policy refuses it.
        """

    async def emit(self, event: Event) -> bool:
        """Return when the event is stored durably on the way up; False when the policy keeps it here.

        Outside of the policy's hours that is when they begin.
        """

    async def hello(self, hello: Hello) -> None:
        """Say that this node is there; the parent answers with the current plan."""


class Receiver(Protocol):
    """The parent's side of one upload."""

    offset: int  #: durable bytes already held; the sender goes on from here

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Whole blocks in order, see `BlobWriter.write`."""

    def suspend(self) -> None:
        """The line was cut: keep what there is, durable, for a later try."""

    def commit(self) -> Receipt:
        """Validate, make durable, record. Blocking. Raises `Refused` and then forgets the body."""

    def committing(self) -> Generator[Entry, None, Receipt]:
        """`commit` in two steps: gives what is to be recorded, and is resumed once it is, or with why not."""


class Depot(Protocol):
    """What a parent offers its children over any freight adapter. ``peer`` is authenticated."""

    async def blob(self, peer: str, digest: str) -> Blob:
        """Raises `BlobNotFound`, `PermissionDenied`."""

    def receive(self, peer: str, manifest: Contribution) -> Receiver | Receipt:
        """A receiver, or at once the receipt of the very same contribution accepted before.

        Raises `Refused`, `PermissionDenied`.
        """

    def commit(self, receivers: Sequence[Receiver]) -> Sequence[Receipt | ReunaError]:
        """`Receiver.commit` of several, forced to the disk together: what came of each. Blocking."""

    def metadata(self, name: str) -> bytes | None:
        """A file of the fleet's metadata; public, to every peer."""

    def count_refusal(self, peer: str, refusal: Refused) -> None:
        """Told of an upload that was refused before, or beside, `receive` and `Receiver.commit`."""

    def moves(self, peer: str, what: str, done: int, size: int) -> None:
        """So many bytes of a transfer to or from a peer are there, of ``size``.

        ``what`` tells transfers apart. Told now and then, and not of those that are quick.
        """

    async def received(self, receipt: Receipt) -> None:
        """Told once after each commit, on the event loop."""


class Witness(Protocol):
    """Whom a node shows the heads of its ledger; in the end the cloud."""

    async def countersign(self, peer: str, shown: ShownHead) -> bytes:
        """The cloud's countersignature, see `reuna.trust.heads`. ``peer`` is authenticated.

        Raises `Refused` (the reason says why), `Unreachable` (the cloud is away; come again).
        """


class Adviser(Protocol):
    """Whom an edge asks about windows that its own model is unsure of: its fog."""

    async def advise(self, peer: str, asked: Doubtful) -> Opinions:
        """What the bigger model says. ``peer`` is authenticated, and alone is told.

        Raises `Refused`; the reason says why: it has too much to do (``full``), it was asked too late, it
        runs no such release, or that release takes other windows.
        """


class Blobs(Protocol):
    """Blobs this machine holds, by digest."""

    def put(self, data: bytes) -> Blob: ...
    def get(self, digest: str) -> Blob | None: ...
    def know(self, digest: str, hashes: bytes) -> None:
        """Hashes of the blocks of a blob that was checked on its way here; wrong ones are ignored."""

    def new(self, size: int) -> BlobWriter: ...
    def force(self, digest: str) -> None:
        """Make durable what was sealed without being so; blocking. Raises what `BlobWriter.seal` does."""

    def drop(self, digest: str, reuse: bool = False) -> None:
        """Forget a blob; nothing happens when it is not there.

        ``reuse``: its place may be written over by blobs to come, and whoever has its file open would see
        these. Else nothing of what was dropped, now or before, is there any more.
        """

    def prune(self, keep: Collection[str], reuse: bool = False) -> None:
        """Drop all blobs but those of ``keep``; ``reuse`` as for `drop`."""


class BlobWriter(Protocol):
    """A blob in the making; nobody sees it before `seal`."""

    def write(self, data: bytes | memoryview, hashes: bytes = b"") -> None:
        """Whole blocks in order (64 KiB; only the last of all may be shorter).

        ``hashes`` are the SHA-256 of each, joined, when the caller has made them already.
        """

    def seal(self, durable: bool = True) -> Blob: ...
    def abandon(self) -> None: ...


class HalfWriter(BlobWriter, Protocol):
    """A blob on its way here, which outlives this process: whoever begins on it again goes on."""

    def found(self) -> Iterator[bytes]:
        """What lies there of an earlier try, unchecked, in whole blocks but for the last.

        Each is to be written (again) or not before the next is asked for.
        """

    def note(self, tail: bytes) -> None:
        """Keep bytes of the next block too, which is not whole yet. No error: they may be lost."""

    def suspend(self) -> None:
        """Nobody writes any more for now; what there is stays."""


class Landing(Blobs, Protocol):
    """Blobs that come down over a line."""

    def half(self, digest: str, size: int) -> HalfWriter:
        """A writer that goes on with what came before. Raises `DiskFull`."""


class Spool(Protocol):
    """Contributions a parent holds. The sum of a round is a pure function of its rows."""

    def begin(self, manifest: Contribution) -> BlobWriter:
        """A writer that goes on at `held(manifest)`."""

    def held(self, manifest: Contribution) -> int:
        """Bytes (whole blocks) already held of this very manifest's body."""

    def commit(self, manifest: Contribution, body: Blob | None) -> None:
        """Record the row durably; ``body`` can be read from then on, as that of the row.

        Raises `Refused('conflict')` for another digest of the same key.
        """

    def commit_all(self, entries: Sequence[Entry]) -> Sequence[ReunaError | None]:
        """`commit` of several, forced to the disk together: what each would raise."""

    def rows(self, run: str, round: int, attempt: int) -> list[Contribution]: ...
    def rows_of_run(self, run: str) -> list[Contribution]:
        """Of all of its rounds and attempts, in their order, by sender."""

    def body(self, row: Contribution) -> Blob: ...
    def drop(self, run: str, before_round: int) -> None:
        """Forget bodies of earlier rounds of the run; rows stay."""


class Journal(Protocol):
    """Durable execution of a run's body: what was journalled is not done again.

    ``life`` counts from 1 how often somebody let the run go on after its end: a step that ended in an
    error is done again in the next one.
    """

    life: int

    async def step(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Run ``work`` at least once and journal its (msgpack-able) result exactly once."""

    async def sleep_until(self, when: float) -> None:
        """Wait until wall time ``when``; a restart does not begin the wait again."""

    async def await_event(self, topic: str, timeout_s: float) -> str | None:
        """The next message for ``topic``, or None after ``timeout_s``."""


class CertificateSource(Protocol):
    """Where a node's certificates come from. Requests are PKCS #10, certificates X.509, both DER.

    The one implementation speaks EST (`reuna.adapters.enrol_client`). This is the seam for other
    ways to come by an identity: an EST server of the plant, BRSKI vouchers, a SPIFFE workload API.
    All block, and raise `NotAdmitted` (final) or `Unreachable` (try again). Certificates come in
    no order.
    """

    def renew(self, request: bytes) -> list[bytes]:
        """The next certificate, and what stands between it and the root."""

    def renew_site(self, request: bytes) -> list[bytes]:
        """A certificate for the authority of this fog's site."""

    def recover(self, certificate: bytes, request: bytes) -> list[bytes]:
        """As `renew`, after the certificate has ended; the request is by its own key."""

    def revoked(self) -> list[str]:
        """Names that the parent has revoked."""


class Learner(Protocol):
    """Four methods; `reuna.checks.check_learner` tells whether they keep their promises.

    ``data`` is what the project's ``load`` made for this node; Reuna never looks inside.
    """

    def init(self, seed: int) -> Tensors:
        """Initial model: name → float32 array; the same seed gives the same bytes."""

    def fit(
        self, model: Tensors, data: Any, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        """Train from ``model``; returns the new model, the number of samples (>= 1), metrics."""

    def evaluate(self, model: Tensors, data: Any, settings: Mapping[str, Setting]) -> Metrics:
        """Finite numbers by name, at most 64."""

    def export(self, model: Tensors) -> bytes:
        """The model as ONNX."""
