"""Reuna trains, ships and watches machine-learning models where the data is made.

>>> import reuna
>>> reuna.__version__
'0.1.0'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from reuna.adapters.linear import LinearRegressor, SoftmaxClassifier
    from reuna.adapters.tables import Table, read_folder
    from reuna.api import Result, simulate
    from reuna.checks import check_learner
    from reuna.core.data import Dataset, Samples
    from reuna.core.scores import calibration_error
    from reuna.core.signals import signals

_HOMES = {
    "Dataset": "reuna.core.data",
    "LinearRegressor": "reuna.adapters.linear",
    "Result": "reuna.api",
    "Samples": "reuna.core.data",
    "SoftmaxClassifier": "reuna.adapters.linear",
    "Table": "reuna.adapters.tables",
    "calibration_error": "reuna.core.scores",
    "check_learner": "reuna.checks",
    "read_folder": "reuna.adapters.tables",
    "signals": "reuna.core.signals",
    "simulate": "reuna.api",
}

__all__ = [
    "Dataset",
    "LinearRegressor",
    "Result",
    "Samples",
    "SoftmaxClassifier",
    "Table",
    "__version__",
    "calibration_error",
    "check_learner",
    "read_folder",
    "signals",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Load the library when it is first used, so that a gateway's processes stay small."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reuna' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
