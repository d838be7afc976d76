"""Which release answers what an edge reads, and what it needs for that.

The newest release of the project that this node holds and has verified. Its code must be one that the site's
policy lets run, as in training; it is asked again while it waits for approval.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reuna.adapters.answer_store import AnswerStore
from reuna.adapters.columns import project_folder
from reuna.adapters.sandbox import HIGHEST, SandboxLimits
from reuna.core.errors import NotLive, ReunaError
from reuna.core.ports import Clock, Link
from reuna.core.records import Holding, Terms, Work
from reuna.edge.live import Declared, Live, LiveSettings
from reuna.edge.predict import Predictor, held_of, read_release
from reuna.exchange.releases import FOLDER, STATE, Accepted
from reuna.wire import digest_bytes
from reuna.wire.release import CODE

log = logging.getLogger("reuna.live")
ANSWERS = "answers"  #: in a node's state folder
LIVE = "live"  #: in a node's state folder, what a release is unpacked to
LOOK_S = 1.0  #: between two looks for another release
AGAIN_S = (2.0, 60.0)  #: until a release that could not be started is tried again: first, longest


@dataclass(frozen=True)
class Place:
    """What of a node a release needs: its state folder, its own data, its limits, and how it is asked."""

    folder: Path
    data: Path
    limits: SandboxLimits
    min_level: int
    project: str
    live: LiveSettings
    days: float
    mib: int


def newest_held(folder: Path, project: str) -> tuple[Path, Holding] | None:
    """The newest release of a project that a node holds, None when there is none; '': of its only project.

    Raises `NotLive` when it holds several projects and none is named.
    """
    held = Accepted(folder / STATE).read()
    projects = sorted({each.holding.project for each in held})
    if not project and len(projects) > 1:
        raise NotLive(
            f"this node holds releases of {' and '.join(projects)}", "Say with `live.project` which answers."
        )
    of = [each for each in held if each.holding.project == (project or each.holding.project)]
    newest = max(of, key=lambda each: each.holding.version, default=None)
    return None if newest is None else (folder / FOLDER / newest.blob, newest.holding)


class Answering:
    """Has the release that this node is to run answer, from one to the next. Runs until cancelled."""

    def __init__(
        self, place: Place, link: Link, readings: Path, sources: Sequence[Declared], clock: Clock
    ) -> None:
        self._place = place
        self._link = link
        self._clock = clock
        self._answers = AnswerStore(place.folder / ANSWERS, place.days, place.mib)
        self._live = Live(readings, sources, self._answers, place.live, clock)
        self._predictor: Predictor | None = None
        self._number = 0

    async def run(self) -> None:
        """Until cancelled."""
        work = [asyncio.ensure_future(self._live.run()), asyncio.ensure_future(self._follow())]
        try:
            await asyncio.gather(*work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            if self._predictor is not None:
                await self._predictor.close()
            self._answers.close()

    async def _follow(self) -> None:
        """Another release when there is another one; one that cannot be started is tried again."""
        runs, wait, said = "", AGAIN_S[0], ""
        while True:
            pause = LOOK_S
            try:
                found = await asyncio.to_thread(newest_held, self._place.folder, self._place.project)
                if found is not None and found[1].digest != runs:
                    await self._change(found[0])
                    runs, wait, said = found[1].digest, AGAIN_S[0], ""
            except ReunaError as error:
                if str(error) != said:
                    log.error("no release answers: %s %s %s", error.code, error, error.next_step)
                pause, wait, said = wait, min(2 * wait, AGAIN_S[1]), str(error)
            await self._clock.sleep(pause)

    async def _change(self, release: Path) -> None:
        """This one answers from the next window on; the one before does until it can."""
        terms = await self._approved(release)
        data = await asyncio.to_thread(self._shown, terms)
        folder = self._place.folder / LIVE / str(self._number % 2)
        level = HIGHEST if terms.columns is not None else max(self._place.min_level, terms.level)
        limits, columns = self._place.limits, terms.columns
        new = await Predictor.start(release, folder, data, limits, level, self._clock, columns)
        try:
            await self._live.use(new)
        except BaseException:
            await new.close()
            raise
        old, self._predictor, self._number = self._predictor, new, self._number + 1
        about = new.held.about
        log.info("%s %d answers: %s", about.project, about.version, new.held.digest)
        if old is not None:
            await old.close()

    async def _approved(self, release: Path) -> Terms:
        """What the site's policy says of its code. Raises `NotApproved`, `Refused`."""
        found = await asyncio.to_thread(read_release, release)
        held_of(found)  # before anybody is asked to approve what cannot answer
        code = digest_bytes(found.parts[CODE])
        return await self._link.approved(Work(found.manifest.about.run, code, "inference"))

    def _shown(self, terms: Terms) -> Path:
        """The node's own data, as far as code may see them."""
        if terms.columns is None:
            return self._place.data
        shown = self._place.folder / LIVE / f"shown-{self._number % 2}"
        project_folder(self._place.data, terms.columns, shown)
        return shown


async def keep_answering(
    place: Place, link: Link, readings: Path, sources: Sequence[Declared], clock: Clock
) -> None:
    """Answer until cancelled; a store that cannot be used is said in the log, and tried again."""
    while True:
        try:
            await Answering(place, link, readings, sources, clock).run()
        except ReunaError as error:
            log.error("no release answers: %s %s %s", error.code, error, error.next_step)
        await clock.sleep(AGAIN_S[1])


def place_of(settings: dict[str, Any], folder: Path, limits: SandboxLimits) -> Place:
    """From the settings of `reuna.edge.settings.EDGE`."""
    return Place(
        folder,
        Path(settings["data"]).absolute(),
        limits,
        settings["sandbox.min_level"],
        settings["live.project"],
        LiveSettings(settings["live.lateness_s"], settings["live.silent_s"]),
        settings["live.days"],
        settings["live.mib"],
    )
