"""What an edge says and hears in a day when nothing happens: bytes by cause, measured for minutes, reckoned for a day.

    python -m benchmarks.steady [--minutes 5] [--fogs 2] [--edges 2] [--json]

Real processes over mutual TLS: every edge reads a press live, answers each of its windows and watches them;
its release was rolled out, and nobody trains. Each edge's own connections are looked at twice a second
(``ss`` of iproute2), so what is counted has passed a socket: the bytes inside TCP, which are TLS records,
and beside them what headers of TCP and IP add, 52 bytes a segment. The ledger says how many messages of
which flow there were, and their payload. ``measured_per_day``: a day of such minutes as were measured, in
which more was said than usually; headers are told for as many bytes as are usual.

A cause has its payload and its part of all else that went over the connection to the bus, by messages.
How many there are a day is what was counted, or comes from their usual interval where the run's is another
(`USUAL_S`): the watch says something every `BLOCK_S`, and a node is there for less than `presence.STEADY_S`.
Keep-alive is reckoned from its interval. A walk for newer metadata comes once an hour, seldom within the minutes, so its cost is reckoned from
the files that it asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from drills.drifting.works import Works
from drills.pushing.forge import git
from reuna.adapters.nats_bus import PING_S
from reuna.adapters.processes import family, part_of
from reuna.core.monitoring import Monitoring
from reuna.edge.releases import CALM_S
from reuna.exchange import presence
from reuna.fleet import ledger
from reuna.fleet.ledger_summary import summarise

DAY_S = 86_400.0
BLOCK_S = 30.0  #: between two words of the watch, so that there are some in minutes
#: flow -> how far apart its messages are usually, where that is not what they were in the run
USUAL_S = {"statistic": Monitoring().block_s, "log": CALM_S, "presence": presence.CALM_S}
HEAD = "head"  #: of a ledger; it alone goes over HTTPS while nobody trains
HEADERS = 52  #: bytes of TCP with timestamps and IP, for each segment
PING = 28  #: bytes of a ping or a pong in a TLS record
WALKS, ASKED = (
    24,
    600,
)  #: walks for metadata a day; bytes around each file: request, headers of the answer, TLS
SETTLED_S = 75.0  #: first words and counts are over
TARGET = 1_000_000  #: bytes a node and day
_CONNECTION = re.compile(r"\S+\s+\d+\s+\d+\s+\S+:(?P<own>\d+)\s+\S+:(?P<port>\d+)\s.*pid=(?P<pid>\d+),")
_NUMBERS = re.compile(r"\b(bytes_sent|bytes_received|segs_out|segs_in):(\d+)")


@dataclass
class Line:
    """One connection of one process: what passed it when it was seen first, and last."""

    port: int
    first: dict[str, int]
    last: dict[str, int] = field(default_factory=dict)

    def passed(self, *names: str) -> int:
        return sum(self.last.get(name, 0) - self.first.get(name, 0) for name in names)


class Sockets:
    """Connections of some processes, looked at now and then."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = frozenset(pids)
        self.lines: dict[tuple[int, int], Line] = {}
        self._began = False

    def look(self) -> None:
        """Take the numbers of now. A connection that is new since the first look counts from nothing."""
        for pid, own, port, numbers in connections(told_by_ss()):
            if pid not in self._pids:
                continue
            known = self.lines.setdefault((pid, own), Line(port, {} if self._began else numbers))
            known.last = numbers
        self._began = True


def told_by_ss() -> str:
    """Every TCP connection of this machine, two lines each."""
    return subprocess.run(["ss", "-tinpH"], capture_output=True, text=True, check=True).stdout


def connections(told: str) -> Iterable[tuple[int, int, int, dict[str, int]]]:
    """Process, own port, other port and numbers of each connection that ``ss -tinpH`` tells of.

    >>> list(connections("ESTAB 0 0 127.0.0.1:7 127.0.0.1:9 users:((\\"python\\",pid=4,fd=3))\\n\\t bytes_sent:5 segs_in:2"))
    [(4, 7, 9, {'bytes_sent': 5, 'segs_in': 2})]
    """
    lines = told.splitlines()
    for head, numbers in pairwise(lines):
        found = _CONNECTION.match(head)
        if found and numbers[:1].isspace():
            counted = {name: int(value) for name, value in _NUMBERS.findall(numbers)}
            yield int(found["pid"]), int(found["own"]), int(found["port"]), counted


def egress_of(name: str, settings: Path) -> int:
    """Process id of the one process of an edge that has the fleet's network."""
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(settings).encode() in words:
            found = [pid for pid in family(int(each.parent.name)) if part_of(pid) == "egress"]
            if found:
                return found[0]
    raise RuntimeError(f"{name} has no egress")


Left = dict[str, tuple[int, int]]  #: flow -> messages and payload bytes


def left(state: Path) -> Left:
    """What an edge's ledger says has left so far. Blocking."""
    folder = state / "ledger"
    verdict = ledger.judge(folder, None, None)
    records = (record for record, _ in ledger.good_records(folder, verdict))
    found: dict[str, tuple[int, int]] = {}
    for each in summarise(records, now_ms=int(1000 * time.time()))["flows"]:
        messages, payload = found.get(each["flow"], (0, 0))
        found[each["flow"]] = messages + each["messages"], payload + each["payload_bytes"]
    return found


def less(after: Left, before: Left) -> Left:
    """What came to it."""
    gone = {flow: before.get(flow, (0, 0)) for flow in after}
    return {flow: (after[flow][0] - gone[flow][0], after[flow][1] - gone[flow][1]) for flow in after}


