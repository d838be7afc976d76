"""Checks that every learner must pass; run them on your own before a fleet does.

    from reuna.checks import check_learner
    check_learner(learner, data)

``data`` is what the project's ``load`` returns; small data are enough, a check trains a few times.
`learner_checks` gives the checks one by one, for a parametrised test.

>>> import numpy as np
>>> from reuna.adapters.linear import LinearRegressor
>>> from reuna.core.data import Dataset, Samples
>>> samples = Samples(np.ones((4, 2), np.float32), np.ones(4, np.float32))
>>> [check.name for check in check_learner(LinearRegressor(2), Dataset(samples, samples, samples))][:2]
['init is seeded', 'tensors are float32']
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from reuna.adapters.onnx_export import Predictor, check_parity
from reuna.core.data import Dataset, Samples
from reuna.core.errors import ExtraMissing, LearnerError, ReunaError
from reuna.core.ports import Learner, Tensors
from reuna.core.records import Metrics, Setting
from reuna.core.tensors import finite, float32, layout_of, pack, unpack

MAX_METRICS = 64
SEED = 20_011  #: any number; the same in each check


@dataclass(frozen=True)
class Bench:
    """A learner on the bench: with data of one node and the settings of a fit."""

    learner: Learner
    data: Any
    settings: Mapping[str, Setting]

    def model(self) -> dict[str, Any]:
        """The initial model as a node gets it: read from bytes, arrays that cannot be written."""
        model = {name: float32(tensor) for name, tensor in self.learner.init(SEED).items()}
        return dict(unpack(pack(model)))

    def fresh(self) -> Bench:
        """The same with a copy of the learner, so that what one fit left behind meets no other."""
        return replace(self, learner=copy.deepcopy(self.learner))

    def fit(self, model: Tensors | None = None, data: Any = None) -> tuple[Tensors, int, Metrics]:
        """One fit; from the initial model and on the node's data, unless told otherwise."""
        base = self.model() if model is None else model
        return self.learner.fit(base, self.data if data is None else data, self.settings, SEED)


@dataclass(frozen=True)
class Check:
    """One promise of the port. ``run`` raises `LearnerError` when it is broken."""

    name: str
    run: Callable[[Bench], None]


def check_learner(
    learner: Learner, data: Any, settings: Mapping[str, Setting] | None = None
) -> tuple[Check, ...]:
    """Run every check; returns those that were run.

    Raises `LearnerError` that names every broken promise, and whatever the learner itself raises.
    """
    bench = Bench(learner, data, settings or {})
    checks = tuple(learner_checks())
    broken = list(failures(checks, bench))
    if broken:
        name = type(learner).__name__
        raise LearnerError(f"{name} breaks {len(broken)} of {len(checks)} promises:\n" + "\n".join(broken))
    return checks


def failures(checks: Iterable[Check], bench: Bench) -> Iterator[str]:
    """What each broken check says; nothing for those that hold.

    What is no error of ours goes on its way, with a note of the check that met it.
    """
    for check in checks:
        try:
            check.run(bench)
        except ReunaError as error:
            yield f"  {check.name}: {error.message}"
        except Exception as error:
            error.add_note(f"while checking that {check.name!r}")
            raise


def learner_checks() -> Iterator[Check]:
    """The checks in the order in which they make sense: an early one explains a later one."""
    yield Check("init is seeded", _init_is_seeded)
    yield Check("tensors are float32", _tensors_are_float32)
    yield Check("fit is seeded", _fit_is_seeded)
    yield Check("fit leaves its input alone", _fit_leaves_its_input_alone)
    yield Check("fit keeps names and shapes", _fit_keeps_names_and_shapes)
    yield Check("values are finite", _values_are_finite)
    yield Check("weight counts samples", _weight_counts_samples)
    yield Check("metrics are few finite numbers", _metrics_are_few_finite_numbers)
    yield Check("evaluate is pure", _evaluate_is_pure)
    yield Check("fit remembers nothing", _fit_remembers_nothing)
    yield Check("an unseen label is no obstacle", _unseen_label)
    yield Check("export says what the learner says", _export_parity)


def _init_is_seeded(bench: Bench) -> None:
    first, second = bench.learner.init(SEED), bench.learner.init(SEED)
    _demand(_bits(first) == _bits(second), "the same seed gave two different models")


def _tensors_are_float32(bench: Bench) -> None:
    for model in (bench.learner.init(SEED), bench.fit()[0]):
        _demand(layout_of(model).params > 0, "the model has no values")


def _fit_is_seeded(bench: Bench) -> None:
    base = bench.model()
    same = _bits(bench.fresh().fit(base)[0]) == _bits(bench.fresh().fit(base)[0])
    _demand(same, "the same model, data and seed gave two different models")


