"""The egress beside a place, which is started again whenever it ends (`reuna.exchange.kept`).

The place talks to it through a `RemoteLink` that outlives restarts: calls that were open when
the egress ended are made again, which is safe because each is idempotent. What it has to say goes
where the place's own log goes: its folder may be on a disk that is full.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from reuna.core.errors import Unreachable
from reuna.core.figures import Figure
from reuna.core.line import Rates
from reuna.core.notices import Notice
from reuna.core.outcomes import Outcome
from reuna.core.ports import Blob, HandlePlan
from reuna.core.records import Contribution, Event, Hello, Member, Receipt, Rehearsal, ShownHead, Terms, Work
from reuna.core.second import Doubtful, Opinions
from reuna.exchange.kept import Lives
from reuna.exchange.link import EgressSettings, Frames, RemoteLink

T = TypeVar("T")
EGRESS: tuple[str, ...] = ("-m", "reuna.exchange.process")
EGRESS_S = 0.2  #: between two starts of it, at most


class EgressProcess:
    """The `Link` port over an egress process that is kept running (`reuna.exchange.kept`).

    ``metrics``: a socket that listens for scrapes, for the egress alone.
    """

    def __init__(self, settings: EgressSettings, metrics: socket.socket | None = None) -> None:
        number = -1 if metrics is None else metrics.fileno()
        self._settings = msgspec.structs.replace(settings, metrics=number)
        self._metrics = metrics
        self._link: asyncio.Future[RemoteLink] = asyncio.get_running_loop().create_future()
        self._handle: HandlePlan | None = None
        #: Told of bytes of a blob that is slow to come: its digest, those that came, all.
        self.on_comes: Callable[[str, int, int], None] | None = None

    @property
    def what(self) -> str:
        """See `Companion.what`."""
        return f"egress of {self._settings.name}"

    def lives(self) -> Lives:
        """See `Companion.lives`."""
        settings = msgspec.json.encode(self._settings).decode()
        return Lives(EGRESS, settings, EGRESS_S, () if self._metrics is None else (self._metrics,))

    async def live(self, ours: socket.socket) -> None:
        """See `Companion.live`: what is asked of it meanwhile is asked over this line."""
        frames = await Frames.over(ours)
        link = RemoteLink(frames)
        link.on_comes = self.on_comes or link.on_comes
        if self._handle is not None:
            await link.listen(self._handle)
        self._link.set_result(link)
        try:
            await link.run()
        finally:
            self._link = asyncio.get_running_loop().create_future()
            frames.close()

    @property
    def rates(self) -> Rates:
        """What the line up carried last, as far as this egress knows."""
        return self._link.result().rates if self._link.done() else Rates()

    async def listen(self, handle: HandlePlan) -> None:
        self._handle = handle
        if self._link.done():
            await self._link.result().listen(handle)

    async def fetch(self, digest: str, size: int) -> Blob:
        return await self._again(lambda link: link.fetch(digest, size))

    async def approved(self, work: Work) -> Terms:
        return await self._again(lambda link: link.approved(work))

    async def rehearse(self, plan: bytes, samples: int) -> Rehearsal:
        return await self._again(lambda link: link.rehearse(plan, samples))

    async def submit(
        self, plan_bytes: bytes, weights: Blob | None, weight: int, member: Member, level: int = 0
    ) -> Receipt | None:
        return await self._again(lambda link: link.submit(plan_bytes, weights, weight, member, level))

    async def hand_over(self, plan: bytes, manifest: Contribution, body: Blob | None) -> Receipt | None:
        return await self._again(lambda link: link.hand_over(plan, manifest, body))

    async def emit(self, event: Event) -> bool:
        return await self._again(lambda link: link.emit(event))

    async def hello(self, hello: Hello) -> None:
        await self._again(lambda link: link.hello(hello))

    async def below(self, names: Sequence[str]) -> None:
        await self._again(lambda link: link.below(names))

    async def countersign(self, shown: ShownHead) -> bytes:
        return await self._again(lambda link: link.countersign(shown))

    async def certify(self, name: str, under: str, request: bytes) -> Sequence[bytes]:
        return await self._again(lambda link: link.certify(name, under, request))

    async def deliver(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool:
        return await self._again(lambda link: link.deliver(sink, number, outcomes))

    async def tell(self, process: str, figures: Sequence[Figure]) -> None:
        await self._again(lambda link: link.tell(process, figures))

    async def warn(self, sink: str, number: int, notices: Sequence[Notice]) -> bool:
        return await self._again(lambda link: link.warn(sink, number, notices))

    async def advise(self, asked: Doubtful) -> Opinions:
        return await self._again(lambda link: link.advise(asked))

    async def _again(self, call: Callable[[RemoteLink], Awaitable[T]]) -> T:
        while True:
            link = await asyncio.shield(self._link)
            try:
                return await call(link)
            except Unreachable:
                if self._link.done() and self._link.result() is link:
                    raise
