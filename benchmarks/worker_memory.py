"""Memory of a worker while it trains, beside the size of the model: where `reuna check` has its factor from.

    python -m benchmarks.worker_memory --mib 64 --learner linear --json

One fit in a fresh process, over one sample, so that nothing but the model is large; as the worker does it,
from reading the model's file to writing the new one. ``factor`` is (peak after the fit - peak before) / model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from reuna.adapters.linear import SoftmaxClassifier
from reuna.adapters.processes import own_peak_mib
from reuna.adapters.worker.bench import Bench
from reuna.adapters.worker.messages import Fit
from reuna.core.data import Dataset, Samples
from reuna.core.ports import Learner
from reuna.core.tensors import packed_parts

CLASSES = 16
LEARNERS = ("linear", "scikit-learn", "torch", "torch-adam")


def learner_of(name: str, features: int) -> Learner:
    """A learner with features x `CLASSES` parameters, and few besides."""
    if name == "linear":
        return SoftmaxClassifier(features=features, classes=CLASSES)
    if name == "scikit-learn":
        from sklearn.linear_model import SGDClassifier

        from reuna.adapters.sklearn_learner import SklearnLearner

        return SklearnLearner(SGDClassifier(loss="log_loss"), features=features, classes=CLASSES)
    import torch

    from reuna.adapters.torch_learner import TorchLearner

    def adam(parameters: Any, rate: float) -> Any:
        return torch.optim.Adam(parameters, lr=rate)

    return TorchLearner(
        lambda: torch.nn.Linear(features, CLASSES),
        features=features,
        classes=CLASSES,
        optimizer=adam if name == "torch-adam" else None,
    )


class Seated(Bench):
    """A worker whose project was opened: a learner and one sample."""

    def __init__(self, learner: Learner, features: int) -> None:
        super().__init__(Path(), Path())
        one = Samples(np.ones((1, features), np.float32), np.zeros(1, np.int64))
        self._learner, self._data = learner, Dataset(one, one, one)


def measure(name: str, mib: int) -> dict[str, Any]:
    """In this process, which should be fresh."""
    features = (mib << 20) // 4 // CLASSES
    learner = learner_of(name, features)
    with TemporaryDirectory() as folder:
        base, made = Path(folder) / "base", Path(folder) / "made"
        subprocess.run(
            [sys.executable, "-m", __spec__.name, "--write", str(base), *_same(name, mib)], check=True
        )
        bench = Seated(learner, features)
        before = own_peak_mib()
        answer = bench.serve(Fit(str(base), str(made), {"epochs": 2, "rate": 0.1}, 1))
        assert not answer.code, answer.message
        size = base.stat().st_size / (1 << 20)
    return {
        "learner": name,
        "model_mib": round(size, 1),
        "before_mib": round(before, 1),
        "peak_mib": round(answer.peak_mib, 1),
        "factor": round((answer.peak_mib - before) / size, 2),
    }


def _same(name: str, mib: int) -> list[str]:
    return ["--learner", name, "--mib", str(mib)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--learner", choices=LEARNERS, default="linear")
    parser.add_argument("--write", help="only write a first model to this file")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.write:
        features = (asked.mib << 20) // 4 // CLASSES
        tensors = learner_of(asked.learner, features).init(1)
        Path(asked.write).write_bytes(b"".join(packed_parts(tensors)))
        return
    found = measure(asked.learner, asked.mib)
    print(json.dumps(found) if asked.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
