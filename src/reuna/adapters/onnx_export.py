"""Models as ONNX: graphs of dense layers built by hand, and the check that they say the same.

Input ``x`` (n, features) float32; output ``y`` (n, outputs) float32, probabilities where the
activation is softmax or sigmoid. Only Gemm, activations and Softmax of opset 17, IR version 8, so
that old and small runtimes read it. Needs the extra ``onnx``; nothing is imported before it is used.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.processes import silence_makers
from reuna.core import golden
from reuna.core.errors import BadMessage, ExtraMissing, LearnerError
from reuna.core.golden import Golden
from reuna.core.ports import Tensors

OPSET, IR_VERSION = 17, 8
TOLERANCE = 1e-5  #: largest difference of two float32 predictions, absolute and relative
#: our name of an activation -> ONNX operators, one after the other
ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "": (),
    "identity": (),
    "relu": ("Relu",),
    "tanh": ("Tanh",),
    "logistic": ("Sigmoid",),
    "sigmoid": ("Sigmoid",),
    "softmax": ("Softmax",),
    # sigmoids divided by their sum, by way of their logarithms: a small sum keeps its digits
    "one-vs-rest": ("Neg", "Softplus", "Neg", "Softmax"),
}

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Dense:
    """A layer ``activation(x @ weight + bias)``: weight (inputs, outputs), bias (outputs,), float32."""

    weight: NDArray[Any]
    bias: NDArray[Any]
    activation: str = ""


class Predictor(Protocol):
    """A learner that can say what its model answers."""

    def predict(self, model: Tensors, x: Array) -> NDArray[Any]:
        """(n, outputs) for x (n, features) float32; what the exported graph must answer too."""


def linear_graph(model: Tensors, activation: str = "") -> bytes:
    """ONNX of one layer: ``weight`` (features, outputs) and ``bias`` (outputs,). Raises `ExtraMissing`."""
    return dense_graph([Dense(model["weight"], model["bias"], activation)])


def dense_graph(layers: Sequence[Dense]) -> bytes:
    """ONNX of layers one after the other; equal layers give equal bytes.

    Raises `ExtraMissing`, `LearnerError` for an activation that is not in `ACTIVATIONS`.
    """
    onnx = _onnx()
    nodes, values, last = [], [], "x"
    for number, layer in enumerate(layers, start=1):
        out = "y" if number == len(layers) else f"h{number}"
        nodes += _layer_nodes(onnx, layer, number, last, out)
        for name, array in ((f"w{number}", layer.weight), (f"b{number}", layer.bias)):
            values.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        last = out
    ends = [("x", layers[0].weight.shape[0]), ("y", layers[-1].weight.shape[1])]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", n]) for name, n in ends)
    graph = onnx.helper.make_graph(nodes, "model", [x], [y], values)
    model = onnx.helper.make_model(
        graph,
        producer_name="reuna",
        ir_version=IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def with_distance(data: bytes) -> bytes:
    """A graph x -> y of equal widths, as one from x to the mean of (x - y)², (n, 1); by name ``y`` too."""
    onnx = _onnx()
    model = onnx.load_from_string(data)
    graph, make = model.graph, onnx.helper.make_node
    x, y = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = ["given_back" if name == y else name for name in node.input]
        node.output[:] = ["given_back" if name == y else name for name in node.output]
    graph.node.extend(
        [
            make("Sub", [x, "given_back"], ["away"]),
            make("Mul", ["away", "away"], ["squared"]),
            _mean_by_row(onnx, model, "squared", y),
        ]
    )
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, ["n", 1]))
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _mean_by_row(onnx: ModuleType, model: Any, source: str, out: str) -> Any:
    """Mean over the features; its axis is an attribute up to opset 17 and an input from 18 on."""
    (opset,) = [each.version for each in model.opset_import if not each.domain]
    if opset <= OPSET:
        return onnx.helper.make_node("ReduceMean", [source], [out], axes=[1], keepdims=1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axis"))
    return onnx.helper.make_node("ReduceMean", [source, "axis"], [out], keepdims=1)


def _layer_nodes(onnx: ModuleType, layer: Dense, number: int, last: str, out: str) -> list[Any]:
    """Gemm, and the activation where there is one."""
    if layer.activation not in ACTIVATIONS:
        raise LearnerError(f"no ONNX operator is known for the activation {layer.activation!r}")
    operators = ACTIVATIONS[layer.activation]
    names = [f"s{number}_{step}" for step in range(len(operators))] + [out]
    make = onnx.helper.make_node
    nodes = [make("Gemm", [last, f"w{number}", f"b{number}"], [names[0]])]
    for operator, before, after in zip(operators, names, names[1:], strict=False):
        axis = {"axis": 1} if operator == "Softmax" else {}
        nodes.append(make(operator, [before], [after], **axis))
    return nodes


def run_graph(data: bytes, x: Array) -> NDArray[Any]:
    """The graph's first output for x (n, features) float32, by onnxruntime on one thread.

    Raises `ExtraMissing`, `LearnerError` when the bytes are no graph or do not take such an x.
    """
    session = open_session(data)
    try:
        name = session.get_inputs()[0].name
        return np.asarray(session.run(None, {name: np.ascontiguousarray(x, np.float32)})[0])
    except _failures() as error:
        raise LearnerError(f"the exported ONNX does not run: {error}") from error


def one_by_one(data: bytes, x: Array) -> Iterator[tuple[NDArray[Any], float]]:
    """For each row of x (n, features) float32 the graph's first output (outputs,), and milliseconds it took.

    Row by row, as a machine asks: in batches a product may be summed in another order, to other bits.
    Raises as `run_graph`.
    """
    session = open_session(data)
    for row in np.ascontiguousarray(x, np.float32):
        yield one_row(session, row)


def one_row(session: Any, row: Array) -> tuple[NDArray[Any], float]:
    """The first output (outputs,) of an open graph for one row (features,) float32, and milliseconds it took.

    Raises `LearnerError`.
    """
    try:
        began = time.perf_counter()
        (found, *_) = session.run(None, {session.get_inputs()[0].name: row[None]})
        return np.asarray(found)[0].ravel(), (time.perf_counter() - began) * 1000
    except _failures() as error:
        raise LearnerError(f"the ONNX graph does not run: {error}") from error


def open_session(data: bytes) -> Any:
    """One thread, few words. Raises `ExtraMissing`, `LearnerError` when the bytes are no graph."""
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _failures() as error:
        raise LearnerError(f"the exported ONNX does not run: {error}") from error


def with_golden(data: bytes) -> bytes:
    """The graph with a golden input and its answers in its metadata; equal graphs give equal bytes.

    Raises as `run_graph`, and `LearnerError` for a graph that has no finite answer to it.
    """
    onnx = _onnx()
    session = open_session(data)
    x = golden.seeded(_known(session))
    y = _answers(session, x)
    if why := golden.wrong(None, y):
        raise LearnerError(f"the exported ONNX cannot be released: {why}")
    model = onnx.load_from_string(data)
    onnx.helper.set_model_props(model, {**_metadata(session), golden.KEY: golden.encode(Golden(x, y))})
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def self_test(session: Any) -> str:
    """Why an open graph is not to be used, empty when it may be: what it says to its golden input.

    A graph without one is asked for a drawn input, and must answer finite numbers.
    """
    try:
        text = _metadata(session).get(golden.KEY)
        known = golden.decode(text) if text is not None else None
        x = golden.seeded(_known(session)) if known is None else known.x
        return golden.wrong(known, _answers(session, x))
    except (BadMessage, LearnerError) as error:
        return error.message


def _metadata(session: Any) -> dict[str, str]:
    return dict(session.get_modelmeta().custom_metadata_map)


def _known(session: Any) -> tuple[int, ...]:
    """The shape of one row."""
    return tuple(size if isinstance(size, int) else 1 for size in session.get_inputs()[0].shape[1:])


def _answers(session: Any, x: Array) -> NDArray[Any]:
    """The graph's first output for each row, one by one: (rows, outputs)."""
    return np.stack([one_row(session, row)[0] for row in x])