def _fit_leaves_its_input_alone(bench: Bench) -> None:
    model = {name: np.array(tensor) for name, tensor in bench.model().items()}
    before = _bits(model)
    bench.fit(model)
    _demand(_bits(model) == before, "fit changed the model it was given; copy before training")


def _fit_keeps_names_and_shapes(bench: Bench) -> None:
    base, trained = bench.model(), bench.fit()[0]
    _demand(_shapes(base) == _shapes(trained), f"{_shapes(base)} became {_shapes(trained)}")


def _values_are_finite(bench: Bench) -> None:
    for stage, model in (("init", bench.learner.init(SEED)), ("fit", bench.fit()[0])):
        wrong = [name for name, tensor in sorted(model.items()) if not finite(tensor)]
        _demand(not wrong, f"{stage} gave values that are not finite in {', '.join(map(repr, wrong))}")


def _weight_counts_samples(bench: Bench) -> None:
    weight = bench.fit()[1]
    _demand(type(weight) is int and weight >= 1, f"fit said {weight!r}, expected a whole number from 1 on")


def _metrics_are_few_finite_numbers(bench: Bench) -> None:
    _check_metrics("fit", bench.fit()[2])
    _check_metrics("evaluate", bench.learner.evaluate(bench.model(), bench.data, bench.settings))


def _check_metrics(stage: str, metrics: Metrics) -> None:
    _demand(len(metrics) <= MAX_METRICS, f"{stage} gave {len(metrics)} metrics, {MAX_METRICS} are allowed")
    for name, value in metrics.items():
        _demand(isinstance(name, str), f"{stage} named a metric {name!r}, expected text")
        number = isinstance(value, int | float) and math.isfinite(value)
        _demand(number, f"{stage} gave {name} = {value!r}, expected a finite number")


def _evaluate_is_pure(bench: Bench) -> None:
    model = {name: np.array(tensor) for name, tensor in bench.model().items()}
    before = _bits(model)
    first = bench.learner.evaluate(model, bench.data, bench.settings)
    second = bench.learner.evaluate(model, bench.data, bench.settings)
    _demand(_bits(model) == before, "evaluate changed the model it was given")
    _demand(repr(first) == repr(second), f"the same model gave {first} and then {second}")


def _fit_remembers_nothing(bench: Bench) -> None:
    """A node may be restarted between any two rounds: a round may not depend on the one before."""
    base, used = bench.model(), bench.fresh()
    expected = _bits(bench.fresh().fit(base)[0])
    if _bits(bench.fresh().fit(base)[0]) != expected:
        return  # chance, not memory: another check tells
    used.fit(used.fit(base)[0])
    _demand(_bits(used.fit(base)[0]) == expected, "a fit depends on the fits before it")


def _unseen_label(bench: Bench) -> None:
    """Train without the samples of one class; only where `data` is a `Dataset` with classes."""
    data = bench.data
    if not isinstance(data, Dataset) or data.train.y.dtype.kind not in "iu":
        return
    for label in np.unique(data.train.y)[[0, -1]]:
        kept = data.train.y != label
        if not kept.any():
            return
        trained = bench.fit(data=replace(data, train=_only(data.train, kept)))[0]
        same = _shapes(trained) == _shapes(bench.fit()[0])
        _demand(same, f"without samples of label {label} the model is {_shapes(trained)}")
        bench.learner.evaluate(trained, data, bench.settings)


def _export_parity(bench: Bench) -> None:
    """The graph answers what ``predict(model, x)`` does, for a learner that has it and a `Dataset`."""
    trained = bench.fit()[0]
    try:
        graph = bench.learner.export(trained)
    except ExtraMissing:
        return  # what is not installed cannot be compared; a release needs it, training does not
    _demand(isinstance(graph, bytes) and len(graph) > 0, "export gave no bytes")
    if not hasattr(bench.learner, "predict") or not isinstance(bench.data, Dataset):
        return
    try:
        check_parity(graph, cast("Predictor", bench.learner), trained, bench.data.train.x)
    except ExtraMissing:
        return


def _demand(holds: object, message: str) -> None:
    if not holds:
        raise LearnerError(message)


def _bits(model: Tensors) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of each tensor; of any type, so that each check tells its own fault only."""
    arrays = {name: np.asarray(tensor) for name, tensor in model.items()}
    return {name: (str(array.dtype), array.tobytes()) for name, array in arrays.items()}


def _shapes(model: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(model[name]) for name in sorted(model)}


def _only(samples: Samples, kept: Any) -> Samples:
    return Samples(samples.x[kept], samples.y[kept])
