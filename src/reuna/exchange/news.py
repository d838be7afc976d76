"""How a parent tells its children that newer metadata is there, and how a child listens.

A message of a few bytes to each child when the timestamp changes, and once more after its next hello
where it may have been away. It is a hint: the child walks to what is signed (`reuna.exchange.trust`),
no more often than that module lets it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from reuna.core.errors import BadMessage, PermissionDenied
from reuna.core.foreign import UNREADABLE
from reuna.core.ports import Bus, Clock
from reuna.core.records import Hello, News
from reuna.exchange.trust import TrustGuard
from reuna.trust.roles import LIMITS
from reuna.wire import decode, encode

log = logging.getLogger("reuna.trust")
LOOK_S = 0.25  #: between two looks at the file that changes last
SUBJECT = "news.{}"


class _Signed(msgspec.Struct):
    version: int


class _Timestamp(msgspec.Struct):
    signed: _Signed


_timestamp = msgspec.json.Decoder(_Timestamp)


class Published:
    """The version of the timestamp in a folder that another process writes.

    ``last`` is the file that is replaced when all others are there; read anew only when it changed.
    """

    def __init__(self, timestamp: Path, last: Path) -> None:
        self._timestamp = timestamp
        self._last = last
        self._stamp = (0, 0)
        self._version = 0

    def version(self) -> int:
        """0 when there is none that can be read."""
        try:
            found = self._last.stat()
            stamp = found.st_mtime_ns, found.st_ino
            if stamp != self._stamp:
                with self._timestamp.open("rb") as file:
                    self._version = _timestamp.decode(file.read(LIMITS["timestamp"] + 1)).signed.version
                self._stamp = stamp
        except (OSError, *UNREADABLE):
            return self._version
        return self._version


class NewsDesk:
    """The parent's side. ``children`` are those admitted now, ``version`` that of the newest timestamp."""

    def __init__(
        self, bus: Bus, version: Callable[[], int], children: Callable[[], Collection[str]], clock: Clock
    ) -> None:
        self._bus = bus
        self._version = version
        self._children = children
        self._clock = clock
        self._answered: dict[str, tuple[str, int]] = {}  #: child -> its start, the version it was told then

    async def keep(self, told: Callable[[], None] = lambda: None) -> None:
        """Tell every child of each change, and then ``told``. Until cancelled."""
        known = self._version()
        while True:
            await self._clock.sleep(LOOK_S)
            version = self._version()
            if version == known:
                continue
            known = version
            for child in sorted(self._children()):
                await self._tell(child, version)
            told()

    async def on_hello(self, hello: Hello) -> None:
        """Tell a child that may have missed it: once for each version and start."""
        version = self._version()
        if not version or self._answered.get(hello.node) == (hello.boot, version):
            return
        self._answered[hello.node] = hello.boot, version
        await self._tell(hello.node, version)

    async def _tell(self, child: str, version: int) -> None:
        await self._bus.publish(SUBJECT.format(child), encode(News(version)))


async def listen(bus: Bus, node: str, guard: TrustGuard) -> None:
    """The child's side: the guard hears each hint; what is none is dropped."""

    async def heard(_subject: str, data: bytes) -> None:
        try:
            guard.hear(decode(News, data))
        except BadMessage as error:
            log.debug("dropped news: %s", error)

    try:
        await bus.subscribe(SUBJECT.format(node), heard)
    except PermissionDenied:  # a parent of a version before news
        log.warning("the parent sends no news of metadata; this node looks every hour")
