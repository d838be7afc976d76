"""What `reuna init` may be asked for, and what each answer puts into the project's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reuna.core.project import TASKS

LEARNERS = ("builtin", "scikit-learn", "torch")
#: learner -> what `requirements.txt` asks of Reuna
EXTRAS = {"builtin": "demo,onnx", "scikit-learn": "demo,onnx,sklearn", "torch": "demo,onnx,torch"}
#: learner -> module that it needs
MODULES = {"scikit-learn": "sklearn", "torch": "torch"}


@dataclass(frozen=True)
class Task:
    """The words of a task's project."""

    metric: str
    label: str
    about: str
    gates: str
    time: str = "second"
    every_s: int = 10
    max_gap_s: int = 60


@dataclass(frozen=True)
class Pace:
    """Numbers with which a learner gets somewhere on the sample data in some seconds."""

    rate: float
    rounds: int = 20
    server_rate: float = 0.5
    momentum: float = 0.9
    batch: int | None = 32
    epochs: int = 1
    more: str = ""

    def train(self) -> str:
        """The section ``[train]``."""
        batch = [] if self.batch is None else [f"batch = {self.batch}"]
        more = [self.more] if self.more else []
        return "\n".join([f"epochs = {self.epochs}", f"rate = {self.rate:g}", *batch, *more])


ABOUT: Mapping[str, Task] = {
    "fault-classification": Task(
        "all",
        "fault",
        "Names the fault of a pump, also one that this pump has not had yet but others have.",
        "all = { min = 0.9, max_drop = 0.02 }\nfalse_alarms = { max = 0.05 }",
    ),
    "anomaly-detection": Task(
        "auroc",
        "fault",
        "Learns what is normal at every pump, and tells how strange the last minutes are.",
        "auroc = { min = 0.9, max_drop = 0.02 }\nfalse_alarms = { max = 0.1 }",
    ),
    "remaining-useful-life": Task(
        "rmse",
        "remaining_h",
        "Tells how many hours a pump has left, whatever it is that wears out.",
        "rmse = { max = 15, max_drop = 1 }",
        "hour",
        3600,
        21_600,
    ),
}
assert set(ABOUT) == set(TASKS)

_QUANTILE = "quantile = 0.99"
#: (task, learner) -> its numbers. Every combination has a sensible default.
PACES: Mapping[tuple[str, str], Pace] = {
    ("fault-classification", "builtin"): Pace(0.1),
    ("fault-classification", "scikit-learn"): Pace(0.01, batch=None),
    ("fault-classification", "torch"): Pace(0.1),
    ("anomaly-detection", "builtin"): Pace(0.1, epochs=5, momentum=0.5, more=_QUANTILE),
    ("anomaly-detection", "scikit-learn"): Pace(0.01, epochs=10, momentum=0.5, batch=None, more=_QUANTILE),
    ("anomaly-detection", "torch"): Pace(0.2, epochs=5, momentum=0.5, more=_QUANTILE),
    ("remaining-useful-life", "builtin"): Pace(0.03, epochs=2, server_rate=1.0, momentum=0.5),
    ("remaining-useful-life", "scikit-learn"): Pace(
        0.001, epochs=10, server_rate=1.0, momentum=0.5, batch=None
    ),
    ("remaining-useful-life", "torch"): Pace(0.003, epochs=10, server_rate=1.0, momentum=0.5),
}
