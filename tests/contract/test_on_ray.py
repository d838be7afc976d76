"""A simulated fleet on a local Ray cluster: the bits of a run without, and a lost actor is begun again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import reuna
from reuna.core.errors import LearnerError, PlanError
from tests.unit.sim.test_processes import LARGE, Steps, essence, run

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests: it takes seconds to start."""
    ray.init(
        "local", num_cpus=2, include_dashboard=False, object_store_memory=128 * 2**20, log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.mark.parametrize("values", [20, LARGE])
@pytest.mark.parametrize("strategy", ["fedavgm", "krum"])
def test_a_run_on_ray_has_the_result_of_one_without(strategy: str, values: int) -> None:
    alone = run(1, values, strategy=strategy)
    for processes in (1, 2):
        assert essence(run(processes, values, strategy=strategy, on="ray")) == essence(alone)


def test_an_actor_that_is_killed_once_is_begun_again_and_changes_no_bit(tmp_path: Path) -> None:
    assert essence(run(2, at=tmp_path, how="once", on="ray"))[:3] == essence(run(1))[:3]
    assert (tmp_path / "ended").exists()


def test_what_a_learner_raises_on_ray_names_the_node(tmp_path: Path) -> None:
    with pytest.raises(LearnerError, match="node-4, training: ValueError: no such thing"):
        run(2, at=tmp_path, how="raise", on="ray")


def test_more_processes_than_the_cluster_has_cpus_are_refused() -> None:
    with pytest.raises(PlanError, match="the Ray cluster has 2 CPUs, and 4 processes were asked for"):
        run(4, on="ray")


def test_a_learner_that_only_this_process_knows_travels_with_the_run() -> None:
    class Own(Steps):
        """As in a notebook's cell."""

    nodes = {f"node-{number}": number for number in range(4)}
    alone, there = (reuna.simulate(Own(), nodes, 2, fogs=2, processes=2, on=on) for on in ("here", "ray"))
    assert there.digest == alone.digest
