"""Robust strategies in whole rounds: the fogs pass single updates up, and a liar moves nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import reuna
from reuna.api import play, spread_over
from reuna.core.errors import PlanError
from reuna.core.ports import Tensors
from reuna.core.records import Encoding, Grid
from reuna.learn.robust import FOLDS
from reuna.loop.plan import INLINE_LIMIT, check_spec
from reuna.sim.faults import rehearse, undisturbed
from reuna.sim.fleet import make_spec

LARGE = INLINE_LIMIT // 4 + 1  #: values of a model that no longer rides in the plan
LIARS = ("node-2", "node-7")


class Towards:
    """Its model is where its data lie; who is told to lie goes the other way, far."""

    def __init__(self, values: int = 300) -> None:
        self._values = values

    def init(self, seed: int) -> Tensors:
        return {"w": np.zeros(self._values, np.float32)}

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


FOLLOWED: dict[str, Any] = {"grid": Grid(16, -16), "encoding": Encoding(feedback=True, follow=True)}
CHANCE: dict[str, Any] = {"grid": Grid(8, -6), "encoding": Encoding(stochastic=True, feedback=True)}
PLAIN: dict[str, Any] = {"grid": Grid(16, -12), "encoding": None}
PACKED: dict[str, Any] = {"grid": Grid(16, -12), "encoding": Encoding()}
WAYS = {"followed": FOLLOWED, "by chance": CHANCE, "packed": PACKED}


def encoded(strategy: str, fogs: int = 3, processes: int = 1, values: int = 300, **way: Any) -> reuna.Result:
    data = {f"node-{i}": (1 + i / 1000, f"node-{i}" in LIARS) for i in range(9)}
    learner = Towards(values)
    settings = {"byzantine": 2} if "byzantine" in FOLDS[strategy].settings else {}
    spread, _ = spread_over(learner, data, fogs, None)
    spec, model, bundle = make_spec(
        spread, learner, 16, strategy=strategy, settings=settings, evaluate=True, **way
    )
    check_spec(spec)
    return play(spread, spec, model, bundle, processes=processes)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("strategy", FOLDS)
def test_however_updates_are_encoded_the_tree_changes_no_bit_and_liars_nothing(
    strategy: str, name: str
) -> None:
    found = [encoded(strategy, fogs, **WAYS[name]) for fogs in (1, 2, 9)]
    assert len({each.digest for each in found}) == 1
    assert found[0].scores["node-0"]["all"] < 0.05


@pytest.mark.parametrize("strategy", FOLDS)
def test_packing_single_updates_changes_bytes_and_no_bit_of_the_model(strategy: str) -> None:
    plain, packed = encoded(strategy, **PLAIN), encoded(strategy, **PACKED)
    assert packed.digest == plain.digest
    assert packed.bytes_by_kind["model_update"] < plain.bytes_by_kind["model_update"] / 4


@pytest.mark.parametrize("values", [300, LARGE])
def test_processes_change_no_bit_of_encoded_robust_runs(
    values: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    here, in_three = (encoded("krum", 3, processes, values, **FOLLOWED) for processes in (1, 3))
    assert here.digest == in_three.digest
    assert "fetched whole" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize("name", WAYS)
def test_kills_and_cuts_change_no_bit_of_an_encoded_robust_run(name: str) -> None:
    expected = undisturbed(strategy="centred-clipping", **WAYS[name])
    for seed in range(1, 4):
        assert rehearse(seed, strategy="centred-clipping", **WAYS[name]).outcome == expected


def test_keeping_the_largest_values_alone_is_refused_where_single_updates_are_compared() -> None:
    with pytest.raises(PlanError, match=r"round\.keep is 0\.1, and median") as refused:
        encoded("median", grid=Grid(16, -12), encoding=Encoding(feedback=True, keep=0.1))
    assert "round.keep = 1" in refused.value.next_step
