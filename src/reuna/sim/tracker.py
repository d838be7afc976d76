"""A tracking server in memory, which can be away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reuna.core.errors import Unreachable
from reuna.core.tracking import Measure, Registered, Tracked


@dataclass
class Shown:
    """What it shows of a run."""

    experiment: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    measures: list[Measure] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    state: str = "running"
    version: str = ""


@dataclass
class MemoryTracker:
    """``runs`` by name; ``models`` by name, their releases in the order in which they came.

    While ``away`` every call raises `Unreachable`.
    """

    uri: str = "memory"
    away: bool = False
    runs: dict[str, Shown] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    models: dict[str, list[Registered]] = field(default_factory=dict)
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)

    def put(self, run: Tracked) -> str:
        """As `reuna.core.ports.Tracker`."""
        if self.away:
            raise Unreachable(f"{self.uri} is away")
        if run.run in self.deleted:
            return "deleted"
        shown = self.runs.setdefault(run.run, Shown(run.experiment))
        if run.version and shown.version == run.version:
            return "unchanged"
        shown.params = {**run.params, **shown.params}
        shown.tags |= run.tags
        there = {(each.name, each.step) for each in shown.measures}
        for each in run.measures:
            if (each.name, each.step) not in there:
                there.add((each.name, each.step))
                shown.measures.append(each)
        shown.files |= set(run.files)
        shown.version = run.version
        if run.ended_s is not None:
            shown.state = "failed" if run.failed else "finished"
        return "sent"

    def register(self, release: Registered) -> str:
        """As `reuna.core.ports.Tracker`."""
        if self.away:
            raise Unreachable(f"{self.uri} is away")
        if {release.digest, release.run.run} & self.deleted:
            return "deleted"
        there = self.models.setdefault(release.model, [])
        if release.digest in {each.digest for each in there}:
            return "unchanged"
        if release.run.run not in self.runs:
            self.put(release.run)
        there.append(release)
        return "sent"

    def point(self, model: str, aliases: Mapping[str, str]) -> None:
        """As `reuna.core.ports.Tracker`."""
        if self.away:
            raise Unreachable(f"{self.uri} is away")
        there = {each.digest for each in self.models.get(model, [])}
        now = self.aliases.setdefault(model, {})
        for alias, digest in aliases.items():
            if digest in there:
                now[alias] = digest
            else:
                now.pop(alias, None)
