"""What a release needs on a node that reads its machine: the site's word on its code, data, a predictor.

Its code must be one that the site's policy lets run, as in training; it is asked again while it waits for
approval. Which release answers is decided in `reuna.loop.operate`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reuna.adapters.answer_store import AnswerStore
from reuna.adapters.sandbox import SandboxLimits
from reuna.core.inference import inference
from reuna.core.ports import Clock, Link
from reuna.edge.live import Declared, Live, LiveSettings, Watch
from reuna.edge.operate import Asking, OnOutcome, Standing
from reuna.edge.releases import GraphAlone
from reuna.edge.second import Advise, SecondOpinion
from reuna.exchange.predict import Confines, read_release, stand
from reuna.wire.release import settings

ANSWERS = "answers"  #: in a node's state folder


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
        advise: Advise | None = None,
    ) -> None:
        self._watch = watch
        self._advise = advise
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
            second=None if self._advise is None else SecondOpinion(self._advise, time.monotonic),
        )
        return live

    def waiting(self) -> dict[str, int]:
        """Windows of each project that are over and not answered yet."""
        return {project: live.waiting for project, live in self._lives.items()}

    async def start(self, project: str, release: Path, folder: Path) -> Standing:
        """A release in its worker. Raises `NotApproved`, `Refused`, and what `Predictor.start` does."""
        place = self._place
        found = await asyncio.to_thread(read_release, release)
        if place.project not in ("", project) or inference(settings(found)).place == "fog":
            return await GraphAlone.start(release, folder, place.limits, place.min_level)
        confines = Confines(place.limits, place.min_level)
        return await stand(release, folder, place.data, confines, self._link, self._clock)


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
