"""The site's policy on a fleet of real processes: what code may read, and the switch that stops all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drills.flows import on_wire, relays_of
from drills.recording.relay import Relay
from reuna.adapters.ledger_file import entries
from reuna.adapters.sandbox import HIGHEST, probe
from reuna.adapters.trust_keys import read_key
from reuna.fleet.client import Operator
from reuna.fleet.data import find_nodes, spread
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.officer import amend, key_file
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Job, prepare, ready, sign_code, train
from reuna.fleet.supervise import Supervisor
from reuna.template import make_project
from reuna.trust.ledger import Entry

pytestmark = [pytest.mark.system, pytest.mark.timeout(150)]
ALL = '[sources.data]\ncolumns = ["*"]\n'
SEEN = ["second", "vibration_mm_s", "temperature_c", "flow_m3_h", "fault"]


def ledger(fleet: Fleet, node: str) -> list[Entry]:
    return [entry for _, entry in entries(fleet.folder / node / "state" / "ledger")]


def reasons(fleet: Fleet, node: str, kind: str) -> list[str]:
    return [entry.reason for entry in ledger(fleet, node) if entry.kind == kind]


class Pumps:
    """Three edges under one fog, whose policies differ."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stop = folder, folder / "STOP"
        project = folder / "pumps"
        make_project(project, sample=True)
        nodes = find_nodes(project / "data")[:3]
        self.project, self.nodes = project, nodes
        self.fleet = make_fleet(folder / "fleet", "test", spread(nodes, 1))
        key = read_key(key_file(self.fleet.folder))
        switch = f'\nkill_switch = "{self.stop}"\n\n[signers]\n'
        for place in self.fleet.places[1:]:
            amend(place.folder / "policy.toml", key, "\n[signers]\n", switch)
        listed = ", ".join(f'"{name}"' for name in SEEN)
        self.amend("pump-2", f"[sources.data]\ncolumns = [{listed}]\n")
        self.amend("pump-3", "")
        sign_code(self.job(1), self.fleet, lambda _event: None)

    def job(self, rounds: int) -> Job:
        settings = open_settings(self.project, [f"strategy.rounds={rounds}", "round.quorum=0.3"])
        return Job(self.project, settings, self.nodes, self.folder / "runs", 1)

    def amend(self, node: str, sources: str) -> None:
        key = read_key(key_file(self.fleet.folder))
        amend(self.fleet.folder / node / "policy.toml", key, ALL, sources)

    async def run(
        self, operator: Operator, name: str, rounds: int, watch: Callable[[dict[str, Any]], None]
    ) -> Any:
        job = self.job(rounds)
        spec, parts = await asyncio.to_thread(prepare, job, self.fleet, name)
        return await train(operator, spec, parts, job, watch)


def payload(relays: list[Relay], fleet: Fleet) -> int:
    return sum(on_wire(relays, place.name).total() for place in fleet.places[1:])


async def test_code_reads_what_the_sources_name_and_the_kill_switch_holds_every_byte(tmp_path: Path) -> None:
    pumps = await asyncio.to_thread(Pumps, tmp_path)
    fleet, told = pumps.fleet, list[dict[str, Any]]()
    relays = await relays_of(fleet)
    supervisor = Supervisor(fleet)
    try:
        await supervisor.start()
        operator = Operator.of(fleet)
        await ready(fleet, operator, supervisor)
        await pumps.run(operator, "r-reads", 1, told.append)

        begun = asyncio.Event()
        run = asyncio.create_task(
            pumps.run(operator, "r-stops", 3, lambda event: begun.set() if event["what"] == "round" else None)
        )
        await begun.wait()
        pumps.stop.touch()
        await asyncio.sleep(1.0)  # what is promised: not a byte after that second
        before = payload(relays, fleet)
        await asyncio.sleep(3.0)
        assert payload(relays, fleet) == before, "payload left while the kill switch was on"
        assert not run.done()
        pumps.stop.unlink()
        await run
        assert payload(relays, fleet) > before
    finally:
        await supervisor.stop()
        for relay in relays:
            await relay.stop()

    absent = next(event["fields"]["absent"] for event in told if event["what"] == "round")
    hides = probe().number >= HIGHEST
    assert ("pump-2: R114 its data break the contract" if hides else "pump-2: R206 ") in absent
    assert "pump-3: R303 its site's policy or its egress refuses it" in absent
    assert "pump-1" not in absent
    assert "reads all columns of data for training" in reasons(fleet, "pump-1", "code")
    assert f"reads {', '.join(SEEN)} of data for training" in reasons(fleet, "pump-2", "code")
    assert not reasons(fleet, "pump-3", "code")
    refused = reasons(fleet, "pump-3", "refused")
    assert any(each.startswith("source: the policy has no source named 'data'") for each in refused)
    assert any(each.startswith("stopped: ") for each in reasons(fleet, "pump-1", "refused"))
