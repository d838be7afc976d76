"""A torch module as a learner. Needs the extra; the tests of what happens without it do not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from reuna.adapters.onnx_export import check_parity
from reuna.adapters.torch_learner import TorchLearner
from reuna.core.data import Dataset, Samples
from reuna.core.errors import DataError, ExtraMissing, LearnerError
from reuna.core.tensors import pack, unpack

HERE = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HERE, reason="the extra `torch` is not installed")
needs_export = pytest.mark.skipif(
    not HERE or importlib.util.find_spec("onnxscript") is None, reason="torch or onnxscript is not installed"
)


def data(classes: int = 3, rows: int = 60) -> Dataset:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    y = x[:, :classes].argmax(axis=1) if classes else x @ np.array([1, -2, 0, 1], np.float32)
    samples = Samples(x, y)
    return Dataset(samples, samples, samples)


def module() -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3))


def classifier() -> TorchLearner:
    return TorchLearner(module, features=4, classes=3)


def regressor() -> TorchLearner:
    from torch import nn

    return TorchLearner(lambda: nn.Linear(4, 1), features=4)


@pytest.mark.skipif(HERE, reason="the extra `torch` is installed here")
def test_without_torch_the_error_says_what_to_install() -> None:
    with pytest.raises(ExtraMissing) as caught:
        TorchLearner(module, features=4, classes=3).init(1)
    assert "reuna[torch]" in caught.value.next_step


def test_importing_the_adapter_does_not_import_torch() -> None:
    code = "import sys, reuna.adapters.torch_learner; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@needs_torch
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    learner, settings = classifier(), {"epochs": 2, "batch": 16}
    base = learner.init(5)
    assert pack(base) == pack(learner.init(5)) != pack(learner.init(6))
    first = learner.fit(base, data(), settings, 7)
    assert pack(first[0]) == pack(learner.fit(base, data(), settings, 7)[0])
    assert pack(first[0]) != pack(learner.fit(base, data(), settings, 8)[0])


@needs_torch
def test_callers_generator_and_threads_are_left_as_they_were() -> None:
    import torch

    torch.manual_seed(1)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    classifier().fit(classifier().init(1), data(), {}, 3)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@needs_torch
def test_training_lowers_the_loss() -> None:
    learner = classifier()
    base = learner.init(1)
    trained, weight, _ = learner.fit(base, data(), {"epochs": 60, "rate": 0.2, "batch": 20}, 1)
    before, after = learner.evaluate(base, data(), {}), learner.evaluate(trained, data(), {})
    assert weight == 60
    assert after["loss"] < before["loss"] / 2
    assert after["all"] > 0.9


@needs_torch
def test_a_regressor_finds_the_line() -> None:
    learner = regressor()
    trained, _, _ = learner.fit(learner.init(1), data(0), {"epochs": 300}, 1)
    assert learner.evaluate(trained, data(0), {})["rmse"] < 0.05
    assert learner.predict(trained, data(0).test.x).shape == (60, 1)


@needs_torch
def test_models_from_a_file_are_read_only_and_stay_as_they_are() -> None:
    learner = classifier()
    packed = pack(learner.init(1))
    learner.fit(unpack(packed), data(), {}, 1)
    assert packed == pack(learner.init(1))


@needs_torch
def test_whole_numbers_of_the_state_are_no_tensors() -> None:
    names = set(classifier().init(1))
    assert "1.running_mean" in names
    assert "1.num_batches_tracked" not in names


@needs_torch
def test_the_proximal_term_keeps_the_model_near() -> None:
    learner = regressor()
    base = learner.init(1)
    free = learner.fit(base, data(0), {"epochs": 50}, 1)[0]
    near = learner.fit(base, data(0), {"epochs": 50, "mu": 5.0}, 1)[0]

    def distance(model: Any) -> float:
        return float(np.linalg.norm(model["weight"] - base["weight"]))

    assert 0 < distance(near) < distance(free) / 2


@needs_torch
def test_own_loss_and_optimizer_are_used() -> None:
    import torch

    learner = TorchLearner(
        lambda: torch.nn.Linear(4, 1),
        features=4,
        loss=lambda scores, targets: torch.nn.functional.l1_loss(scores.reshape(-1), targets),
        optimizer=lambda parameters, rate: torch.optim.Adam(parameters, lr=rate),
    )
    trained, _, metrics = learner.fit(learner.init(1), data(0), {"epochs": 200, "rate": 0.05}, 1)
    assert metrics["loss"] < 0.3
    assert learner.evaluate(trained, data(0), {})["loss"] < 0.3


@needs_torch
def test_a_model_of_another_module_is_refused() -> None:
    with pytest.raises(LearnerError, match="another module"):
        classifier().evaluate(regressor().init(1), data(), {})


@needs_torch
def test_data_that_does_not_fit_is_refused() -> None:
    wide = Samples(np.zeros((2, 5), np.float32), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="4 features"):
        classifier().fit(classifier().init(1), Dataset(wide, wide, wide), {}, 1)


@needs_export
@pytest.mark.parametrize("classes", [3, 0])
def test_the_exported_graph_answers_the_same_for_any_number_of_rows(classes: int) -> None:
    pytest.importorskip("onnxruntime")
    learner = classifier() if classes else regressor()
    trained, _, _ = learner.fit(learner.init(1), data(classes), {"epochs": 3}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own inner workings
        graph = learner.export(trained)
    for rows in (1, 7, 60):
        assert check_parity(graph, learner, trained, data(classes).test.x[:rows]) < 1e-5


@pytest.mark.skipif(
    not HERE or importlib.util.find_spec("onnxscript") is not None, reason="onnxscript is there"
)
def test_without_the_exporter_the_error_says_what_to_install() -> None:
    with pytest.raises(ExtraMissing, match="onnxscript"):
        classifier().export(classifier().init(1))
