"""Graphs built by hand answer what the learner answers, and the check tells when they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reuna.adapters import onnx_export as subject
from reuna.adapters.linear import BinaryLogistic, LinearRegressor, SoftmaxClassifier
from reuna.adapters.onnx_export import ACTIVATIONS, Dense, check_parity, dense_graph, linear_graph, run_graph
from reuna.adapters.processes import SILENT
from reuna.core.errors import ExtraMissing, LearnerError

onnx = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

X = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)


def filled(learner: Any, seed: int = 2) -> Any:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=t.shape).astype(np.float32) for name, t in learner.init(1).items()}


@pytest.mark.parametrize("learner", [SoftmaxClassifier(4, 3), BinaryLogistic(4), LinearRegressor(4)])
def test_the_graph_answers_what_the_learner_does(learner: Any) -> None:
    model = filled(learner)
    assert check_parity(learner.export(model), learner, model, X) < 1e-6
    assert check_parity(learner.export(model), learner, model, X[:1]) < 1e-6


def test_equal_models_give_equal_bytes() -> None:
    learner = SoftmaxClassifier(4, 3)
    assert learner.export(filled(learner)) == learner.export(filled(learner))
    assert learner.export(filled(learner)) != learner.export(filled(learner, 3))


def test_old_runtimes_can_read_it() -> None:
    graph = onnx.load_model_from_string(linear_graph(filled(SoftmaxClassifier(4, 3)), "softmax"))
    assert graph.ir_version == 8
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert [node.op_type for node in graph.graph.node] == ["Gemm", "Softmax"]
    assert [value.name for value in (*graph.graph.input, *graph.graph.output)] == ["x", "y"]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_layers_follow_one_another(activation: str) -> None:
    rng = np.random.default_rng(5)
    layers = [
        Dense(rng.normal(size=(4, 6)), rng.normal(size=6), activation),
        Dense(rng.normal(size=(6, 2)), rng.normal(size=2)),
    ]
    hidden = by_hand(X @ layers[0].weight + layers[0].bias, activation)
    expected = hidden @ layers[1].weight + layers[1].bias
    assert np.allclose(run_graph(dense_graph(layers), X), expected, atol=1e-5)


def by_hand(scores: Any, activation: str) -> Any:
    odds = 1 / (1 + np.exp(-scores))
    return {
        "": scores,
        "identity": scores,
        "relu": np.maximum(scores, 0),
        "tanh": np.tanh(scores),
        "logistic": odds,
        "sigmoid": odds,
        "softmax": np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True),
        "one-vs-rest": odds / odds.sum(axis=1, keepdims=True),
    }[activation]


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(LearnerError, match="'swish'"):
        linear_graph(filled(LinearRegressor(4)), "swish")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: {**m, "bias": m["bias"] + np.array([1e-3, 0, 0], np.float32)}, "differs from the learner"),
        (lambda m: {**m, "weight": m["weight"] * np.float32(np.nan)}, "differs from the learner"),
        (
            lambda m: {"weight": m["weight"][:, :2], "bias": m["bias"][:2]},
            r"shape \(9, 2\), the learner \(9, 3\)",
        ),
    ],
)
def test_a_graph_of_another_model_is_told(change: Any, said: str) -> None:
    learner = SoftmaxClassifier(4, 3)
    model = filled(learner)
    with pytest.raises(LearnerError, match=said):
        check_parity(learner.export(change(model)), learner, model, X)


def test_the_tolerance_is_relative_for_large_values() -> None:
    class Large:
        def predict(self, model: Any, x: Any) -> Any:
            return 1e6 * (x @ model["weight"] + model["bias"]) * (1 + 1e-6)

    model = filled(LinearRegressor(4))
    large = {name: np.float32(1e6) * tensor for name, tensor in model.items()}
    assert check_parity(linear_graph(large), Large(), model, X) > 0.1


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x01"])
def test_bytes_that_are_no_graph_are_told(data: bytes) -> None:
    with pytest.raises(LearnerError, match="does not run"):
        run_graph(data, X)


def test_rows_of_another_width_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LearnerError, match="does not run"):
        run_graph(linear_graph(filled(LinearRegressor(4))), X[:, :3])


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_extra_the_error_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = linear_graph(filled(LinearRegressor(4)))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ExtraMissing, match=missing) as caught:
        run_graph(graph, X) if missing == "onnxruntime" else linear_graph(filled(LinearRegressor(4)))
    assert "reuna[onnx]" in caught.value.next_step


def test_importing_the_adapter_imports_neither() -> None:
    code = f"import sys, {subject.__name__}; sys.exit(bool({{'onnx', 'onnxruntime'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


RUN_A_GRAPH = """
import sys
from pathlib import Path
import numpy as np
from reuna.adapters.onnx_export import run_graph
run_graph(Path(sys.argv[1]).read_bytes(), np.zeros((2, 4), np.float32))
"""
RUN_A_PROJECT = """
import sys
from pathlib import Path
from reuna.adapters.project import load_entry
load_entry(Path(sys.argv[1]).parent, "own")
"""
OF_ITS_OWN = """
import onnxruntime
from pathlib import Path
onnxruntime.InferenceSession(Path(__file__).with_name("graph").read_bytes())
def load(*_): pass
def learner(*_): pass
"""


@pytest.mark.parametrize("program", [RUN_A_GRAPH, RUN_A_PROJECT], ids=["ours", "a project's own"])
def test_a_graph_that_runs_tells_nothing_to_the_makers_of_onnxruntime(program: str, tmp_path: Path) -> None:
    """What it would send lies in files until it is sent: without those nothing ever is."""
    given, home = tmp_path / "given", tmp_path / "home"
    given.mkdir()
    home.mkdir()
    (given / "graph").write_bytes(linear_graph(filled(LinearRegressor(4))))
    (given / "own.py").write_text(OF_ITS_OWN)
    said = {"CI", "GITHUB_ACTIONS", "XDG_CACHE_HOME", *SILENT}  # with CI it would be silent by itself
    environment = {name: value for name, value in os.environ.items() if name not in said}
    environment |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program, str(given / "graph")]
    done = subprocess.run(command, env=environment, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []


# --- the self-test ---------------------------------------------------------------------------------


def released(seed: int = 2) -> bytes:
    return subject.with_golden(SoftmaxClassifier(4, 3).export(filled(SoftmaxClassifier(4, 3), seed)))


def test_a_released_graph_passes_its_own_test_and_answers_as_before() -> None:
    plain = SoftmaxClassifier(4, 3).export(filled(SoftmaxClassifier(4, 3)))
    assert subject.self_test(subject.open_session(released())) == ""
    assert run_graph(released(), X).tobytes() == run_graph(plain, X).tobytes()
    assert released() == released(), "equal graphs give equal bytes"


def test_a_graph_of_other_weights_fails_the_test_that_it_carries() -> None:
    """Planted: the weights of another model under the golden answers of this one."""
    mine, other = onnx.load_from_string(released()), onnx.load_from_string(released(3))
    del mine.graph.initializer[:]
    mine.graph.initializer.extend(other.graph.initializer)
    why = subject.self_test(subject.open_session(mine.SerializeToString()))
    assert "of the golden input answers" in why


def test_a_graph_without_a_golden_input_must_answer_finite_numbers() -> None:
    learner = SoftmaxClassifier(4, 3)
    model = filled(learner)
    assert subject.self_test(subject.open_session(learner.export(model))) == ""
    model["bias"][1] = np.nan
    assert "no finite answer" in subject.self_test(subject.open_session(learner.export(model)))
    with pytest.raises(LearnerError, match="cannot be released"):
        subject.with_golden(learner.export(model))


def test_a_golden_input_that_cannot_be_read_or_run_is_a_reason_and_no_crash() -> None:
    graph = onnx.load_from_string(released())
    graph.metadata_props[0].value = "%%"
    assert "no base64" in subject.self_test(subject.open_session(graph.SerializeToString()))
    wide = SoftmaxClassifier(5, 3)
    graph.metadata_props[0].value = (
        subject.open_session(subject.with_golden(wide.export(filled(wide))))
        .get_modelmeta()
        .custom_metadata_map["reuna.golden"]
    )
    assert "does not run" in subject.self_test(subject.open_session(graph.SerializeToString()))
