"""What triggers look at in a cloud, and what they set going."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from reuna.adapters.operator_api.routes import BEGIN
from reuna.cloud.monitor import Monitor
from reuna.core.errors import RunNotFound
from reuna.core.labelled import Labelled
from reuna.core.ports import Offload
from reuna.core.records import RunSpec
from reuna.core.watched import Watched
from reuna.loop.monitor import Alarm


class Cloud(Protocol):
    """`reuna.cloud.actions.Coordinator`."""

    monitor: Monitor

    def fogs(self) -> dict[str, tuple[str, ...]]: ...
    def over(self) -> dict[str, str]: ...
    async def asked(self, run: str) -> RunSpec: ...
    async def status(self, run: str) -> dict[str, Any]: ...
    async def runs(self) -> list[dict[str, Any]]: ...
    async def begin(self, why: str, what: RunSpec) -> None: ...


class People(Protocol):
    """`reuna.cloud.reception.Reception`."""

    def propose_once(self, who: str, action: str, summary: str, content: bytes) -> str: ...
    def waits(self, id: str) -> bool: ...


class Surroundings:
    """The `World` of `reuna.cloud.trigger`."""

    def __init__(self, cloud: Cloud, people: People, offload: Offload) -> None:
        self._cloud = cloud
        self._people = people
        self._offload = offload
        self.fogs = cloud.fogs
        self.over = cloud.over
        self.asked = cloud.asked
        self.begin = cloud.begin

    def alarms(self) -> tuple[Alarm, ...]:
        return self._cloud.monitor.alarms

    async def told(self, project: str) -> Mapping[str, Watched]:
        return await self._cloud.monitor.told(project)

    async def labelled(self, project: str) -> Mapping[str, Labelled]:
        runs = [each["run"] for each in await self._cloud.runs() if each["project"] == project]
        return await self._cloud.monitor.labelled(runs)

    async def last_of(self, project: str) -> RunSpec | None:
        names = (each["run"] for each in await self._cloud.runs() if each["project"] == project)
        name = next(names, None)
        return await self._cloud.asked(name) if name else None

    async def propose(self, trigger: str, what: RunSpec) -> str:
        summary = (
            f"run {what.run} of {what.project}, {what.why}: {what.rounds} rounds, code {what.bundle[:12]}"
        )
        content, who = msgspec.json.encode(what), f"trigger {trigger}"
        return await self._offload(lambda: self._people.propose_once(who, BEGIN, summary, content))

    async def under_way(self, run: str, proposal: str) -> str:
        waits = await self._offload(lambda: self._people.waits(proposal))
        if waits:
            return f"run {run} waits for a second person: proposal {proposal}"
        try:
            going_on = (await self._cloud.status(run))["state"] == "running"
        except RunNotFound:  # it was proposed, and nobody agreed
            return ""
        return f"run {run} goes on" if going_on else ""
