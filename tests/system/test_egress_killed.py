"""An egress killed at each of its effects: no budget is overspent, nothing leaves under two entries.

Spool, ledger, policy store and flow control are the real ones, on a disk; the peer notes what it is sent.
``python -m tests.system.test_egress_killed FOLDER`` carries out all lives, each in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reuna.adapters import ledger_file
from reuna.adapters.files import FileBlobs
from reuna.adapters.policy_store import PolicyStore
from reuna.adapters.receiver import receipt_of
from reuna.adapters.spool import DiskSpool
from reuna.core.ports import Blob, Make
from reuna.core.records import Contribution, Grid, Hello, Member, Plan, Receipt
from reuna.core.tensors import pack
from reuna.exchange.egress import Egress
from reuna.exchange.link import EgressSettings
from reuna.exchange.site import open_site
from reuna.fleet.policy import sign_file
from reuna.sim.clock import InPlace
from reuna.sim.fleet import unsealed
from reuna.sim.storage import MemoryBlob, no_leftovers
from reuna.trust.policy import Signers
from reuna.trust.requests import vouched, without_roster
from reuna.wire import digest_bytes, encode
from tests.effects import watched
from tests.unit.trust.site import FOG, NOW, key, public

ROUNDS, PARAMS, BUDGET = 3, 2000, 11_000  # bytes a day: room for the hellos and two rounds, not for three
BASE = pack({"w": np.zeros(PARAMS, np.float32)})
SIGNERS = Signers(1, {"dpo": public("dpo")})
POLICY = f"""
format = "reuna/policy/v1"
site = "mill-3"
serial = 1
valid = {{ from = 2026-11-01, until = 2027-01-31 }}
signers = {{ threshold = 1, keys = {{ dpo = "{public("dpo")}" }} }}
recipients = {{ fog = "{FOG}" }}
limits = {{ bytes_per_day = {BUDGET} }}
[[flows]]
kind = "model_update"
to = ["fog"]
protection = "clear"
[[flows]]
kind = "metric"
to = ["fog"]
names = ["loss"]
[[flows]]
kind = "presence"
to = ["fog"]
[[code.allow]]
digest = "{"b" * 64}"
approved_by = ["dpo"]
until = 2026-12-31
"""
EVERY = 7  #: the second death of a case lies so many effects later, over and over


def settings_in(folder: Path) -> EgressSettings:
    return EgressSettings(
        name="edge-1", parent="north", parent_identity=FOG, nats_url="", freight_host="", freight_port=0,
        certificate="", key="", authority="", folder=str(folder), fleet="line-4", root="",
        policy=str(folder / "policy.toml"), bus=("gateway", "north"), freight=("gateway", "north"),
    )  # fmt: skip


def plan(round: int) -> bytes:
    return encode(
        Plan(
            run="r-1", round=round, attempt=1, task="train", model=digest_bytes(BASE), model_size=len(BASE),
            params=PARAMS, cohort=("edge-1",), quorum=1, deadline_s=5.0, grid=Grid(16, -8), max_weight=10,
            capacity=1, seed=1, bundle="b" * 64, bundle_size=1, inline=BASE,
        )
    )  # fmt: skip


class TomorrowError(Exception):
    """What has no room in the day's bytes waits for the next day, which does not come here."""


class Still:
    """A clock that stands still."""

    def now(self) -> float:
        return NOW

    async def sleep(self, seconds: float) -> None:
        raise TomorrowError


class Peer:
    """Bus and freight of the parent: what arrives is noted, past the effects that are counted."""

    def __init__(self, file: Path, tell: Callable[[str], None]) -> None:
        self._file = file
        self._tell = tell

    def _note(self, kind: str, data: bytes, digest: str, round: int, plan: str) -> None:
        self._tell(f"{kind} arrives")
        with self._file.open("a") as file:
            file.write(json.dumps([kind, len(data), digest, round, plan]) + "\n")
        self._tell(f"{kind} has arrived")

    async def send(self, manifest: Contribution, body: Blob | None) -> Receipt:
        data = encode(manifest)
        self._note("metric", data, digest_bytes(data), manifest.round, manifest.plan)
        if body is not None:
            data = body.read(0, body.size)
            self._note("model_update", data, digest_bytes(data), manifest.round, manifest.plan)
        return receipt_of(manifest)

    async def send_made(self, make: Make) -> Receipt | None:
        made = make()
        return None if made is None else await self.send(*made)

    async def publish(self, _subject: str, data: bytes) -> None:
        self._note("presence", data, digest_bytes(data), 0, "")


