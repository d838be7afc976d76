"""Runs that the cloud begins again by the clock, kept in a file of its state folder.

What was due while the cloud was away is begun once, at its next look, and not once for each time. A run
has the name of its time, and the journal begins no name twice.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import read_at_most, replace_file
from reuna.core.errors import Corrupted, PlanError, ReunaError, RunNotFound
from reuna.core.foreign import UNREADABLE
from reuna.core.ports import Clock
from reuna.core.records import RunSpec
from reuna.core.schedule import Schedule, following, latest, mistake, reason, run_name
from reuna.loop.plan import by_itself

log = logging.getLogger("reuna.schedules")
LOOK_S = 10.0  #: between two looks at the clock
MAX_FILE = 16 << 20  #: bytes
MOST = 64

Fogs = Mapping[str, tuple[str, ...]]


class Kept(msgspec.Struct, frozen=True):
    """A schedule, since when it is kept (epoch s), and what the run that it repeats was begun with."""

    schedule: Schedule
    since: float
    spec: RunSpec


_kept = msgspec.json.Decoder(list[Kept])


class Schedules:
    """``spec_of`` gives what a run was begun with, ``begin`` begins one and is told why.

    ``fogs`` gives the fleet of now.
    """

    def __init__(
        self,
        file: Path,
        clock: Clock,
        spec_of: Callable[[str], Awaitable[RunSpec]],
        begin: Callable[[str, RunSpec], Awaitable[None]],
        fogs: Callable[[], Fogs],
    ) -> None:
        """Raises `Corrupted`, `NotUsable` for a file that cannot be read."""
        self._file = file
        self._clock = clock
        self._spec_of = spec_of
        self._begin = begin
        self._fogs = fogs
        self._kept = {each.schedule.name: each for each in _read(file)}
        self._last: dict[str, tuple[float, str]] = {}  #: when it was due last, and what went wrong or ''

    async def put(self, schedule: Schedule) -> None:
        """Keep a schedule, durable on return. Raises `RunNotFound`, `PlanError`, `DiskFull`."""
        if wrong := mistake(schedule):
            raise PlanError(f"schedule {schedule.name}: {wrong}")
        if schedule.name not in self._kept and len(self._kept) >= MOST:
            raise PlanError(f"there are {MOST} schedules already", "Take one out first.")
        before = self._kept.get(schedule.name)
        if before is not None and before.schedule == schedule:
            return
        kept = Kept(schedule, self._clock.now(), await self._spec_of(schedule.again))
        self._write({**self._kept, schedule.name: kept})

    def drop(self, name: str) -> None:
        """Forget a schedule. Raises `RunNotFound`, `DiskFull`."""
        if name not in self._kept:
            raise RunNotFound(f"there is no schedule {name!r}", "See which there are: `reuna plan`.")
        self._write({key: each for key, each in self._kept.items() if key != name})

    def listed(self) -> list[dict[str, Any]]:
        """Each with when it is due next, when it was last, and what went wrong then."""
        now, found = self._clock.now(), []
        for name, each in sorted(self._kept.items()):
            due, wrong = self._last.get(name, (None, ""))
            said = {"next": following(each.schedule, now), "last": due, "wrong": wrong}
            found.append({**msgspec.to_builtins(each.schedule), **said})
        return found

    async def keep(self) -> None:
        """Begin what is due. Until cancelled."""
        while True:
            for each in list(self._kept.values()):
                due = latest(each.schedule, self._clock.now())
                done = self._last.get(each.schedule.name, (0.0, ""))[0]
                if due is not None and due > max(each.since, done):
                    await self._begin_at(each, due)
            await self._clock.sleep(self._nap())

    def _nap(self) -> float:
        """Seconds until something is due, at most `LOOK_S`."""
        now = self._clock.now()
        next_due = (following(each.schedule, now) for each in self._kept.values())
        return min([LOOK_S, *(due - now for due in next_due if due is not None)])

    async def _begin_at(self, each: Kept, due: float) -> None:
        name = each.schedule.name
        spec = by_itself(each.spec, run_name(each.schedule, due), self._fogs())
        try:
            await self._begin(reason(each.schedule), spec)
        except ReunaError as error:
            log.error("run %s was due and is not begun: %s %s", spec.run, error.code, error)
            self._last[name] = due, f"{error.code} {error.message}"
        else:
            log.info("run %s is begun, as %s asks", spec.run, name)
            self._last[name] = due, ""

    def _write(self, kept: dict[str, Kept]) -> None:
        replace_file(self._file, msgspec.json.encode(list(kept.values())))
        self._kept = kept


def _read(file: Path) -> list[Kept]:
    data = read_at_most(file, MAX_FILE)
    try:
        return [] if data is None else _kept.decode(data)
    except UNREADABLE as error:
        raise Corrupted(
            f"{file} cannot be read: {error}", f"Move {file} away, and apply the desired state again."
        ) from error
