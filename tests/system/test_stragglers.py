"""A node that is silent on real processes: stopped, not dead, its lines still open. Rounds go on without it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.core.records import AWAY
from reuna.fleet.client import Operator
from reuna.fleet.data import find_nodes, spread
from reuna.fleet.layout import make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.replay import replay
from reuna.fleet.session import Job, prepare, ready, sign_code, train
from reuna.fleet.supervise import Supervisor
from reuna.template import make_project

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
PLAIN = ["strategy.rounds=6", "run.local=false", "round.deadline_s=600", "round.quorum=0.7", "round.away_s=3"]
BUFFERED = [*PLAIN, "strategy.name=fedbuff", "strategy.momentum=", "strategy.buffer=2", "strategy.rounds=12"]


def signal_all(supervisor: Supervisor, node: str, number: int) -> None:
    """Every process of a node: agent, egress, worker."""
    pids = [pid for name, pid in supervisor.processes() if name.split("/")[0] == node]
    assert pids
    for pid in pids:
        os.kill(pid, number)


async def test_a_stopped_node_is_not_waited_for_and_a_buffered_run_is_replayed(tmp_path: Path) -> None:
    project = tmp_path / "pumps"
    make_project(project, sample=True)
    nodes = find_nodes(project / "data")
    fleet = make_fleet(tmp_path / "fleet", "test", spread(nodes, 2))
    for node in nodes:
        file = fleet.folder / node.name / "edge.toml"
        file.write_text("hello_s = 0.5\n" + file.read_text())
    supervisor = Supervisor(fleet)
    job = Job(project, open_settings(project, PLAIN), nodes, tmp_path / "runs", 2)
    sign_code(job, fleet, lambda _event: None)
    try:
        await supervisor.start()
        operator = Operator.of(fleet)
        await ready(fleet, operator, supervisor)
        await asyncio.to_thread(signal_all, supervisor, "pump-3", signal.SIGSTOP)

        told = await carried_out(operator, job, fleet, "r-plain")
        assert [each["took_part"] for each in told["rounds"]] == [3] * 6
        assert all(f"pump-3: {AWAY}" in each["absent"] for each in told["rounds"])
        assert max(each["seconds"] for each in told["rounds"][1:]) < 5 < 600, "only the first finds out"
        assert told["seconds"] < 60, "measuring did not wait for it either"

        job = replace(job, settings=open_settings(project, BUFFERED))
        told = await carried_out(operator, job, fleet, "r-buffered")
        assert len(told["rounds"]) == 12
        assert all(each["took_part"] >= 2 for each in told["rounds"])
        assert told["seconds"] < 60
        found = await replay(project, nodes, told["result"])
        assert (found.same, found.differs) == (True, 0)
    finally:
        await asyncio.to_thread(signal_all, supervisor, "pump-3", signal.SIGCONT)
        await supervisor.stop()


async def carried_out(operator: Operator, job: Job, fleet: Any, run: str) -> dict[str, Any]:
    """Its rounds, how long it took, and what a result of it says."""
    spec, parts = await asyncio.to_thread(prepare, job, fleet, run)
    timeline: list[dict[str, Any]] = []
    began = time.monotonic()
    outcome = await train(operator, spec, parts, job, timeline.append)
    seconds = time.monotonic() - began
    rounds = [event["fields"] for event in timeline if event["what"] == "round"]
    asked = msgspec.to_builtins(spec)
    result = {"run": run, "rounds": spec.rounds, "asked": asked, "timeline": timeline}
    return {"rounds": rounds, "seconds": seconds, "result": {**result, "model_digest": outcome["model"]}}
