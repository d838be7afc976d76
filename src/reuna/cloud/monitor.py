"""What all nodes say of their watch, read together: findings, alarms, and word of them to people.

STATE/alarms.json     alarms, open and past, and who has seen them
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.alarm_channels import Channel
from reuna.adapters.events import EventLog
from reuna.adapters.files import read_at_most, replace_file
from reuna.cloud.pause import until_changed
from reuna.core.errors import AlarmNotFound, Corrupted, ReunaError
from reuna.core.foreign import UNREADABLE
from reuna.core.ports import Clock, Offload
from reuna.core.watched import WHAT, Watched, read_fields
from reuna.loop.monitor import Alarm, Finding, Heard, acknowledged, judge, raised, sent, sentence, unsent

log = logging.getLogger("reuna.cloud")

MAX_FILE = 16 << 20  #: bytes
FIRST_S, LAST_S = 1.0, 300.0  #: between two tries to send word

_alarms = msgspec.json.Decoder(tuple[Alarm, ...])
Fogs = Mapping[str, Sequence[str]]


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
            findings = judge((await self._offload(self._nodes)).values(), going)
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

    async def told(self) -> dict[str, Watched]:
        """What each node of the fleet told last of its watch."""
        return {node: each for node, (_, _, each) in (await self._offload(self._said)).items()}

    async def answer(self) -> dict[str, Any]:
        """What each node said last, and the alarms, the newest first."""
        said = await self._offload(self._said)
        nodes = {
            node: {"site": site, "at": at, **msgspec.to_builtins(each)}
            for node, (site, at, each) in said.items()
        }
        alarms = [self._as_dict(each) for each in reversed(self._alarms)]
        return {"fleet": self._fleet, "nodes": nodes, "alarms": alarms}

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

    def _said(self) -> dict[str, tuple[str, float, Watched]]:
        """Site, arrival (epoch s) and word of each node of the fleet."""
        sites = {edge: fog for fog, edges in self._fogs().items() for edge in edges}
        return {
            event.node: (sites[event.node], at, read_fields(event.fields))
            for at, event in self._events.last(WHAT)
            if event.node in sites
        }

    def _nodes(self) -> dict[str, Heard]:
        return {
            node: Heard(node, site, alarm=each.alarm or each.answers_alarm, moved=tuple(each.moved))
            for node, (site, _, each) in self._said().items()
        }

    def _as_dict(self, alarm: Alarm) -> dict[str, Any]:
        found: Finding = alarm.finding
        return {
            "fleet": self._fleet,
            "id": alarm.id,
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
