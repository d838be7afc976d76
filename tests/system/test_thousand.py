"""The drill of a thousand agents, short: real cloud, fogs and TLS, agents that share a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from drills import thousand
from drills.crowd.herd import shares
from drills.crowd.shared import Site
from drills.thousand import Asked
from reuna.core.errors import Untrusted

pytestmark = [pytest.mark.system, pytest.mark.timeout(280)]
GOOD = {
    "agents": 40, "fogs": 2, "round_s": 0.4, "cloud_peak_mib": 130.0, "few_cloud_peak_mib": 128.0, "durable": True,
}  # fmt: skip


def test_forty_agents_are_in_every_round_each_with_connections_and_a_ledger_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drills.thousand", "--agents", "40", "--fogs", "2", "--rounds", "2",
         "--processes", "1", "--json"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=270,
    )  # fmt: skip
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["agents"], result["fogs"], result["rounds"]) == (40, 2, 2), result
    assert result["durable"]
    assert 0 < result["round_s"]
    assert 0 < result["cloud_peak_mib"] <= result["few_cloud_peak_mib"] + thousand.FLAT_MIB
    assert done.returncode == 0, result


@pytest.mark.parametrize(
    "planted",
    [{"agents": 39}, {"fogs": 1}, {"round_s": 5.1}, {"cloud_peak_mib": 160.0}, {"durable": False}],
    ids=lambda planted: next(iter(planted)),
)
def test_the_promise_is_broken_by_a_missing_agent_a_slow_round_and_a_cloud_that_grows(
    planted: dict[str, float],
) -> None:
    asked = Asked(40, 2, 2, 1)
    assert thousand.held(GOOD, asked)
    assert thousand.held({**GOOD, "round_s": 5.1}, Asked(40, 2, 2, 1, within_s=6.0))
    assert not thousand.held({**GOOD, **planted}, asked)


def test_agents_of_one_fog_share_a_process_and_none_is_left_out() -> None:
    names = [f"edge-{number}" for number in range(10)]
    assert shares(names, 3) == [names[:3], names[3:6], names[6:]]
    assert shares(names[:2], 4) == [names[:1], names[1:2]]


class Guard:
    """Verifies, and counts how often."""

    def __init__(self) -> None:
        self.state = object()
        self.verified = 0

    def plan(self, signed: bytes) -> bytes:
        if signed == b"forged":
            raise Untrusted("signature", "not signed")
        self.verified += 1
        return signed.upper()


def test_agents_of_one_fog_verify_the_same_signed_bytes_once_and_again_by_other_metadata() -> None:
    guard = Guard()
    site = Site(guard, models=None)  # type: ignore[arg-type]  # all that is asked of it here
    assert [site.plan(b"one"), site.plan(b"one"), site.plan(b"two")] == [b"ONE", b"ONE", b"TWO"]
    assert guard.verified == 2
    guard.state = object()
    assert site.plan(b"one") == b"ONE"
    assert guard.verified == 3
    for _ in range(2):
        with pytest.raises(Untrusted):
            site.plan(b"forged")