def sample_input(data: bytes, rows: int, seed: int) -> Array:
    """(rows, …) float32 around zero, of the shape that the graph takes. Raises as `run_graph`."""
    known = _known(open_session(data))
    return np.random.default_rng(seed).normal(size=(rows, *known)).astype(np.float32)


def latency_ms(data: bytes, times: int = 200) -> float:
    """95th percentile of the time for one row, milliseconds, on one thread of this machine.

    After as many to warm up. Raises as `run_graph`.
    """
    session, x = open_session(data), sample_input(data, 1, 1)
    name = session.get_inputs()[0].name
    took = []
    try:
        for _ in range(2 * times):
            began = time.perf_counter()
            session.run(None, {name: x})
            took.append(time.perf_counter() - began)
    except _failures() as error:
        raise LearnerError(f"the exported ONNX does not run: {error}") from error
    return float(np.percentile(took[times:], 95)) * 1000


def check_parity(
    data: bytes, learner: Predictor, model: Tensors, x: Array, tolerance: float = TOLERANCE
) -> float:
    """The largest difference between the graph's answer and the learner's own, over all of x.

    Raises `LearnerError` when a shape differs, or a value by more than ``tolerance`` (absolute plus
    relative); else as `run_graph`.
    """
    expected = np.asarray(learner.predict(model, x))
    found = run_graph(data, x)
    if found.shape != expected.shape:
        raise LearnerError(f"the exported ONNX answers shape {found.shape}, the learner {expected.shape}")
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    worst = float(difference.max(initial=0.0))
    if not (difference <= tolerance * (1 + np.abs(expected))).all():  # NaN is a mismatch too
        raise LearnerError(f"the exported ONNX differs from the learner by {worst:.3g}, over {tolerance:.3g}")
    return worst


def _onnx() -> ModuleType:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise _missing("onnx is not installed") from None
    module: ModuleType = onnx
    return module


def _onnxruntime() -> ModuleType:
    silence_makers()
    try:
        import onnxruntime
    except ImportError:
        raise _missing("onnxruntime is not installed") from None
    module: ModuleType = onnxruntime
    return module


def _missing(what: str) -> ExtraMissing:
    return ExtraMissing(what, "Run `pip install 'reuna[onnx]'`.")


def _failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: its own classes have no public root."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, ValueError, RuntimeError)
