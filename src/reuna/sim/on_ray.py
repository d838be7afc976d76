"""Parts of a simulated fleet on a Ray cluster, where one machine is too small."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reuna.adapters.ray_actors import Ended, RayActors
from reuna.core.tree import Above
from reuna.sim.crew import Lost
from reuna.sim.part import Answer, Fogs, Part, Totals
from reuna.sim.storage import MemoryBlob

END_S = 30.0  #: real seconds for the last word of an actor


class RayHands:
    """The `Hands` of a cluster. ``fogs`` of each place, ``over`` them others; ``code``: folder of modules."""

    def __init__(self, fogs: Sequence[Fogs], over: Above, code: Path | None = None) -> None:
        self._fogs = fogs
        self._over = dict(over)
        self._actors = RayActors(len(fogs), code)
        self._model: tuple[str, Any] = ("", None)  #: digest, and where the cluster keeps it

    def begin(self, place: int) -> None:
        self._actors.start(place, partial(_Shipped, dict(self._fogs[place]), self._over))

    def ask(self, place: int, fog: str, plan: bytes, model: MemoryBlob | None) -> None:
        if model is not None and model.digest != self._model[0]:
            self._model = (model.digest, self._actors.keep(model.read(0, model.size)))
        given = self._model if model is not None else ("", None)
        self._actors.call(place, "answer", fog, plan, *given)

    def wait(self, seconds: float) -> list[tuple[int, Answer | Lost]]:
        done = self._actors.wait(seconds)
        return [
            (place, Lost(found.how) if isinstance(found, Ended) else Answer(*found)) for place, found in done
        ]

    def end(self) -> list[Totals]:
        for place in range(len(self._fogs)):
            self._actors.call(place, "end")
        found: list[Totals] = []
        while done := self._actors.wait(END_S):
            found += [totals for _, totals in done if isinstance(totals, Totals)]
        return found

    def kill(self) -> None:
        self._actors.close()


class _Shipped(Part):
    """A part whose model comes as bytes."""

    def answer(  # type: ignore[override]  # over the cluster's line
        self, fog: str, plan: bytes, digest: str, model: bytes | None
    ) -> tuple[Any, ...]:
        given = MemoryBlob(bytes(model), digest) if model is not None else None
        return tuple(super().answer(fog, plan, given))
