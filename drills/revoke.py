"""Revoke an edge and a fog in the middle of a run: both are out within a minute, the rest goes on.

A small fleet trains over and over. `reuna node revoke` is run for one edge at its fog, then for one
fog at the cloud. Measured is how long until the last thing that a revoked node could do is refused:
its NATS connection cut and refused, each request over HTTPS refused (also on a connection that was
open before), its renewal refused. The promise: at most 60 s, and nobody else is disconnected.

    python -m drills.revoke [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.round import job_for
from reuna.adapters.certificates import new_key, request
from reuna.adapters.enrol_client import EstSource
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.tls import client_context
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import NotAdmitted, PermissionDenied, ReunaError
from reuna.fleet.client import Operator
from reuna.fleet.data import spread
from reuna.fleet.ending import in_order, until_done
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.session import prepare, ready
from reuna.fleet.supervise import Supervisor

LIMIT_S = 60.0
GIVE_UP_S = 90.0
RUN = "r-revoke"
Probe = Callable[[], Awaitable[bool]]


class Node:
    """One node's keys in our hands: what could be done with them right now."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.name = name
        self.values = read_toml(next(p.settings for p in fleet.places if p.name == name)).values
        tls = self.values["tls"]
        self.own = Path(tls["certificate"]), Path(tls["key"]), Path(tls["authority"])
        self.line: http.client.HTTPSConnection | None = None
        self.held: NatsBus | None = None

    async def hold_bus(self) -> None:
        """A NATS connection that is open from before the revocation."""
        self.held = await NatsBus.connect(self.values["parent"]["nats"], client_context(*self.own), self.name)

    async def old_bus(self) -> bool:
        """Whether that connection is still up."""
        return self.held is not None and self.held.connected

    async def open_line(self) -> None:
        """An HTTPS connection that stays open from before the revocation."""
        self.line = await asyncio.to_thread(self._connect)
        assert await self.speaks(self.line), f"{self.name} cannot even speak before"

    def _connect(self) -> http.client.HTTPSConnection:
        parent = self.values["parent"]
        line = http.client.HTTPSConnection(
            parent["freight_host"], parent["freight_port"], timeout=5, context=client_context(*self.own)
        )
        line.connect()
        return line

    async def speaks(self, line: http.client.HTTPSConnection) -> bool:
        """Whether a request on the line is let through to the blobs (none is there: 404)."""

        def ask() -> bool:
            try:
                line.request("GET", "/v1/blobs/" + "0" * 64)
                answer = line.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                return False
            return answer.status != 403

        return await asyncio.to_thread(ask)

    async def freight(self) -> bool:
        """Whether a new HTTPS connection is served."""
        try:
            line = await asyncio.to_thread(self._connect)
        except OSError:
            return False
        return await self.speaks(line)

    async def old_freight(self) -> bool:
        """Whether the connection from before is still served."""
        assert self.line is not None
        self.line.auto_open = 0
        return await self.speaks(self.line)

    async def renewal(self) -> bool:
        """Whether the node gets a further certificate."""
        source = EstSource(self.values["enrol"]["parent"], self.own[2], self.own[0])
        try:
            await asyncio.to_thread(source.renew, request(new_key()))
        except NotAdmitted:
            return False
        except ReunaError:
            return True
        return True

    async def bus(self) -> bool:
        """Whether its parent's nats-server lets an edge in."""
        try:
            bus = await NatsBus.connect(self.values["parent"]["nats"], client_context(*self.own), self.name)
        except PermissionDenied:
            return False
        await bus.close()
        return True


