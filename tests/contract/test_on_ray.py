"""A simulated fleet on a local Ray cluster: the bits of a run without, and a lost actor is begun again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.ray_actors import RayActors
from reuna.core.errors import ExtraMissing

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the cases came to. One process for all: a cluster takes seconds to start."""
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.ray_cases", str(tmp_path_factory.mktemp("ray"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        # Ray ships code as pickles, which this suite forbids everywhere else
        env={**os.environ, "PYTHONPATH": str(ROOT), "RAY_raylet_start_wait_time_s": "200"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_runs_on_ray_have_the_results_of_runs_without(told: dict[str, Any]) -> None:
    assert told["same"] == dict.fromkeys(told["same"], True)
    assert len(told["same"]) == 3


def test_a_learner_that_only_this_process_knows_travels_with_the_run(told: dict[str, Any]) -> None:
    assert told["travels"]


def test_an_actor_that_is_killed_once_is_begun_again_and_changes_no_bit(told: dict[str, Any]) -> None:
    assert told["was lost"]
    assert told["lost once"]


def test_what_a_learner_raises_on_ray_names_the_node(told: dict[str, Any]) -> None:
    assert "node-4, training: ValueError: no such thing" in told["raises"]


def test_more_processes_than_the_cluster_has_cpus_are_refused(told: dict[str, Any]) -> None:
    assert "the Ray cluster has 2 CPUs, and 4 processes were asked for" in told["too many"]


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExtraMissing, match="Ray is not installed") as caught:
        RayActors(1)
    assert "reuna[ray]" in caught.value.next_step
