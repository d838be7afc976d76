"""Sends what a release answers, and the node's own alarms, to the sinks that the site declared.

    store of answers, notices ── agent ──socket pair── egress ── sinks

The store of answers and the file of notices are what keeps them meanwhile. For each sink a small file says
how far it is; it is written once the egress says that the sink has a delivery, so that after a crash answers
go out again and none is left out. Sinks do not wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from reuna.adapters.answer_store import Kept, StoredAnswers
from reuna.adapters.checked_file import CheckedFile
from reuna.core.errors import NotUsable, ReunaError
from reuna.core.notices import Book, KeptNotice, Notice
from reuna.core.outcomes import Outcome
from reuna.core.ports import Clock, Offload
from reuna.core.sink_settings import SinkSettings
from reuna.core.sinks import (
    ALARMS,
    TOGETHER,
    Chosen,
    Progress,
    begun,
    counted,
    following,
    following_notices,
)
from reuna.core.sources import ns_of
from reuna.edge.notices import notices_file

log = logging.getLogger("reuna.sinks")
SINKS = "sinks"  #: in a node's state folder
MOST = 1 << 20  #: bytes of a sink's file
FIRST_S, LAST_S = 1.0, 60.0  #: between two tries
REFUSED = "the site's policy or the sink refused the last ones; the node's log and ledger say which"


class Egress(Protocol):
    """See `reuna.exchange.link.Sinks`."""

    async def deliver(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool: ...
    async def warn(self, sink: str, number: int, notices: Sequence[Notice]) -> bool: ...


class Numbered(Protocol):
    """What waits for a sink has a number that goes up."""

    @property
    def number(self) -> int: ...


W = TypeVar("W", bound=Numbered)
T = TypeVar("T")


class Queue(Protocol[W, T]):
    """What keeps that which goes to a sink: it waits as ``W``, and goes out as ``T``."""

    def newest(self) -> int:
        """Its highest number, 0 without any. Raises `NotUsable` while there is nothing at all."""

    def after(self, number: int) -> list[W]:
        """The next, at most `TOGETHER`."""

    def following(
        self, progress: Progress, waiting: Sequence[W], chosen: Chosen, now_ns: int
    ) -> tuple[list[T], Progress]:
        """See `reuna.core.sinks.following`."""

    async def hand_over(self, sink: str, number: int, out: Sequence[T]) -> bool:
        """See `reuna.exchange.link.Sinks.deliver`."""

    def close(self) -> None: ...


class Answers:
    """The store of answers, opened once there is one. ``folder``: that of the store."""

    def __init__(self, folder: Path, egress: Egress) -> None:
        self._folder = folder
        self._stored: StoredAnswers | None = None
        self.following = following
        self.hand_over = egress.deliver

    def newest(self) -> int:
        newest = self._opened().newest(1)
        return newest[0].number if newest else 0

    def after(self, number: int) -> list[Kept]:
        return self._opened().after(number, TOGETHER)

    def close(self) -> None:
        if self._stored is not None:
            self._stored.close()

    def _opened(self) -> StoredAnswers:
        if self._stored is None:
            self._stored = StoredAnswers(self._folder)
        return self._stored


class OwnAlarms:
    """The file of notices. ``folder``: the node's state folder."""

    def __init__(self, folder: Path, egress: Egress) -> None:
        self._file = notices_file(folder)
        self.following = following_notices
        self.hand_over = egress.warn

    def newest(self) -> int:
        return self._book().newest

    def after(self, number: int) -> list[KeptNotice]:
        return self._book().after(number, TOGETHER)

    def close(self) -> None:
        """No file stays open."""

    def _book(self) -> Book:
        return self._file.read() or Book()


class Sending(Generic[W, T]):
    """One sink of a node. ``folder``: the node's state folder."""

    def __init__(
        self, settings: SinkSettings, folder: Path, queue: Queue[W, T], clock: Clock, offload: Offload
    ) -> None:
        self._settings = settings
        self._file = progress_file(folder, settings.name)
        self._queue = queue
        self._clock = clock
        self._offload = offload
        self._progress: Progress | None = None
        self._waiting: list[W] = []  #: what goes out next; the same until it is done with
        self._said = ""

    async def run(self) -> None:
        """Until cancelled. What goes wrong is said in the log and in the sink's file, and tried again."""
        wait = FIRST_S
        try:
            while True:
                try:
                    more = await self.turn()
                except ReunaError as error:
                    await self._say(f"{error.code} {error}")
                    await self._clock.sleep(wait)
                    wait = min(2 * wait, LAST_S)
                else:
                    wait = FIRST_S
                    if not more:
                        await self._clock.sleep(self._settings.every_s)
        finally:
            self._queue.close()

    async def turn(self) -> bool:
        """Send what is new, at most `TOGETHER` answers or notices; whether there may be more.

        Raises what the egress and the disk do; then nothing counts as sent.
        """
        try:
            before, waiting = await self._offload(self._look)
        except NotUsable:
            if self._progress is None:  # no release has answered yet
                return False
            raise
        out, after = self._queue.following(before, waiting, self._settings.chosen, ns_of(self._clock.now()))
        if out:
            arrived = await self._queue.hand_over(self._settings.name, waiting[0].number, out)
            if not arrived and before.why != REFUSED:
                log.error("sink %s: %s", self._settings.name, REFUSED)
            after = counted(after, len(out), "" if arrived else REFUSED)
        if after != before:
            await self._keep(after)
        self._waiting, self._said = [], ""
        return len(waiting) == TOGETHER

    def _look(self) -> tuple[Progress, list[W]]:
        """Where the sink is, and what is next."""
        if self._progress is None:
            self._progress = begun(self._file.read(), self._queue.newest())
            self._file.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.write(self._progress)
        self._waiting = self._waiting or self._queue.after(self._progress.number)
        return self._progress, self._waiting

    async def _keep(self, after: Progress) -> None:
        await self._offload(lambda: self._file.write(after))
        self._progress = after

    async def _say(self, why: str) -> None:
        """In the log and the sink's file, the same once."""
        if self._said == why:
            return
        self._said = why
        log.error("sink %s: %s", self._settings.name, why)
        if self._progress is None:
            return
        try:
            await self._keep(msgspec.structs.replace(self._progress, why=why))
        except ReunaError as error:
            log.error("sink %s: %s %s", self._settings.name, error.code, error)


def progress_file(folder: Path, sink: str) -> CheckedFile[Progress]:
    """The file in a node's state folder that says how far a sink is."""
    return CheckedFile(folder / SINKS / sink, Progress, MOST)


async def send_all(
    declared: Sequence[SinkSettings],
    folder: Path,
    answers: Path,
    egress: Egress,
    clock: Clock,
    offload: Offload,
) -> None:
    """To every sink of a node, until cancelled. ``answers``: folder of the store of answers."""

    def sending(settings: SinkSettings) -> Coroutine[None, None, None]:
        if settings.chosen.what == ALARMS:
            return Sending(settings, folder, OwnAlarms(folder, egress), clock, offload).run()
        return Sending(settings, folder, Answers(answers, egress), clock, offload).run()

    await asyncio.gather(*map(sending, declared))
