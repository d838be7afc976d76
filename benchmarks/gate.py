"""What the site's gate adds to one update: facts for the policy, decision, reservation, ledger on the disk.

    python -m benchmarks.gate --params 10000 --updates 200 --json

Each update is a new one of a new round. Timed as the egress does it: the code is asked for, metric
names are filtered, size, length (L2) and schema of the update are found, the policy decides over
body and manifest, both intents are forced to the disk. ``disk_limit_ms`` is one append and fsync of
the same bytes, in the same run. Milliseconds, median and 90th percentile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import at_least
from reuna.adapters.clock import SystemClock
from reuna.adapters.files import FileBlobs
from reuna.adapters.ledger_file import LedgerFile
from reuna.adapters.policy_store import PolicyStore
from reuna.core import plans
from reuna.core.ports import Blob
from reuna.core.records import Grid, Member, Plan
from reuna.core.tensors import pack
from reuna.exchange.encode import schema_of
from reuna.exchange.flows import SiteFlows
from reuna.exchange.payloads import contribution, made_for
from reuna.exchange.site import Rules, ledger_key
from reuna.fleet.officer import approve, give_policy, make_officer
from reuna.loop import train
from reuna.trust.heads import Signer
from reuna.trust.requests import without_roster
from reuna.wire import digest_bytes

FOG = "spiffe://fog-1.bench/gateway/fog-1"
CODE = "c" * 64
COHORT = ("edge-1", "edge-2", "edge-3", "edge-4")


def gate(folder: Path) -> SiteFlows:
    """A node's real policy and ledger."""
    officer = make_officer(folder)
    (folder / "edge-1").mkdir()
    policy = give_policy(folder / "edge-1", folder / "state", officer, "company", "mill", "bench", "fog-1")
    approve(policy, officer, CODE)
    rules = Rules(PolicyStore(policy, folder / "state" / "policy"))
    signer = Signer("mill", "edge-1", ledger_key(folder / "ledger.key"))
    return SiteFlows(LedgerFile(folder / "ledger", signer, SystemClock()), rules, SystemClock(), ())


def plan_of(number: int, base: Blob, params: int) -> Plan:
    """What the cloud asks in one round."""
    return Plan(
        "r-bench", number, 1, "train", base.digest, base.size, params, COHORT, 1, 9.0,
        Grid(32, -20), 1000, 8, 7, CODE, 1, {"epochs": 1},
    )  # fmt: skip


def one(flows: SiteFlows, plan: Plan, base: Blob, norm: float, body: bytes) -> float:
    """Seconds that the gate takes for one update; its length (L2) is a by-product of encoding it."""
    began = time.perf_counter()
    level = max(flows.approved(plans.work(plan), "").level, 3)
    member = Member("edge-1", 500, metrics={"loss": 0.5})
    flows.listed("metric", FOG, member.metrics)
    made = made_for(plan, "edge-1", without_roster, level, norm, schema_of(base))
    facts = time.perf_counter() - began
    manifest = train.answer(plan, "d" * 64, member, digest_bytes(body), 4)
    began = time.perf_counter()
    passage = flows.leave(*contribution(manifest, FOG, SystemClock().now(), made, without_roster))
    flows.arrived(passage, "acknowledged")
    return facts + time.perf_counter() - began


def measure(params: int, updates: int, folder: Path) -> dict[str, Any]:
    """The figures."""
    flows, blobs, random = gate(folder), FileBlobs(folder / "blobs"), np.random.default_rng(0)
    base = blobs.put(pack({"w": np.zeros(params, np.float32)}))
    taken = []
    for number in range(1, updates + 1):
        values = random.normal(0.0, 1e-3, params).astype(np.float32)
        norm, body = float(np.linalg.norm(values)), values.tobytes()
        taken.append(1000 * one(flows, plan_of(number, base, params), base, norm, body))
    written = sum(path.stat().st_size for path in (folder / "ledger").glob("*.ledger"))
    return {
        "median_ms": round(statistics.median(taken), 3),
        "p90_ms": round(statistics.quantiles(taken, n=10)[-1], 3),
        "disk_limit_ms": round(_appends(folder / "limit", written // updates, updates), 3),
        "ledger_bytes_per_update": written // updates,
        "params": params,
        "updates": updates,
    }


def _appends(path: Path, count: int, times: int) -> float:
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            began = time.perf_counter()
            file.write(os.urandom(count))
            os.fsync(file.fileno())
            taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=at_least(1), default=10_000)
    parser.add_argument("--updates", type=at_least(2), default=200)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reuna-bench-") as folder:
        print(json.dumps(measure(args.params, args.updates, Path(folder))))


if __name__ == "__main__":
    main()
