"""A torch module as a learner: its floating state is the model.

    TorchLearner(lambda: nn.Linear(20, 4), features=20, classes=4)

Settings of `fit`: ``epochs``, ``rate`` (step), ``batch`` (samples a step, 0: all), ``mu`` (FedProx:
pull of the parameters towards the incoming model, Li et al. 2020 eq. 2). Seeded, on one CPU thread,
so that the same seed gives the same bytes. Whole numbers in the state (counters of batch norm)
belong to no model: each fit starts them anew. Needs the extra ``torch``; nothing is imported
before it is used, and no pickle is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reuna.core.data import Dataset, Samples, batches, check_samples, number
from reuna.core.errors import ExtraMissing, LearnerError
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting
from reuna.core.tensors import float32

Array = NDArray[np.float32]
_OPSET = 18  # the lowest that torch's exporter writes without converting


class TorchLearner:
    """Implements `reuna.core.ports.Learner` over modules that a factory makes.

    ``module()`` is a new ``nn.Module`` from x (n, features) to scores (n, classes), or values (n, outputs).
    ``loss(scores, targets)`` is a scalar tensor; default: cross entropy for classes, else half the
    mean squared error. ``optimizer(parameters, rate)`` is new in each fit; default: plain SGD.
    """

    def __init__(
        self,
        module: Callable[[], Any],
        *,
        features: int,
        classes: int = 0,
        loss: Callable[[Any, Any], Any] | None = None,
        optimizer: Callable[[Iterator[Any], float], Any] | None = None,
    ) -> None:
        self.features = features
        self.classes = classes
        self._module = module
        self._loss = loss or (_cross_entropy if classes else _half_squared_error)
        self._optimizer = optimizer or _sgd

    def init(self, seed: int) -> Tensors:
        """The state of a module that was made under the seed."""
        with _repeatable(seed):
            return _state(self._module())

    def fit(
        self, model: Tensors, data: Dataset, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        """Train on the training samples; ``loss`` is that of the last step. Raises `DataError`."""
        check_samples(data.train, self.features, self.classes)
        rate, mu = number(settings, "rate", 0.1), number(settings, "mu", 0.0)
        loss = 0.0
        with _repeatable(seed):
            module = self._loaded(model).train()
            anchors = [parameter.detach().clone() for parameter in module.parameters()]
            optimizer = self._optimizer(module.parameters(), rate)
            for part in batches(data.train, settings, seed):
                optimizer.zero_grad()
                total = self._loss(module(_tensor(part.x)), self._targets(part))
                total.backward()
                _pull(module, anchors, mu)
                optimizer.step()
                loss = float(total.detach())
            return _state(module), len(data.train), {"loss": loss}

    def evaluate(self, model: Tensors, data: Dataset, settings: Mapping[str, Setting]) -> Metrics:
        """On the test samples: accuracy (``all``) or ``rmse``, and ``loss``. Raises `DataError`."""
        check_samples(data.test, self.features, self.classes)
        with _repeatable(0), _torch().no_grad():
            scores = self._loaded(model).eval()(_tensor(data.test.x))
            loss = float(self._loss(scores, self._targets(data.test)))
        answers = scores.numpy()
        if self.classes:
            return {"all": float(np.mean(answers.argmax(axis=1) == data.test.y)), "loss": loss}
        error = answers - data.test.y.reshape(answers.shape)
        return {"rmse": float(np.sqrt(np.mean(error**2))), "loss": loss}

    def predict(self, model: Tensors, x: Array) -> Array:
        """Probabilities (n, classes), or values (n, outputs); float32."""
        with _repeatable(0), _torch().no_grad():
            answers: Array = self._answering(model)(_tensor(x)).numpy()
        return answers

    def export(self, model: Tensors) -> bytes:
        """The model as ONNX by torch's exporter; answers what `predict` does.

        Raises `ExtraMissing` without ``onnxscript``.
        """
        torch = _torch()
        if find_spec("onnxscript") is None:  # torch's exporter needs it
            raise ExtraMissing("onnxscript is not installed", "Run `pip install onnx onnxscript`.")
        with _repeatable(0):
            program = torch.onnx.export(
                self._answering(model),
                (torch.zeros(2, self.features),),
                input_names=["x"],
                output_names=["y"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
        data: bytes = program.model_proto.SerializeToString(deterministic=True)
        return data

    def _loaded(self, model: Tensors) -> Any:
        module = self._module()
        state = {name: _tensor(values) for name, values in model.items()}
        missing, unknown = module.load_state_dict(state, strict=False)
        wanted = [name for name in missing if module.state_dict()[name].is_floating_point()]
        if wanted or unknown:
            raise LearnerError(
                f"the model is of another module: {(wanted + list(unknown))[0]!r} has no counterpart"
            )
        return module

    def _answering(self, model: Tensors) -> Any:
        """The module that gives `predict`'s answers."""
        module = self._loaded(model).eval()
        return _torch().nn.Sequential(module, _torch().nn.Softmax(dim=1)).eval() if self.classes else module

    def _targets(self, samples: Samples) -> Any:
        if self.classes:
            return _tensor(samples.y.astype(np.int64))
        return _tensor(samples.y.astype(np.float32))


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError:
        raise ExtraMissing("torch is not installed", "Run `pip install 'reuna[torch]'`.") from None
    module: ModuleType = torch
    return module


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """One thread and a seeded generator, for as long as the block takes."""
    torch = _torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _tensor(values: NDArray[Any]) -> Any:
    """A tensor of its own: ours may be read-only views."""
    return _torch().tensor(values)


def _state(module: Any) -> dict[str, Array]:
    state = {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
    return {name: float32(value.detach().cpu().numpy().copy()) for name, value in state.items()}


def _pull(module: Any, anchors: list[Any], mu: float) -> None:
    """Add the proximal term's gradient, ``mu * (w - w_incoming)``."""
    if not mu:
        return
    for parameter, anchor in zip(module.parameters(), anchors, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - anchor, alpha=mu)


def _cross_entropy(scores: Any, targets: Any) -> Any:
    return _torch().nn.functional.cross_entropy(scores, targets)


def _half_squared_error(scores: Any, targets: Any) -> Any:
    return 0.5 * _torch().nn.functional.mse_loss(scores, targets.reshape(scores.shape))


def _sgd(parameters: Iterator[Any], rate: float) -> Any:
    return _torch().optim.SGD(parameters, lr=rate)