async def revoke(node: Node, place: Path, probes: dict[str, Probe], say: Any) -> dict[str, float]:
    """Run the command; seconds from then until each way in is shut."""
    began = time.monotonic()
    command = [sys.executable, "-m", "reuna.cli", "node", "revoke", node.name, "--settings", str(place)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    shut: dict[str, float] = {}
    while len(shut) < len(probes) and time.monotonic() - began < GIVE_UP_S:
        for name, probe in probes.items():
            if name not in shut and not await probe():
                shut[name] = round(time.monotonic() - began, 2)
                say(f"   {shut[name]:6.2f} s  {node.name}: {name} refused")
        await asyncio.sleep(0.05)
    return {name: shut.get(name, GIVE_UP_S) for name in probes}


def count(log: Path, words: str) -> int:
    """How often a server's log has these words."""
    return log.read_text(errors="replace").count(words) if log.exists() else 0


async def drill(say: Any) -> dict[str, Any]:
    """The fleet, the two revocations, what became of the others."""
    with tempfile.TemporaryDirectory(prefix="reuna-drill-") as folder:
        job = job_for(Path(folder), 10_000, 6, 20_000, 2, 32, 14)
        fleet = make_fleet(Path(folder) / "fleet", "drill", spread(job.nodes, job.fogs), announce_s=0.5)
        supervisor = Supervisor(fleet)
        await supervisor.start()
        try:
            return await carry_out(fleet, supervisor, job, say)
        finally:
            await supervisor.stop()


async def carry_out(fleet: Fleet, supervisor: Supervisor, job: Any, say: Any) -> dict[str, Any]:
    """On a fleet that runs."""
    operator = Operator.of(fleet)
    await ready(fleet, operator, supervisor)
    spec, parts = await asyncio.to_thread(prepare, job, fleet, RUN)
    for part in parts:
        await asyncio.to_thread(operator.put_blob, part)
    spec = msgspec.structs.replace(spec, deadline_s=2.0, quorum=0.3, evaluate=False, local=False)
    await asyncio.to_thread(operator.submit, spec)
    before = await rounds(operator, 3)
    say(f"1. 1 cloud, 2 fogs, 6 edges; {before} rounds are done")
    fog_logs = {name: fleet.folder / name / "state" / "nats" / "nats.log" for name in ("fog-1", "fog-2")}
    edge = Node(fleet, "edge-1")
    home = next(p for p in fleet.of("fog") if "edge-1" in fleet.setting("edges", p.name))
    await edge.open_line()
    await edge.hold_bus()
    say(f"2. reuna node revoke edge-1 (at {home.name})")
    ways: dict[str, Probe] = {
        "an open NATS connection": edge.old_bus, "NATS": edge.bus, "HTTPS": edge.freight, "an open HTTPS connection": edge.old_freight,
        "renewal": edge.renewal,
    }  # fmt: skip
    times = {f"edge {way}": s for way, s in (await revoke(edge, home.settings, ways, say)).items()}
    if edge.held is not None:
        await edge.held.close()
    fog_name = next(p.name for p in fleet.of("fog") if p.name != home.name)
    fog = Node(fleet, fog_name)
    await fog.open_line()
    say(f"3. reuna node revoke {fog_name} (at the cloud)")
    cloud = fleet.of("cloud")[0].settings

    async def link() -> bool:
        return count(fog_logs[fog_name], "Leafnode connection closed") == 0

    ways = {
        "NATS link": link, "HTTPS": fog.freight, "an open HTTPS connection": fog.old_freight,
        "renewal": fog.renewal,
    }  # fmt: skip
    times |= {f"fog {way}": s for way, s in (await revoke(fog, cloud, ways, say)).items()}
    after = await rounds(operator, await rounds(operator, 0) + 2)
    dropped = count(fog_logs[home.name], "Leafnode connection closed")
    say(f"4. the run goes on: {after} rounds; links of others cut: {dropped}")
    return {
        "seconds_to_refusal": max(times.values()),
        "ways": times,
        "others_disconnected": dropped,
        "rounds_after": after - before,
    }


async def rounds(operator: Operator, wanted: int) -> int:
    """Wait until so many rounds are closed; how many are."""
    while True:
        events = await asyncio.to_thread(operator.timeline, RUN, 0)
        done = sum(event["what"] == "round" for event in events)
        if done >= wanted:
            return done
        await asyncio.sleep(0.2)


def held(result: dict[str, Any]) -> bool:
    """Whether the promise held."""
    return bool(
        result["seconds_to_refusal"] <= LIMIT_S
        and not result["others_disconnected"]
        and result["rounds_after"] > 0
    )


def main() -> int:
    """Run the drill; the last line is JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    result = until_done(drill(say))
    print(json.dumps(result))
    return 0 if held(result) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
