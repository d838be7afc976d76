"""Sends what a release answers to the sinks that the site declared, through the egress.

    store of answers ── agent ──socket pair── egress ── sinks

The store of answers is what keeps them meanwhile. For each sink a small file says how far it is; it is
written once the egress says that the sink has a delivery, so that after a crash answers go out again and none
is left out. Sinks do not wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from reuna.adapters.answer_store import Kept, StoredAnswers
from reuna.adapters.checked_file import CheckedFile
from reuna.core.errors import NotUsable, ReunaError
from reuna.core.outcomes import Outcome
from reuna.core.ports import Clock, Offload
from reuna.core.sink_settings import SinkSettings
from reuna.core.sinks import TOGETHER, Progress, begun, counted, following
from reuna.core.sources import ns_of

log = logging.getLogger("reuna.sinks")
SINKS = "sinks"  #: in a node's state folder
MOST = 1 << 20  #: bytes of a sink's file
FIRST_S, LAST_S = 1.0, 60.0  #: between two tries
REFUSED = "the site's policy or the sink refused the last ones; the node's log and ledger say which"


class Deliver(Protocol):
    """See `reuna.exchange.link.Sinks.deliver`."""

    async def __call__(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool: ...


class Sending:
    """One sink of a node. ``folder``: the node's state folder; ``answers``: that of its store of answers."""

    def __init__(
        self,
        settings: SinkSettings,
        folder: Path,
        answers: Path,
        deliver: Deliver,
        clock: Clock,
        offload: Offload,
    ) -> None:
        self._settings = settings
        self._file = progress_file(folder, settings.name)
        self._answers = answers
        self._deliver = deliver
        self._clock = clock
        self._offload = offload
        self._stored: StoredAnswers | None = None
        self._progress: Progress | None = None
        self._waiting: list[Kept] = []  #: what goes out next; the same until it is done with
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
            if self._stored is not None:
                self._stored.close()

    async def turn(self) -> bool:
        """Send what is new, at most `TOGETHER` answers; whether there may be more.

        Raises what the egress and the disk do; then nothing counts as sent.
        """
        try:
            before, waiting = await self._offload(self._look)
        except NotUsable:
            if self._stored is None:  # no release has answered yet
                return False
            raise
        out, after = following(before, waiting, self._settings.chosen, ns_of(self._clock.now()))
        if out:
            arrived = await self._deliver(self._settings.name, waiting[0].number, out)
            if not arrived and before.why != REFUSED:
                log.error("sink %s: %s", self._settings.name, REFUSED)
            after = counted(after, len(out), "" if arrived else REFUSED)
        if after != before:
            await self._keep(after)
        self._waiting, self._said = [], ""
        return len(waiting) == TOGETHER

    def _look(self) -> tuple[Progress, list[Kept]]:
        """Where the sink is, and the next answers."""
        if self._stored is None:
            self._stored = StoredAnswers(self._answers)
        if self._progress is None:
            newest = self._stored.newest(1)
            self._progress = begun(self._file.read(), newest[0].number if newest else 0)
            self._file.path.parent.mkdir(parents=True, exist_ok=True)
            self._file.write(self._progress)
        self._waiting = self._waiting or self._stored.after(self._progress.number, TOGETHER)
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
    deliver: Deliver,
    clock: Clock,
    offload: Offload,
) -> None:
    """To every sink of a node, until cancelled."""
    each = [Sending(settings, folder, answers, deliver, clock, offload).run() for settings in declared]
    await asyncio.gather(*each)
