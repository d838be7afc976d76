"""A plant's fog under a firm's fog, with real processes: cloud, firm (with a kiln of its own), north, lab.

One fleet carries out two runs: one whose middle fog loses every process it has, and one it sleeps through.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.round import NOOP, job_for
from drills.kill import count_members
from reuna.adapters.events import EventLog
from reuna.adapters.project import load_entry, pack_bundle
from reuna.api import play
from reuna.cloud.files import EVENTS
from reuna.core.records import Flow, RunSpec
from reuna.core.tensors import pack
from reuna.fleet import departures
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, make_fleet, open_fleet
from reuna.fleet.session import follow, prepare, ready
from reuna.fleet.supervise import Supervisor, log_path
from reuna.loop import train
from reuna.loop.plan import learner_settings
from reuna.sim.fleet import SimEdge

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]

PARAMS = 100_000  #: 400 kB a model: it travels as freight
ROUNDS = 12
EDGES = ("kiln", "press", "robot")
ABOVE = {"north": "firm"}
FOGS = {"firm": ("kiln",), "north": ("press",), "lab": ("robot",)}
#: After so many rounds, or as soon as it is there then, which process of the middle fog is killed.
KILLS = {1: "main", 3: "nats", 5: "egress"}


@dataclass
class Told:
    """What came of both runs."""

    fleet: Fleet
    spec: RunSpec
    outcome: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    without: list[dict[str, Any]] = field(default_factory=list)
    came: list[Flow] = field(default_factory=list)
    shape: tuple[Any, ...] = ()
    members: tuple[int, int] = (-1, -1)
    killed: list[str] = field(default_factory=list)

    def rounds(self, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [event["fields"] for event in events if event["what"] == "round"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return asyncio.run(both_runs(tmp_path_factory.mktemp("trees")))


async def both_runs(folder: Path) -> Told:
    job = job_for(folder, PARAMS, 1, ROUNDS, 1, 32, 14)
    data = {fog: dict.fromkeys(edges, folder) for fog, edges in FOGS.items()}
    made = make_fleet(folder / "fleet", "firm", data, announce_s=0.3, above=ABOVE)
    fleet = open_fleet(made.folder / "fleet.toml")
    supervisor, operator = Supervisor(fleet), Operator.of(fleet)
    await supervisor.start()
    try:
        spec, parts = await asyncio.to_thread(prepare, job, fleet, "r-tree")
        found = Told(fleet, msgspec.structs.replace(spec, deadline_s=120.0, evaluate=True))
        await ready(fleet, operator, supervisor)
        before = departures.arrived(fleet)
        for part in parts:
            await asyncio.to_thread(operator.put_blob, part)
        found.shape = await asyncio.to_thread(operator.fleet)
        await with_kills(found, supervisor, operator)
        await without_the_middle(found, supervisor, operator)
    finally:
        await supervisor.stop()  # a place that ends writes down what came to it
    found.came = departures.came(fleet, before)
    found.members = count_members(fleet, found.spec)
    return found


async def with_kills(found: Told, supervisor: Supervisor, operator: Operator) -> None:
    """The whole run; after some rounds a process of the middle fog is killed."""

    def hear(event: dict[str, Any]) -> None:
        found.events.append(event)
        number = event["fields"]["round"] if event["what"] == "round" else 0
        due = [part for after, part in KILLS.items() if after <= number and part not in found.killed]
        pid = dict(supervisor.processes()).get(f"firm/{due[0]}") if due else None
        if pid is not None:  # else the last one killed is not back yet, and several rounds are told at once
            os.kill(pid, signal.SIGKILL)
            found.killed.append(due[0])

    await asyncio.to_thread(operator.submit, found.spec)
    found.outcome = await follow(operator, found.spec.run, hear)


async def without_the_middle(found: Told, supervisor: Supervisor, operator: Operator) -> None:
    """A round of a second run, which the middle fog sleeps through."""
    asleep = [pid for name, pid in supervisor.processes() if name.startswith("firm/")]
    spec = msgspec.structs.replace(
        found.spec, run="r-part", rounds=1, quorum=0.3, deadline_s=2.0, evaluate=False
    )
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(operator.submit, spec)
        await follow(operator, spec.run, found.without.append)
    finally:
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)


def in_one_process(spec: RunSpec) -> str:
    """The digest of the last model of the same run with all edges under one fog, simulated."""
    told = learner_settings(spec)
    learner = load_entry(NOOP, str(told["entry"])).learner(told)
    flat = msgspec.structs.replace(spec, fogs={"fog": EDGES}, above={}, evaluate=False)
    model, edges = pack(learner.init(spec.seed)), {edge: SimEdge(learner, None) for edge in EDGES}
    return play({"fog": edges}, flat, model, pack_bundle(NOOP)).digest


def test_the_middle_fog_loses_every_process_and_the_bits_are_those_of_a_flat_fleet(told: Told) -> None:
    assert told.killed == list(KILLS.values())
    assert told.outcome["model"] == in_one_process(told.spec)
    assert told.members == (0, 0)
    assert all(fields["took_part"] == len(EDGES) for fields in told.rounds(told.events))


def test_every_edge_is_scored_and_speaks_to_the_cloud_through_its_fogs(told: Told) -> None:
    assert sorted(told.outcome["federated"]) == sorted(EDGES)
    assert told.shape == ("firm", FOGS, ABOVE)
    log = EventLog(told.fleet.folder / "cloud" / "state" / EVENTS)
    assert {"kiln", "press", "north", "firm", "lab"} <= {event.node for event in log.read("")}
    log.close()


def test_one_model_crosses_each_link_a_round_and_code_once(told: Told) -> None:
    links = {flow.link for flow in told.came}
    assert {"cloud → firm", "firm → north", "firm → kiln", "north → press"} <= links
    for link in ("cloud → lab", "firm → north", "north → press"):
        kinds = {flow.kind: flow for flow in told.came if flow.link == link}
        assert kinds["bundle"].messages == 1
        assert kinds["model"].messages <= told.spec.rounds + 2  # the evaluation, the round of the other run


def test_a_middle_fog_that_sleeps_costs_its_own_part_and_no_more(told: Told) -> None:
    (closed,) = told.rounds(told.without)
    assert train.read_members(closed["members"]).keys() == {"robot"}
    assert closed["took_part"] == 1


def test_no_place_says_that_something_is_wrong_with_us(told: Told) -> None:
    said = {place.name: log_path(place).read_text() for place in told.fleet.places}
    assert not {name: text[text.index("Traceback") :] for name, text in said.items() if "Traceback" in text}
