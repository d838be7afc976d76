"""A place and its egress are two processes; this carries the calls between them.

One Unix socket pair, made by the place and inherited by the egress. Frames are a length and
msgpack of a closed set of typed messages; the egress relays nothing it does not understand.
Large bodies stay in files that both can read: only their paths cross. A plan crosses once: who answers one
of the last that came over this very line says which.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from reuna.adapters import framed
from reuna.adapters.files import FileBlob, HeldBlob
from reuna.core.errors import BadMessage, Corrupted, ReunaError, Unreachable
from reuna.core.figures import Figure
from reuna.core.foreign import UNREADABLE, told
from reuna.core.line import Rates
from reuna.core.notices import Notice
from reuna.core.outcomes import Outcome
from reuna.core.ports import Blob, HandlePlan, Link
from reuna.core.records import Contribution, Event, Hello, Member, Receipt, Rehearsal, ShownHead, Terms, Work
from reuna.core.second import Doubtful, Opinions
from reuna.trust.policy import DATASET

MAX_FRAME = 4_000_000
ENDED = "the egress process of this node ended"
PLANS = 4  #: plans that crossed a line are known by their number there, the last ones


class EgressSettings(msgspec.Struct, frozen=True):
    """Where the parent is and who this node is. Paths are absolute.

    ``bus`` and ``freight`` are role and name of the servers behind ``nats_url`` and
    ``freight_host``. With ``enrol`` (``host:port``) the certificate is renewed there; ``site`` is
    the folder of the site's authority, which is renewed too and serves under ``hosts``. ``heads_s``:
    seconds between two heads of the ledger. ``dataset``: what the policy's sources call this node's data.
    ``sinks``: file of the sinks of its answers, '' for none. ``metrics``: number of an inherited socket that
    listens for scrapes, -1 for none.
    """

    name: str
    parent: str
    parent_identity: str
    nats_url: str
    freight_host: str
    freight_port: int
    certificate: str
    key: str
    authority: str
    folder: str
    fleet: str
    root: str
    policy: str
    bus: tuple[str, str]
    freight: tuple[str, str]
    enrol: str = ""
    site: str = ""
    hosts: tuple[str, ...] = ()
    heads_s: float = 60.0
    dataset: str = DATASET
    sinks: str = ""
    metrics: int = -1

    @property
    def passes_on(self) -> bool:
        """Whether this is a fog: its bus is its own, and releases are for the edges below it."""
        return self.bus[1] == self.name


class Fetch(msgspec.Struct, tag=True):
    digest: str
    size: int


class Approved(msgspec.Struct, tag=True):
    work: Work


class Rehearse(msgspec.Struct, tag=True):
    plan: bytes
    samples: int


class Submit(msgspec.Struct, tag=True):
    """``heard``: number of the plan among those that crossed this line, instead of its bytes; 0 for none."""

    plan: bytes
    weights: str | None  #: the file that they are in
    weight: int
    member: Member
    level: int
    data: bytes = b""  #: small weights themselves
    heard: int = 0


class HandOver(msgspec.Struct, tag=True):
    """``heard`` as in `Submit`."""

    plan: bytes
    manifest: Contribution
    body: str | None  #: the file that it is in
    hashes: bytes  #: of the body's blocks; the parent finds out when they are wrong
    data: bytes = b""  #: a small body itself
    heard: int = 0


class Emit(msgspec.Struct, tag=True):
    event: Event


class Say(msgspec.Struct, tag=True):
    hello: Hello


class Countersign(msgspec.Struct, tag=True):
    shown: ShownHead


class Deliver(msgspec.Struct, tag=True):
    sink: str
    number: int
    outcomes: list[Outcome]


class Tell(msgspec.Struct, tag=True):
    process: str
    figures: list[Figure]


class Warn(msgspec.Struct, tag=True):
    sink: str
    number: int
    notices: list[Notice]


class Advise(msgspec.Struct, tag=True):
    asked: Doubtful


class Certify(msgspec.Struct, tag=True):
    """The authority of the site of a fog ``name`` under ``under``: a request (PKCS #10, DER)."""

    name: str
    under: str
    request: bytes


class Below(msgspec.Struct, tag=True):
    names: tuple[str, ...]


SinkWord = Deliver | Warn
Word = Emit | Say | Below | Countersign | Tell | Advise | Certify
Answer = Submit | HandOver
Request = Fetch | Approved | Rehearse | Answer | SinkWord | Word


class Call(msgspec.Struct, tag=True):
    """From the place to its egress."""

    number: int
    request: Request


class Done(msgspec.Struct, tag=True):
    """The egress's answer: a path, terms, a receipt, whether it is there, or an error by its code.

    ``up``: bytes a second that the line up carried last, None while that is not known. ``forgot``: the
    plan is none of the last that crossed this line, and nothing was done.
    """

    number: int
    path: str | None = None
    hashes: bytes = b""
    terms: Terms | None = None
    rehearsal: Rehearsal | None = None
    stored: bool = False
    receipt: Receipt | None = None
    signed: bytes = b""
    certificates: tuple[bytes, ...] = ()
    opinions: Opinions | None = None
    up: float | None = None
    forgot: bool = False
    code: str = ""
    reason: str = ""
    message: str = ""


class Heard(msgspec.Struct, tag=True):
    """A plan that the parent published, verified; see `HandlePlan`. ``signed`` is for who passes it on."""

    plan: bytes
    signed: bytes
    terms: Terms | None


class Comes(msgspec.Struct, tag=True):
    """So many bytes of a blob that is slow to come have come."""

    digest: str
    done: int
    size: int


_encode = msgspec.msgpack.Encoder().encode
_calls = msgspec.msgpack.Decoder(Call)
_answers = msgspec.msgpack.Decoder(Done | Heard | Comes)
M = TypeVar("M")


def _read(decoder: msgspec.msgpack.Decoder[M], frame: bytes) -> M:
    """The message in a frame. Raises `BadMessage`."""
    try:
        return decoder.decode(frame)
    except UNREADABLE as error:
        raise BadMessage(f"a frame between place and egress that cannot be read: {error}") from error


class Frames(framed.Frames):
    """Messages over one socket, a frame each."""

    def __init__(self, most: int = MAX_FRAME) -> None:
        super().__init__(most)

    @classmethod
    async def over(cls, sock: socket.socket, most: int = MAX_FRAME) -> Frames:
        """Take over an open socket."""
        return await super().over(sock, most)

    def write(self, message: msgspec.Struct) -> None:
        self.send(_encode(message))


class Crossed:
    """The last plans that crossed one line, by number; both ends count alike, from 1."""

    def __init__(self) -> None:
        self._plans: dict[int, bytes] = {}
        self._count = 0

    def add(self, plan: bytes) -> None:
        """The next one crosses."""
        self._count += 1
        self._plans[self._count] = plan
        self._plans.pop(self._count - PLANS, None)

    def number(self, plan: bytes) -> int:
        """That of these bytes, 0 when they are none of the last."""
        return next((number for number, each in self._plans.items() if each == plan), 0)

    def plan(self, number: int) -> bytes | None:
        """The bytes of that number, None when it is none of the last."""
        return self._plans.get(number)


def _nobody_waits(digest: str, done: int, size: int) -> None:
    """Where nobody is below."""


class RemoteLink:
    """The `Link` port at the place; the egress process is behind the socket."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Done]] = {}
        self._plans: asyncio.Queue[Heard | None] = asyncio.Queue()
        self._handle: HandlePlan | None = None
        self._crossed = Crossed()
        self._ended = False
        self.on_comes: Callable[[str, int, int], None] = _nobody_waits
        self.rates = Rates()  #: of the line up, as the egress said last

    async def run(self) -> None:
        """Take answers and plans until the egress is gone; then every open call fails.

        Raises `BadMessage`.
        """
        self._frames.take(self._take)
        try:
            while (heard := await self._plans.get()) is not None:
                if self._handle is not None:
                    await self._handle(heard.plan, heard.signed, heard.terms)
            self._frames.judge()
        finally:
            self._ended = True
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Unreachable(ENDED))

    def _take(self, frame: bytes | None) -> None:
        answer = None if frame is None else _read(_answers, frame)
        if isinstance(answer, Comes):
            self.on_comes(answer.digest, answer.done, answer.size)
            return
        if not isinstance(answer, Done):
            if answer is not None:
                self._crossed.add(answer.plan)
            self._plans.put_nowait(answer)
            return
        waiting = self._waiting.pop(answer.number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def listen(self, handle: HandlePlan) -> None:
        self._handle = handle

    async def fetch(self, digest: str, size: int) -> Blob:
        done = await self._call(Fetch(digest, size))
        return FileBlob(Path(done.path or ""), digest, size, done.hashes)

    async def approved(self, work: Work) -> Terms:
        terms = (await self._call(Approved(work))).terms
        if terms is None:
            raise BadMessage("the egress of this node says nothing of what code may do")
        return terms

    async def rehearse(self, plan: bytes, samples: int) -> Rehearsal:
        rehearsal = (await self._call(Rehearse(plan, samples))).rehearsal
        if rehearsal is None:
            raise BadMessage("the egress of this node says nothing of what the policy would say")
        return rehearsal

    async def submit(
        self, plan_bytes: bytes, weights: Blob | None, weight: int, member: Member, level: int = 0
    ) -> Receipt | None:
        if isinstance(weights, HeldBlob):
            request = Submit(b"", None, weight, member, level, weights.data)
        else:
            request = Submit(b"", _path(weights), weight, member, level)
        done = await self._answer(request, plan_bytes)
        return done.receipt

    async def hand_over(self, plan: bytes, manifest: Contribution, body: Blob | None) -> Receipt | None:
        hashes = body.hashes if body else b""
        if isinstance(body, HeldBlob):
            request = HandOver(b"", manifest, None, hashes, body.data)
        else:
            request = HandOver(b"", manifest, _path(body), hashes)
        done = await self._answer(request, plan)
        self.rates = Rates(done.up)
        return done.receipt

    async def _answer(self, request: Answer, plan: bytes) -> Done:
        """Hand on an answer to a plan: by its number, where it is one of the last that came."""
        if number := self._crossed.number(plan):
            done = await self._call(msgspec.structs.replace(request, heard=number))
            if not done.forgot:
                return done
        return await self._call(msgspec.structs.replace(request, plan=plan))

    async def emit(self, event: Event) -> bool:
        return (await self._call(Emit(event))).stored

    async def hello(self, hello: Hello) -> None:
        await self._call(Say(hello))

    async def below(self, names: Sequence[str]) -> None:
        """See `Teller.tell`."""
        await self._call(Below(tuple(names)))

    async def countersign(self, shown: ShownHead) -> bytes:
        """See `Heads.countersign`."""
        return (await self._call(Countersign(shown))).signed

    async def certify(self, name: str, under: str, request: bytes) -> Sequence[bytes]:
        """See `Sites.certify`."""
        return (await self._call(Certify(name, under, request))).certificates

    async def deliver(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool:
        """See `Sinks.deliver`."""
        return (await self._call(Deliver(sink, number, list(outcomes)))).stored

    async def tell(self, process: str, figures: Sequence[Figure]) -> None:
        """See `Figures.tell`."""
        await self._call(Tell(process, list(figures)))

    async def warn(self, sink: str, number: int, notices: Sequence[Notice]) -> bool:
        """See `Sinks.warn`."""
        return (await self._call(Warn(sink, number, list(notices)))).stored

    async def advise(self, asked: Doubtful) -> Opinions:
        """See `Fog.advise`."""
        opinions = (await self._call(Advise(asked))).opinions
        if opinions is None:
            raise BadMessage("the egress of this node says nothing of what the fog says")
        return opinions

    async def _call(self, request: Request) -> Done:
        if self._ended:
            raise Unreachable(ENDED)
        self._number += 1
        number = self._number
        waiting: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._frames.write(Call(number, request))
        try:
            done = await waiting
        finally:
            self._waiting.pop(number, None)
        if done.code:
            raise _error(done)
        return done


def _path(blob: Blob | None) -> str | None:
    if blob is None:
        return None
    path: Path = blob.path  # type: ignore[attr-defined]  # blobs of a real place lie in files
    return str(path)


def _error(done: Done) -> ReunaError:
    return told(done.code, done.message, reason=done.reason) or Unreachable(done.message)


class Heads(Protocol):
    """What in the egress passes on heads of ledgers."""

    async def countersign(self, shown: ShownHead) -> bytes:
        """The cloud's countersignature. Raises `Refused`, `Unreachable`, `DiskFull`, `Corrupted`."""


class Sinks(Protocol):
    """What in the egress hands answers to the sinks that its settings name."""

    async def deliver(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool:
        """Return when the sink has these answers; False when the site's policy or the sink never takes them.

        ``number`` is that of the delivery: the same ones again have the same. Raises `BadMessage` for a sink
        that is not there; `Unreachable` or a `StorageError` when it is to be tried again.
        """

    async def warn(self, sink: str, number: int, notices: Sequence[Notice]) -> bool:
        """`deliver`, of the node's own alarms."""


class Fog(Protocol):
    """What in the egress asks the fog about windows that the edge is unsure of."""

    async def advise(self, asked: Doubtful) -> Opinions:
        """What the fog says, an opinion for each window. Asked once; an answer that is late is none.

        Raises `Refused` ('policy' when the site's policy keeps the windows here), `Unreachable`,
        `BadMessage`, `DiskFull`.
        """


class Sites(Protocol):
    """What in the egress asks the parent to certify the sites of fogs under this one."""

    async def certify(self, name: str, under: str, request: bytes) -> Sequence[bytes]:
        """Certificates (DER). Raises `NotAdmitted`, `Unreachable`."""


class Figures(Protocol):
    """What in the egress shows figures of the place's processes."""

    def tell(self, process: str, figures: Sequence[Figure]) -> None:
        """Take the place of what that process told before. Raises `BadMessage`."""


class Teller(Protocol):
    """What in a fog's egress tells its parent who is below."""

    async def tell(self, names: Collection[str]) -> None:
        """Those are; what is new of that goes up."""

    async def in_hello(self, hello: Hello) -> Hello:
        """The place's hello as it goes up."""


class LinkServer:
    """The egress's side: serves the calls of its place, several at a time.

    ``figures``: None shows none; ``roster``: None where nobody is below; ``rates``: what the line carries.
    """

    def __init__(
        self,
        frames: Frames,
        link: Link,
        heads: Heads,
        sinks: Sinks,
        fog: Fog,
        sites: Sites,
        figures: Figures | None = None,
        roster: Teller | None = None,
        rates: Callable[[], Rates] = Rates,
    ) -> None:
        self._rates = rates
        self._sites = sites
        self._figures = figures
        self._roster = roster
        self._frames = frames
        self._crossed = Crossed()
        self._link = link
        self._heads = heads
        self._sinks = sinks
        self._fog = fog
        self._gone = asyncio.Event()  #: the place is
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the place is gone. Raises `BadMessage`."""
        await self._link.listen(self._heard)
        self._frames.take(self._take)
        await self._gone.wait()
        self._frames.judge()

    def _take(self, frame: bytes | None) -> None:
        if frame is None:
            self._gone.set()
            return
        task = asyncio.create_task(self._serve(_read(_calls, frame)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for the calls under way, and give up those that take longer."""
        if tasks := set(self._tasks):
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()

    def comes(self, digest: str, done: int, size: int) -> None:
        """Tell the place of a transfer; on the event loop."""
        self._frames.write(Comes(digest, done, size))

    async def _heard(self, plan: bytes, signed: bytes, terms: Terms | None) -> None:
        self._crossed.add(plan)
        self._frames.write(Heard(plan, b"" if self._roster is None else signed, terms))

    async def _serve(self, call: Call) -> None:
        try:
            done = await self._carry_out(call)
        except ReunaError as error:
            reason = getattr(error, "reason", "")
            done = Done(call.number, code=error.code, reason=reason, message=error.message)
        self._frames.write(done)

    async def _carry_out(self, call: Call) -> Done:
        request, number = call.request, call.number
        if isinstance(request, Fetch):
            blob = await self._link.fetch(request.digest, request.size)
            return Done(number, path=_path(blob), hashes=blob.hashes)
        if isinstance(request, Approved):
            return Done(number, terms=await self._link.approved(request.work))
        if isinstance(request, Rehearse):
            return Done(number, rehearsal=await self._link.rehearse(request.plan, request.samples))
        if isinstance(request, Submit | HandOver):
            return await self._hand_on(number, request)
        if isinstance(request, Deliver | Warn):
            return Done(number, stored=await self._to_sink(request))
        return await self._say(number, request)

    async def _hand_on(self, number: int, request: Answer) -> Done:
        plan = self._crossed.plan(request.heard) if request.heard else request.plan
        if plan is None:
            return Done(number, forgot=True)
        receipt = await self._answer(request, plan)
        return Done(number, receipt=receipt, up=self._rates().up)

    async def _answer(self, request: Answer, plan: bytes) -> Receipt | None:
        if isinstance(request, Submit):
            weights = HeldBlob(request.data, "") if request.data else _blob(request.weights)
            return await self._link.submit(plan, weights, request.weight, request.member, request.level)
        digest, hashes = request.manifest.digest, request.hashes
        held = HeldBlob(request.data, digest, hashes) if request.data else None
        body = held or _blob(request.body, digest, hashes)
        return await self._link.hand_over(plan, request.manifest, body)

    async def _to_sink(self, request: SinkWord) -> bool:
        if isinstance(request, Warn):
            return await self._sinks.warn(request.sink, request.number, request.notices)
        return await self._sinks.deliver(request.sink, request.number, request.outcomes)

    async def _say(self, number: int, request: Word) -> Done:
        """Words rather than freight."""
        if isinstance(request, Tell):
            if self._figures is not None:
                self._figures.tell(request.process, request.figures)
            return Done(number)
        if isinstance(request, Certify):
            found = await self._sites.certify(request.name, request.under, request.request)
            return Done(number, certificates=tuple(found))
        if isinstance(request, Advise):
            return Done(number, opinions=await self._fog.advise(request.asked))
        if isinstance(request, Emit):
            return Done(number, stored=await self._link.emit(request.event))
        if isinstance(request, Countersign):
            return Done(number, signed=await self._heads.countersign(request.shown))
        await self._say_who(request)
        return Done(number)

    async def _say_who(self, request: Say | Below) -> None:
        """That it is there, and who is below it."""
        if isinstance(request, Say):
            said = request.hello
            await self._link.hello(said if self._roster is None else await self._roster.in_hello(said))
        elif self._roster is not None:
            await self._roster.tell(request.names)


def _blob(path: str | None, digest: str = "", hashes: bytes = b"") -> FileBlob | None:
    if path is None:
        return None
    file = Path(path)
    try:
        return FileBlob(file, digest, file.stat().st_size, hashes)
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        raise Corrupted(f"a body of the place cannot be opened: {error}") from error
