"""What a release needs on a node that reads its machine: the site's word on its code, data, a predictor.

Its code must be one that the site's policy lets run, as in training; it is asked again while it waits for
approval. Which release answers is decided in `reuna.loop.operate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reuna.adapters.answer_store import AnswerStore
from reuna.adapters.columns import project_folder
from reuna.adapters.sandbox import HIGHEST, SandboxLimits
from reuna.core.ports import Clock, Link
from reuna.core.records import Terms, Work
from reuna.edge.live import Declared, Live, LiveSettings, Watch
from reuna.edge.operate import Asking, OnOutcome, Standing
from reuna.edge.predict import Predictor, held_of, read_release
from reuna.edge.releases import GraphAlone
from reuna.wire import digest_bytes
from reuna.wire.release import CODE

ANSWERS = "answers"  #: in a node's state folder
SHOWN = "shown"  #: in a release's folder: a copy of the node's data with the columns that code may read


@dataclass(frozen=True)
class Place:
    """What of a node a release needs: its state folder, its own data, its limits, and how it is asked.

    ``project``: whose releases answer, '': every project's.
    """

    folder: Path
    data: Path
    limits: SandboxLimits
    min_level: int
    project: str
    live: LiveSettings
    days: float
    mib: int


class Answering:
    """Starts releases and has them asked. ``readings``: folder of the local store."""

    def __init__(
        self,
        place: Place,
        link: Link,
        readings: Path,
        sources: Sequence[Declared],
        clock: Clock,
        watch: Watch | None = None,
    ) -> None:
        self._watch = watch
        self._place = place
        self._link = link
        self._readings = readings
        self._sources = sources
        self._clock = clock
        self._lives: dict[str, Live] = {}
        self._answers = AnswerStore(place.folder / ANSWERS, place.days, place.mib)

    def close(self) -> None:
        """After everybody who asks."""
        self._answers.close()

    def asking(self, project: str, on_outcome: OnOutcome) -> Asking | None:
        """What asks the releases of a project for every window; None: they answer nothing here."""
        if self._place.project not in ("", project):
            return None
        place = self._place
        live = self._lives[project] = Live(
            self._readings,
            self._sources,
            self._answers,
            place.live,
            self._clock,
            on_outcome,
            watch=self._watch,
        )
        return live

    def waiting(self) -> dict[str, int]:
        """Windows of each project that are over and not answered yet."""
        return {project: live.waiting for project, live in self._lives.items()}

    async def start(self, project: str, release: Path, folder: Path) -> Standing:
        """A release in its worker. Raises `NotApproved`, `Refused`, and what `Predictor.start` does."""
        place = self._place
        if place.project not in ("", project):
            return await GraphAlone.start(release, folder, place.limits, place.min_level)
        terms = await self._approved(release)
        data = place.data if terms.columns is None else await asyncio.to_thread(self._shown, folder, terms)
        level = HIGHEST if terms.columns is not None else max(place.min_level, terms.level)
        return await Predictor.start(release, folder, data, place.limits, level, self._clock, terms.columns)

    async def _approved(self, release: Path) -> Terms:
        """What the site's policy says of its code. Raises `NotApproved`, `Refused`."""
        found = await asyncio.to_thread(read_release, release)
        held_of(found)  # before anybody is asked to approve what cannot answer
        code = digest_bytes(found.parts[CODE])
        return await self._link.approved(Work(found.manifest.about.run, code, "inference"))

    def _shown(self, folder: Path, terms: Terms) -> Path:
        """The node's own data, as far as code may see them; beside the predictor's own folder."""
        shown = folder.with_name(f"{folder.name}-{SHOWN}")
        project_folder(self._place.data, terms.columns or (), shown)
        return shown


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