def by_cause(
    said: Left, bus_bytes: int, https_bytes: int, walk_bytes: int, seconds: float
) -> dict[str, float]:
    """Bytes a day by cause; ``bus_bytes`` and ``https_bytes``: both ways, in ``seconds``.

    A ledger's head follows what is news in it, so there are as many a day as of that.

    >>> found = by_cause({"presence": (10, 500)}, 5000, 0, 0, 100.0)
    >>> round(found["presence"])
    693120
    """
    pings = seconds / PING_S * 2 * PING
    heads = said.get(HEAD, (0, 0))[0]
    on_bus = {flow: told for flow, told in said.items() if flow != HEAD and told[0]}
    payload, count = (sum(told[n] for told in on_bus.values()) for n in (1, 0))
    each = (bus_bytes - pings - payload) / max(1, count)
    a_day = {flow: messages * DAY_S / seconds for flow, (messages, _) in on_bus.items()}
    a_day |= {flow: DAY_S / every_s for flow, every_s in USUAL_S.items() if flow in on_bus}
    found = {flow: a_day[flow] * (on_bus[flow][1] / on_bus[flow][0] + each) for flow in on_bus}
    news = sum(a_day.get(flow, 0.0) for flow in ("statistic", "log"))
    return {
        **found,
        "keep-alive": pings * DAY_S / seconds,
        HEAD: https_bytes / heads * news if heads else https_bytes * DAY_S / seconds,
        "metadata": float(walk_bytes),
    }


class Fleet:
    """The presses of the drill `drift`, at a plant's pace, with nobody who trains."""

    def __init__(self, folder: Path, fogs: int, edges: int) -> None:
        self.works = Works(folder, [f"press-{number + 1}" for number in range(fogs * edges)], 1, fogs)
        file = self.works.project / "reuna.toml"
        said = file.read_text(encoding="utf-8").replace("block_s = 1\n", f"block_s = {BLOCK_S:g}\n")
        file.write_text(said, encoding="utf-8")
        git(self.works.project, "commit", "--quiet", "-a", "-m", "A plant's pace")
        self.state = {each.name: each.folder / "state" for each in self.works.fleet.places}
        self.state = {name: self.state[name] for name in self.works.names}

    async def measured(self, seconds: float) -> dict[str, dict[str, Any]]:
        """What each edge said and heard in that time, by the day."""
        files = {each.name: each.settings for each in self.works.fleet.places}
        pids = {name: egress_of(name, files[name]) for name in self.state}
        sockets = Sockets(pids.values())
        before = {name: await asyncio.to_thread(left, state) for name, state in self.state.items()}
        sockets.look()
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(sockets.look)
        took = time.monotonic() - began
        after = {name: await asyncio.to_thread(left, state) for name, state in self.state.items()}
        return {
            name: self._told(name, pids[name], sockets, less(after[name], before[name]), took)
            for name in pids
        }

    def _told(self, name: str, pid: int, sockets: Sockets, said: Left, took: float) -> dict[str, Any]:
        lines = [line for (of, _), line in sockets.lines.items() if of == pid]
        bus = max(lines, key=lambda each: each.passed("segs_in"), default=None)
        both = ("bytes_sent", "bytes_received")
        bus_bytes = bus.passed(*both) if bus else 0
        other = sum(each.passed(*both) for each in lines) - bus_bytes
        walk = WALKS * (ASKED + (self.state[name] / "trust" / "files" / "timestamp.json").stat().st_size)
        causes = by_cause(said, bus_bytes, other, walk, took)
        measured, usual = (bus_bytes + other) * DAY_S / took, sum(causes.values())
        headers = HEADERS * sum(each.passed("segs_out", "segs_in") for each in lines) * DAY_S / took
        return {
            "per_day": {cause: round(value) for cause, value in sorted(causes.items())},
            "bytes_per_day": round(usual),
            "headers_per_day": round(headers * usual / measured) if measured else 0,
            "measured_per_day": round(measured),
            "messages": {flow: count for flow, (count, _) in sorted(said.items()) if count},
        }


async def measure(folder: Path, minutes: float, fogs: int, edges: int) -> dict[str, Any]:
    """The line of JSON."""
    fleet = Fleet(folder, fogs, edges)
    try:
        await fleet.works.start()
        await fleet.works.first()
        await asyncio.sleep(SETTLED_S)
        found = await fleet.measured(60 * minutes)
    finally:
        await fleet.works.stop()
    worst = max(found.values(), key=lambda each: each["bytes_per_day"])
    return {
        "edges": len(found),
        "minutes": minutes,
        "bytes_per_node_per_day": worst["bytes_per_day"],
        "with_headers": worst["bytes_per_day"] + worst["headers_per_day"],
        "target": TARGET,
        **worst,
        "every_edge": {name: each["bytes_per_day"] for name, each in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--fogs", type=at_least(1), default=2)
    parser.add_argument("--edges", type=at_least(1), default=2, help="of each fog")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="reuna-steady-"))
    try:
        found = asyncio.run(measure(folder, args.minutes, args.fogs, args.edges))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps(found))
        return
    print(
        f"{found['bytes_per_node_per_day']:>12,} bytes a day at the edge that says and hears most; by cause:"
    )
    for cause, value in sorted(found["per_day"].items(), key=lambda each: -each[1]):
        print(f"{value:>12,} {cause}")
    print(f"{found['headers_per_day']:>12,} more are headers of TCP and IP")


if __name__ == "__main__":
    main()
