"""What all nodes say of their watch, read together: findings, alarms, and word of them to people.

STATE/alarms.json     alarms, open and past, and who has seen them
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.alarm_channels import Channel
from reuna.adapters.events import EventLog
from reuna.adapters.files import read_at_most, replace_file
from reuna.cloud.pause import until_changed
from reuna.core.errors import AlarmNotFound, Corrupted, ReunaError
from reuna.core.foreign import UNREADABLE
from reuna.core.labelled import WHAT as LABELLED
from reuna.core.labelled import Labelled, read_labelled
from reuna.core.operating import WHAT as OPERATES
from reuna.core.operating import read_event
from reuna.core.ports import Clock, Offload
from reuna.core.watched import WHAT, Watched, read_fields
from reuna.loop.monitor import (
    Alarm,
    Finding,
    Heard,
    acknowledged,
    judge,
    raised,
    sent,
    sentence,
    unfit,
    unsent,
)

log = logging.getLogger("reuna.cloud")

MAX_FILE = 16 << 20  #: bytes
GONE_S = 7 * 86_400.0  #: a project of which a node is silent, but not of others, has ended there
FIRST_S, LAST_S = 1.0, 300.0  #: between two tries to send word

_alarms = msgspec.json.Decoder(tuple[Alarm, ...])
Fogs = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Said:
    """The last word of a node of its watch over a project, and when it arrived (epoch s)."""

    node: str
    site: str
    at: float
    said: Watched


class Monitor:
    """``fogs`` gives the fleet of now: who is in none of them is not heard any more."""

    def __init__(
        self,
        fleet: str,
        file: Path,
        events: EventLog,
        fogs: Callable[[], Fogs],
        channels: Sequence[Channel],
        clock: Clock,
        offload: Offload,
    ) -> None:
        """Raises `Corrupted`, `NotUsable` for a file that cannot be read."""
        self._fleet = fleet
        self._file = file
        self._events = events
        self._fogs = fogs
        self._channels = {each.name: each for each in channels}
        self._clock = clock
        self._offload = offload
        self._alarms = _read(file)
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self.changed = asyncio.Event()  #: for who shows what is `standing`

    async def heard(self) -> None:
        """Some node said something new."""
        async with self._turn:
            going = [each.finding for each in self._alarms if not each.ended]
            findings = judge(await self._offload(self._heard), going)
            findings += await self._offload(self._unfit)
            await self._keep(raised(self._alarms, findings, self._clock.now()))

    async def acknowledge(self, number: str, who: str, note: str, *, first: bool = False) -> dict[str, Any]:
        """Somebody has seen an alarm; ``first``: only one that goes on and that nobody has seen before.

        Raises `AlarmNotFound`.
        """
        async with self._turn:
            if first and number not in {each.id for each in self._alarms if not each.ended and not each.by}:
                raise AlarmNotFound(f"there is no alarm {number!r} that goes on and that nobody has seen")
            after = acknowledged(self._alarms, number, who, note, self._clock.now())
            if after is None:
                raise AlarmNotFound(f"there is no alarm {number!r}")
            await self._keep(after)
        return next(self._as_dict(each) for each in after if each.id == number)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Open and past ones, the oldest first."""
        return self._alarms

    def standing(self) -> dict[str, bytes]:
        """Of each alarm that goes on, by its number, what is said of it, as JSON."""
        going = (self._as_dict(each) for each in self._alarms if not each.ended)
        return {
            each["id"]: msgspec.json.encode({key: value for key, value in each.items() if key != "told"})
            for each in going
        }

    async def told(self, project: str) -> dict[str, Watched]:
        """What each node of the fleet told last of its watch over a project, or over one without a name."""
        said = await self._offload(self._said)
        return {each.node: each.said for name in ("", project) for each in said if each.said.project == name}

    async def labelled(self, runs: Sequence[str]) -> dict[str, Labelled]:
        """New labelled rows of each node of the fleet, since the first of these runs that it told of."""
        fleet = {edge for edges in self._fogs().values() for edge in edges}
        told = await self._offload(lambda: self._events.last(LABELLED))
        found = {(event.node, event.run): read_labelled(event) for _, event in told if event.node in fleet}
        since = {node: [run for run in runs if (node, run) in found] for node in sorted(fleet)}
        return {node: found[node, some[0]] for node, some in since.items() if some}

    async def answer(self) -> dict[str, Any]:
        """What each node said last of each project, and the alarms, the newest first."""
        projects: dict[str, dict[str, Any]] = {}
        for each in await self._offload(self._said):
            told = {"site": each.site, "at": each.at, **msgspec.to_builtins(each.said)}
            told.pop("project", None)
            projects.setdefault(each.said.project, {})[each.node] = told
        alarms = [self._as_dict(each) for each in reversed(self._alarms)]
        return {"fleet": self._fleet, "projects": projects, "alarms": alarms}

    async def tell(self) -> None:
        """Send word of alarms over all channels, again until it arrives. Until cancelled."""
        wait = 0.0
        while True:
            failed = False
            for alarm, name in unsent(self._alarms, list(self._channels)):
                failed = not await self._send(alarm, name) or failed
            wait = min(max(FIRST_S, 2 * wait), LAST_S) if failed else 0.0
            await until_changed(self._changed, self._clock, wait)

    async def _send(self, alarm: Alarm, name: str) -> bool:
        try:
            await self._offload(lambda: self._channels[name].send(self._as_dict(alarm)))
        except ReunaError as error:
            log.warning("word of alarm %s did not arrive by %s: %s", alarm.id, name, error)
            return False
        async with self._turn:
            await self._keep(sent(self._alarms, alarm.id, name))
        return True

    async def _keep(self, after: tuple[Alarm, ...]) -> None:
        """Durable before it counts. A full disk is said; then it counts until a restart."""
        if after == self._alarms:
            return
        for each in after[len(self._alarms) :] if len(after) > len(self._alarms) else ():
            log.warning("alarm %s: %s", each.id, sentence(each.finding))
        self._alarms = after
        try:
            await self._offload(lambda: replace_file(self._file, msgspec.json.encode(after)))
        except ReunaError as error:
            log.error("alarms are not written down: %s %s", error.code, error)
        self._changed.set()
        self.changed.set()

    def _said(self) -> list[Said]:
        """What each node of the fleet said last of each project that it runs."""
        sites = {edge: fog for fog, edges in self._fogs().items() for edge in edges}
        found = [
            Said(event.node, sites[event.node], at, read_fields(event.fields))
            for at, event in self._events.last(WHAT)
            if event.node in sites
        ]
        spoke = {each.node: each.at for each in sorted(found, key=lambda each: each.at)}
        return [each for each in found if spoke[each.node] - each.at < GONE_S]

    def _heard(self) -> list[Heard]:
        return [
            Heard(
                each.node,
                each.site,
                alarm=each.said.alarm or each.said.answers_alarm,
                moved=tuple(each.said.moved),
                project=each.said.project,
                errors=each.said.errors_alarm,
            )
            for each in self._said()
        ]

    def _unfit(self) -> tuple[Finding, ...]:
        sites = {edge: fog for fog, edges in self._fogs().items() for edge in edges}
        return unfit({each.node: read_event(each) for _, each in self._events.last(OPERATES)}, sites)

    def _as_dict(self, alarm: Alarm) -> dict[str, Any]:
        found: Finding = alarm.finding
        return {
            "fleet": self._fleet,
            "id": alarm.id,
            "project": found.project,
            "kind": found.kind,
            "sentence": sentence(found),
            "nodes": list(found.nodes),
            "sites": list(found.sites),
            "signals": list(found.signals),
            "since": alarm.since,
            "ended": alarm.ended,
            "by": alarm.by,
            "seen": alarm.seen,
            "note": alarm.note,
            "told": list(alarm.told),
            "next_step": f"reuna watch acknowledge {alarm.id} --fleet …",
        }


def _read(file: Path) -> tuple[Alarm, ...]:
    data = read_at_most(file, MAX_FILE)
    try:
        return _alarms.decode(data) if data else ()
    except UNREADABLE as error:
        raise Corrupted(
            f"{file} cannot be read: {error}", "Take it away; past alarms are lost then."
        ) from error
