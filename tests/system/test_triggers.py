"""Runs that begin by themselves on real processes: what edges say over the real bus, and a cloud that is killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.tls import client_context
from reuna.core.errors import ReunaError
from reuna.core.records import Event
from reuna.core.trigger import Trigger
from reuna.core.watched import WHAT, Watched, as_fields
from reuna.fleet.client import Operator
from reuna.fleet.data import find_nodes, spread
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Job, prepare, ready, sign_code, train
from reuna.fleet.supervise import Supervisor
from reuna.template import make_project
from reuna.wire import encode

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
MOVED = Watched(rows=600, blocks=9, reference=100, level=3.0, alarm=True, moved={"vibration_mm_s": 3.5})
DRIFT = "drift: the process moved at 3 machines (pump-1, pump-2, pump-3): vibration_mm_s"
NODES = "nodes: pump-3 of fog-1 joined"


async def say(fleet: Fleet, node: str, said: Watched, number: int) -> None:
    """As the node itself, with its certificate, to its site's server."""
    certificate, key, authority = (
        Path(fleet.setting(f"tls.{name}", node)) for name in ("certificate", "key", "authority")
    )
    tls = client_context(certificate, key, authority)
    bus = await NatsBus.connect(fleet.setting("parent.nats", node), tls, node)
    try:
        event = Event(node, "by hand", number, 1.0, WHAT, fields=as_fields(said))
        await bus.append(f"event.{node}", encode(event), f"{node}-{number}")
    finally:
        await bus.close()


async def until(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What ``look`` finds, once it is something; a cloud that is away finds nothing."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        try:
            if found := await asyncio.to_thread(look):
                return found
        except ReunaError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("it never came")


async def test_joining_and_drifting_machines_begin_one_run_each_and_a_killed_cloud_no_other(
    tmp_path: Path,
) -> None:
    project = tmp_path / "pumps"
    make_project(project, sample=True)
    nodes = find_nodes(project / "data")[:3]
    fleet = make_fleet(tmp_path / "fleet", "test", spread(nodes, 1))
    for node in nodes:
        file = fleet.folder / node.name / "edge.toml"
        file.write_text("labelled_s = 0.2\n" + file.read_text())
    settings = open_settings(project, ["strategy.rounds=1", "run.local=false", "run.centralised=false"])
    job = Job(project, settings, nodes, tmp_path / "runs", 1)
    sign_code(job, fleet, lambda _event: None)
    supervisor = Supervisor(fleet)
    try:
        await supervisor.start()
        operator = Operator.of(fleet)
        await ready(fleet, operator, supervisor)
        spec, parts = await asyncio.to_thread(prepare, job, fleet, "r-by-hand")
        two = {fog: tuple(edges)[:2] for fog, edges in spec.fogs.items()}
        await train(operator, msgspec.structs.replace(spec, fogs=two), parts, job, lambda _event: None)

        def whys() -> list[str]:
            return [each["why"] for each in operator.runs() if each.get("why") and each["state"] == "done"]

        await asyncio.to_thread(operator.put_trigger, Trigger("new", "r-by-hand", on="nodes", cooldown_s=1.0))
        await until(lambda: whys() == [NODES])
        await asyncio.to_thread(
            operator.put_trigger, Trigger("moved", "r-by-hand", on="drift", cooldown_s=1.0)
        )
        for node in nodes:
            await say(fleet, node.name, MOVED, 1)
        await until(lambda: whys() == [DRIFT, NODES])

        os.kill(supervisor.pids["cloud"], signal.SIGKILL)
        await ready(fleet, operator, supervisor)
        await say(fleet, "pump-1", MOVED, 2)
        stands = await until(
            lambda: {each["name"]: each["why"] for each in operator.triggers() if each["why"]}
        )
        assert stands["moved"].endswith("answers what is seen")
        assert await asyncio.to_thread(whys) == [DRIFT, NODES]
        (alarm,) = (each for each in (await asyncio.to_thread(operator.watch))["alarms"] if not each["ended"])
        await asyncio.to_thread(operator.acknowledge, alarm["id"], "a new mode")

        grown = Trigger("grown", "r-by-hand", on="data", rows=20, cooldown_s=1.0)
        await asyncio.to_thread(operator.put_trigger, grown)
        waits = "0 of 20 new labelled rows"
        await until(lambda: waits in {each["why"] for each in operator.triggers()})
        table = min((nodes[0].folder / "test").iterdir())
        shutil.copy(table, nodes[0].folder / "train" / "more.csv")
        rows = len(table.read_text().splitlines()) - 1
        await until(lambda: whys()[0] == f"data: {rows} new labelled rows at 1 machine (pump-1)")
        await until(lambda: waits in {each["why"] for each in operator.triggers()})
    finally:
        await supervisor.stop()
