"""Robust strategies in whole rounds: the fogs pass single updates up, and a liar moves nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reuna
from reuna.core.errors import PlanError
from reuna.core.ports import Tensors
from reuna.learn.robust import FOLDS
from reuna.sim.faults import rehearse, undisturbed

LIARS = ("node-2", "node-7")


class Towards:
    """Its model is where its data lie; who is told to lie goes the other way, far."""

    def init(self, seed: int) -> Tensors:
        return {"w": np.zeros(300, np.float32)}

    def fit(
        self, model: Tensors, data: Any, settings: Any, seed: int
    ) -> tuple[Tensors, int, dict[str, float]]:
        target, lies = data
        step = 0.5 * (np.float32(target) - model["w"])
        return {"w": model["w"] - 40 * step if lies else model["w"] + step}, 10, {"loss": 0.0}

    def evaluate(self, model: Tensors, data: Any, settings: Any) -> dict[str, float]:
        return {"all": float(np.abs(model["w"] - data[0]).max())}

    def export(self, model: Tensors) -> bytes:
        return b""


def run(strategy: str, fogs: int = 3, nodes: int = 9, **changes: Any) -> reuna.Result:
    data = {f"node-{i}": (1 + i / 1000, f"node-{i}" in LIARS) for i in range(nodes)}
    settings = (
        {"byzantine": 2} if "byzantine" in (FOLDS[strategy].settings if strategy in FOLDS else {}) else {}
    )
    return reuna.simulate(Towards(), data, 12, strategy=strategy, settings=settings, fogs=fogs, **changes)


@pytest.mark.parametrize("strategy", FOLDS)
def test_two_of_nine_nodes_that_lie_do_not_keep_the_others_from_their_goal(strategy: str) -> None:
    assert run(strategy).scores["node-0"]["all"] < 0.05


def test_the_weighted_mean_ends_nowhere_beside_the_same_liars() -> None:
    assert run("fedavg").scores["node-0"]["all"] > 1


@pytest.mark.parametrize("strategy", FOLDS)
def test_any_tree_of_fogs_gives_the_same_bits(strategy: str) -> None:
    assert len({run(strategy, fogs, evaluate=False).digest for fogs in (1, 2, 9)}) == 1


def test_fogs_pass_up_every_update_and_that_is_counted() -> None:
    summed, singly = (
        run(name, evaluate=False).bytes_by_kind["model_update"] for name in ("fedavg", "median")
    )
    assert singly > summed
    assert (
        singly >= 2 * 12 * 9 * 300
    )  # from nine edges and again from their fogs, a byte a value at the least


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", ["median", "centred-clipping"])
def test_kills_and_cuts_change_no_bit_of_a_robust_run(strategy: str, seed: int) -> None:
    assert rehearse(seed, strategy=strategy).outcome == undisturbed(strategy=strategy)


def test_a_run_whose_rounds_may_have_too_few_nodes_is_refused_before_it_begins() -> None:
    with pytest.raises(PlanError, match="krum with byzantine = 2 needs the updates of at least 7 nodes"):
        run("krum", nodes=6)


def test_a_round_with_too_few_members_is_refused_when_it_is_folded() -> None:
    with pytest.raises(PlanError, match="median needs the updates of at least 3 nodes, and there may be 2"):
        run("median", took_part=[("node-0", "node-1")] * 12)