async def life(folder: Path, tell: Callable[[str], None]) -> int:
    """One life of the egress; how many rounds were acknowledged."""
    site = open_site(settings_in(folder), folder, Still())
    peer: Any = Peer(folder / "peer", tell)
    cache, outbox, rng = FileBlobs(folder / "blobs"), DiskSpool(folder / "outbox"), np.random.default_rng()
    egress = Egress(
        "edge-1", FOG, peer, peer, cache, outbox, site.flows, Still(), InPlace(), unsealed, without_roster,
        vouched, no_leftovers(),
    )  # fmt: skip
    cache.put(BASE)
    acknowledged = 0
    for number in range(1, ROUNDS + 1):
        await egress.hello(Hello("edge-1", "b", "1"))
        trained = pack({"w": rng.uniform(-1, 1, PARAMS).astype(np.float32)})  # another one in each life
        try:
            receipt = await egress.submit(
                plan(number), MemoryBlob(trained, ""), 3, Member("edge-1", metrics={"loss": 1.0})
            )
        except TomorrowError:
            continue
        acknowledged += receipt is not None
    site.flows.close()
    site.resumer.save()
    return acknowledged


def lived(folder: Path, dies_at: int) -> int:
    """A life in a process that ends by SIGKILL at that effect, if it comes so far; its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0

    def tell(_effect: str) -> None:
        nonlocal count
        count += 1
        if count == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        with watched(tell):
            acknowledged = asyncio.run(life(folder, tell))
        (folder / "whole").write_text(json.dumps([acknowledged, count]))
        status = 0
    finally:
        os._exit(status)


def check(folder: Path) -> None:
    """What must hold after any life, judged by what the peer has and what the ledger says."""
    peer = folder / "peer"
    sent = [json.loads(line) for line in peer.read_text().splitlines()] if peer.exists() else []
    written = dict(ledger_file.entries(folder / "ledger"))
    intents = [entry for entry in written.values() if entry.kind == "intent"]
    entries = Counter((entry.flow, entry.payload, entry.plan) for entry in intents)
    payloads = {(kind, digest, plan): (size, number) for kind, size, digest, number, plan in sent}
    once = {each: found for each, found in payloads.items() if each[0] != "presence"}
    for each in once:
        assert entries[each] == 1, f"{each[0]} has {entries[each]} entries"
    rounds = Counter((kind, number) for (kind, _, _), (_, number) in once.items())
    assert set(rounds.values()) <= {1}, f"other bytes were sent again: {rounds}"
    hellos = sum(size for kind, size, *_ in sent if kind == "presence")
    assert hellos <= sum(entry.payload_bytes for entry in intents if entry.flow == "presence")
    assert hellos + sum(size for size, _ in once.values()) <= BUDGET
    settled = [entry for entry in written.values() if entry.kind == "outcome" and entry.messages]
    unused = [written[each.intent or 0].payload_bytes - each.payload_bytes for each in settled]
    assert sum([entry.payload_bytes for entry in intents]) - sum(unused) <= BUDGET


def begun(folder: Path) -> Path:
    """A node that knows who signs its policy, and has one."""
    folder.mkdir()
    (folder / "policy.toml").write_text(POLICY)
    sign_file(folder / "policy.toml", key("dpo"))
    PolicyStore(folder / "policy.toml", folder / "policy").pin("mill-3", SIGNERS)
    return folder


def all_lives(root: Path) -> dict[str, int]:
    """Two deaths in each folder, so that a recovery is killed too; then a life that is whole."""
    whole = begun(root / "whole")
    assert lived(whole, 0) == 0
    check(whole)
    undisturbed, effects = json.loads((whole / "whole").read_text())
    killed = acknowledged = 0
    for point in range(1, effects + 1):
        folder = begun(root / str(point))
        for dies_at in (point, 1 + point * EVERY % effects):
            status = lived(folder, dies_at)
            assert status in {0, signal.SIGKILL}, f"point {dies_at} ends with {status}"
            killed += status == signal.SIGKILL
            check(folder)
        assert lived(folder, 0) == 0
        check(folder)
        acknowledged += json.loads((folder / "whole").read_text())[0]
    return {"effects": effects, "killed": killed, "undisturbed": undisturbed, "acknowledged": acknowledged}


@pytest.mark.system
@pytest.mark.slow
def test_an_egress_killed_at_any_point_overspends_nothing_and_sends_nothing_twice(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.test_egress_killed", str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["undisturbed"] == 2 < ROUNDS, "the budget ends within the run"
    assert found["killed"] > 1.5 * found["effects"] > 60
    assert found["acknowledged"] > found["effects"] / 2, "after its deaths a node goes on with what is left"


if __name__ == "__main__":
    print(json.dumps(all_lives(Path(sys.argv[1]))))
