"""Where the time of a round goes: what each kind of process is at, looked at a hundred times a second.

    make bench-budget
    python -m benchmarks.budget --params 10000 --nodes 8 --seconds 10

A fleet runs rounds (`benchmarks.round`) while py-spy samples one process of each kind. A sample is a thread that
computes or waits for the disk, named by the innermost of its calls that says what it is for; idle threads are not
counted. The shares are of one kind of process each; how much CPU it takes in a round says `cpu_ms_a_round`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least
from benchmarks.peers import looking, machine
from benchmarks.peers.running import say
from reuna.adapters.processes import family, part_of

OUT = Path("runs/bench/budget.json")
ROOT = Path(__file__).parents[1]
KINDS = ("cloud main", "fog main", "fog egress", "edge egress", "edge main", "edge worker")
PLACE = re.compile(r"reuna\.fleet\.place (?:--debug )?(cloud|fog|edge) ")  #: in a command line
UP_S = 240.0  #: until every edge has a worker, which is when rounds run
WARM_S = 3.0
RATE = 100
ENDLESS = 50_000  #: rounds; the run is ended once it was looked at
#: what a frame is for: the innermost that matches one of these; a frame reads ``function (file:line)``
PURPOSES = (
    ("threads and wake-ups", r"\((?:concurrent/futures|threading|queue|asyncio/(?:threads|futures)|selectors)|_write_to_self|call_soon_threadsafe"),
    ("disk: write, fsync, rename", r"\(reuna/adapters/(?:files|spool|database|ledger_file|outbox|blobs?|events?)\b|^(?:replace|unlink|open|rename|fsync) \("),
    ("journal", r"\((?:dbos|sqlalchemy)/"),
    ("TLS", r"\((?:ssl|asyncio/sslproto)\b"),
    ("sockets and HTTP", r"\((?:aiohttp|http|socket|asyncio/selector_events|asyncio/streams|reuna/adapters/https)"),
    ("bus", r"\((?:nats|reuna/adapters/nats)"),
    ("hashing", r"digest|sha256|hashlib"),
    ("messages (msgpack)", r"\((?:reuna/wire|msgspec)"),
    ("signatures and policy", r"\((?:reuna/trust|securesystemslib|tuf|cryptography|reuna/adapters/certificates|reuna/exchange/gate)"),
    ("grid, sums, models", r"\((?:reuna/learn|numpy|noop/|reuna/core/tensors|reuna/exchange/encode)"),
    ("event loop", r"\((?:asyncio|uvloop)"),
)  # fmt: skip
OTHER = "the rest"


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.budget",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", nargs="+", type=at_least(1), default=[10_000, 1_000_000])
    parser.add_argument("--nodes", type=at_least(1), default=8)
    parser.add_argument("--seconds", type=at_least(1), default=10, help="of looking, for each size")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--json", action="store_true", help="print the result too")
    args = parser.parse_args(given)
    if spy() is None:
        parser.error("py-spy is not installed; make bench-budget installs it")
    return args


def spy() -> str | None:
    """The sampler, of this environment or the system's."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.is_file() else shutil.which("py-spy")


def purpose(stack: str) -> str:
    """What a stack, ``outermost;…;innermost``, is for."""
    for frame in reversed(stack.split(";")):
        for name, pattern in PURPOSES:
            if re.search(pattern, frame.strip()):
                return name
    return OTHER


def shares(folded: Iterable[str]) -> dict[str, float]:
    """Purpose -> share of all samples; largest first. Lines are ``stack count``."""
    found: Counter[str] = Counter()
    for line in folded:
        stack, _, count = line.rpartition(" ")
        if count.isdecimal():
            found[purpose(stack)] += int(count)
    total = sum(found.values())
    return {name: round(count / total, 4) for name, count in found.most_common()}


def one_of_each(root: int) -> dict[str, int]:
    """Kind -> a process of it, among all that a fleet has."""
    found: dict[str, int] = {}
    for pid in looking.below(root):
        place = PLACE.search(looking.command(pid))
        for member in family(pid) if place else ():
            kind = f"{place[1] if place else ''} {part_of(member)}"
            if kind in KINDS:
                found.setdefault(kind, member)
    return found


def running(rounds: subprocess.Popen[bytes], nodes: int) -> bool:
    """Whether every edge has a worker. Raises `RuntimeError` when the fleet has ended."""
    if rounds.poll() is not None:
        raise RuntimeError(f"the rounds ended with status {rounds.returncode} before they were looked at")
    return sum(part_of(pid) == "worker" for pid in looking.below(rounds.pid)) >= nodes


def look(params: int, nodes: int, seconds: int) -> dict[str, Any]:
    """Run rounds of a size and look at one process of each kind."""
    words = ["--params", str(params), "--nodes", str(nodes), "--rounds", str(ENDLESS)]
    rounds = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.round", *words], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    try:
        looking.until(lambda: running(rounds, nodes), UP_S, "rounds running")
        time.sleep(WARM_S)
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            chosen = one_of_each(rounds.pid)
            if missing := ", ".join(sorted({*KINDS}.difference(chosen))):
                raise RuntimeError(f"among the processes of the fleet there is no {missing}")
            sample(chosen, seconds, Path(name))
            lines = {kind: _lines(Path(name) / kind) for kind in chosen}
        return {
            "params": params,
            "nodes": nodes,
            "shares": {kind: shares(each) for kind, each in lines.items()},
        }
    finally:
        looking.end_below(os.getpid())


def sample(chosen: dict[str, int], seconds: int, folder: Path) -> None:
    """Look at all of them at the same time."""
    words = [str(spy()), "record", "--nonblocking", "-f", "raw", "-d", str(seconds), "-r", str(RATE)]
    running = [
        subprocess.Popen(
            [*words, "-o", str(folder / kind), "-p", str(pid)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for kind, pid in chosen.items()
    ]
    for each in running:
        each.wait(seconds + UP_S)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def main() -> int:
    """Measure every size and keep what was found; status 1 when a fleet did not run."""
    args = arguments()
    looking.end_when_told()
    result: dict[str, Any] = {
        **machine.run_of("benchmarks.budget"),
        "machine": machine.described(),
        "sizes": [],
    }
    for params in args.params:
        say(f"rounds of {params:,} values with {args.nodes} nodes")
        try:
            result["sizes"].append(look(params, args.nodes, args.seconds))
        except (RuntimeError, TimeoutError) as why:
            say(f"error: {why}")
            say("next:  look at what the rounds said above; on a busy machine wait until it is quiet")
            return 1
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(result))
    say(f"written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
