"""A tracking server in memory, which can be away."""

from __future__ import annotations

from dataclasses import dataclass, field

from reuna.core.errors import Unreachable
from reuna.core.tracking import Measure, Tracked


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
    """``runs`` by name. While ``away`` every call raises `Unreachable`."""

    uri: str = "memory"
    away: bool = False
    runs: dict[str, Shown] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

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
