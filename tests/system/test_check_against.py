"""`reuna check --against` on real processes: one site is ready, one breaks the contract, one has not approved the code."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.ledger_file import entries
from reuna.adapters.project import pack_bundle
from reuna.adapters.trust_keys import read_key
from reuna.fleet.client import Operator
from reuna.fleet.code import _vouch
from reuna.fleet.data import find_nodes, spread
from reuna.fleet.layout import make_fleet
from reuna.fleet.officer import amend, approve, key_file
from reuna.fleet.session import ready
from reuna.fleet.supervise import Supervisor
from reuna.template import make_project
from reuna.trust.ledger import Entry
from reuna.wire import digest_bytes

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
READY, BROKEN, WAITING = "pump-1", "pump-2", "pump-3"


class Plant:
    """A running fleet of three sites, and a project of which two of them have approved the code."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "detector"
        make_project(self.project, sample=True)
        self.nodes = find_nodes(self.project / "data")[:3]
        self.own = folder / "own"  # of this machine's samples one node is sound
        self.own.mkdir()
        (self.own / READY).symlink_to(self.project / "data" / READY)
        self.spoil(self.project / "data" / BROKEN)
        self.fleet = make_fleet(folder / "fleet", "demo", spread(self.nodes, 1))
        self.digest = digest_bytes(pack_bundle(self.project))
        key = read_key(key_file(self.fleet.folder))
        for node in (READY, BROKEN):
            approve(self.fleet.folder / node / "policy.toml", key, self.digest)
        for place in self.fleet.of("edge"):  # counts of few rows stay where they are
            amend(
                place.folder / "policy.toml",
                key,
                'kind = "statistic"\n',
                'kind = "statistic"\nmin_cell = 10\n',
            )
        _vouch(Path(self.fleet.setting("trust")), pack_bundle(self.project), "detector")

    @staticmethod
    def spoil(folder: Path) -> None:
        """Temperatures in kelvin, where the contract says degrees Celsius."""
        for path in sorted(folder.rglob("*.csv")):
            head, *rows = path.read_text().splitlines()
            column = head.split(",").index("temperature_c")
            cells = [row.split(",") for row in rows]
            for row in cells:
                row[column] = str(float(row[column]) + 273.15)
            path.write_text("\n".join([head, *map(",".join, cells)]) + "\n")

    def check(self, *args: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "reuna.cli", "check", str(self.project), *args]
        where = ["--against", str(self.fleet.folder / "fleet.toml"), "--data", str(self.own)]
        done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=90)
        return done.returncode, done.stdout, done.stderr

    def ledger(self, node: str) -> list[Entry]:
        return [entry for _, entry in entries(self.fleet.folder / node / "state" / "ledger")]


async def test_every_site_says_for_itself_whether_it_is_ready(tmp_path: Path) -> None:
    plant = await asyncio.to_thread(Plant, tmp_path)
    supervisor = Supervisor(plant.fleet)
    try:
        await supervisor.start()
        await ready(plant.fleet, Operator.of(plant.fleet), supervisor)
        status, out, err = await asyncio.to_thread(plant.check, "--json", "--wait", "60")
    finally:
        await supervisor.stop()
    assert status == 1, err
    found = json.loads(out)["against"]
    assert (found["ready"], found["code"]) == (False, plant.digest)
    edges = {edge["node"]: edge for edge in found["edges"]}
    assert {node: edge["ready"] for node, edge in edges.items()} == {
        READY: True,
        BROKEN: False,
        WAITING: False,
    }
    assert words(edges[BROKEN]) == [("contract", "no", "R114")]
    assert words(edges[WAITING]) == [("code", "wait", "code-ask")]
    broken = [rule for rule in edges[BROKEN]["contract"]["rules"] if rule["broken"]]
    assert [(x["rule"], x["signal"], x["passed"]) for x in broken] == [
        ("range", "temperature_c", 0),
        ("unit", "temperature_c", 0),
    ]
    assert all(0 < edge["memory_needed_mib"] < edge["memory_free_mib"] for edge in edges.values())
    assert "3 of 3 edges have answered" in err
    for node in (READY, BROKEN, WAITING):
        left = Counter(entry.flow for entry in plant.ledger(node) if entry.kind == "intent" and entry.run)
        assert left == {"metric": 1, "statistic": 1}, "the words, and the counts"
    assert [e.code for e in plant.ledger(READY) if e.kind == "code" and e.reason == "runs"] == [plant.digest]
    assert not [e for e in plant.ledger(WAITING) if e.kind in ("code", "refused")]


def words(edge: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What of an answer is no yes."""
    return [(x["about"], x["word"], x["why"]) for x in edge["said"] if x["word"] != "yes"]
