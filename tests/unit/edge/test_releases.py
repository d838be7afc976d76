"""All projects of a node: what the egress writes goes in, what runs goes up and is shown at the machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.sandbox import SandboxLimits
from reuna.core.errors import SandboxTooWeak, Untrusted
from reuna.core.health import Health
from reuna.core.operating import Operating, read_event
from reuna.core.records import Event
from reuna.edge import releases as subject
from reuna.edge.releases import CALM_S, COUNTS_S, STATUS, GraphAlone, Releases, counts_apart_s
from reuna.exchange.choices import ProjectChoice, choices_file
from reuna.loop.operate import Choice, Which
from reuna.wire.build import sha256
from tests.releases import model, runnable


class Passing:
    """A release that stands at once."""

    restarts = 0
    takes_windows = True

    async def golden(self) -> str:
        return ""

    async def close(self) -> None:
        return


async def starts(_project: str, _release: Path, _folder: Path) -> Passing:
    return Passing()


class Node:
    """A state folder, and what went up from it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.events: list[Event] = []
        self.lets = True
        (state / "releases").mkdir()

    async def emit(self, event: Event) -> bool:
        self.events.append(event)
        return self.lets

    def want(self, *projects: str, data: bytes | None = None) -> None:
        told = []
        for project in projects:
            file = data or runnable(1, b"no graph", Health(trial_s=0.0), project)
            (self.state / "releases" / project).write_bytes(file)
            which = Which(1, sha256(file))
            told.append(ProjectChoice(project, Choice((which,)), {which.digest: project}))
        choices_file(self.state).write(told)

    def phases(self) -> dict[str, str]:
        return {each.project: each.phase for each in read_event(self.events[-1])} if self.events else {}

    async def run(self, until: Callable[[], bool]) -> Releases:
        made = Releases("e1", "boot", self.state, (starts, lambda *_: None), self.emit, SystemClock())
        task = asyncio.create_task(made.run())
        try:
            async with asyncio.timeout(20):
                while not until():
                    await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return made


async def test_every_project_of_which_something_is_held_runs_and_is_told_of(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.want("pumps", "ovens")
    await node.run(lambda: node.phases() == {"pumps": "confirmed", "ovens": "confirmed"})
    shown = json.loads((tmp_path / STATUS).read_bytes())
    assert {each["project"]: each["at_work"] for each in shown["projects"]} == {"pumps": True, "ovens": True}
    assert [event.seq for event in node.events] == list(range(len(node.events)))


async def test_without_a_word_from_the_egress_what_ran_runs_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.want("pumps")
    await node.run(lambda: node.phases() == {"pumps": "confirmed"})
    choices_file(tmp_path).path.write_bytes(b"damaged")
    node.events.clear()
    await node.run(lambda: node.phases() == {"pumps": "confirmed"})


async def test_what_the_policy_keeps_here_is_offered_again_later_and_shown_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "AGAIN_S", 0.05)
    node = Node(tmp_path)
    node.lets = False
    node.want("pumps")

    def confirmed() -> bool:
        file: Any = tmp_path / STATUS
        return file.exists() and json.loads(file.read_bytes())["projects"][0]["phase"] == "confirmed"

    await node.run(lambda: confirmed() and len(node.events) > 3)
    assert {event.seq for event in node.events} == {0}, "none of them has left"


async def test_a_graph_alone_tests_itself_in_a_sandbox(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for number, (graph, why) in enumerate(
        [(model(), ""), (model(wrong=True), "of the golden input answers"), (b"no graph", "does not run")]
    ):
        file = tmp_path / f"{number}.release"
        file.write_bytes(runnable(1, graph, Health()))
        found = await (await GraphAlone.start(file, tmp_path / str(number), SandboxLimits(), 0)).golden()
        assert why in found
        assert bool(why) == bool(found)
    with pytest.raises(SandboxTooWeak):
        await GraphAlone.start(tmp_path / "0.release", tmp_path / "weak", SandboxLimits(), 99)
    (tmp_path / "0.release").write_bytes(b"no release")
    with pytest.raises(Untrusted):
        await GraphAlone.start(tmp_path / "0.release", tmp_path / "none", SandboxLimits(), 0)


def test_counts_alone_are_said_seldom_where_nothing_is_on_trial_or_runs_beside() -> None:
    calm = [Operating("pumps", 1, "0" * 64, "confirmed"), Operating("fans", 2, "1" * 64, "rolled_back")]
    assert counts_apart_s(calm) == CALM_S
    for phase in ("trial", "shadow"):
        assert counts_apart_s([*calm, Operating("saws", 1, "2" * 64, phase)]) == COUNTS_S
