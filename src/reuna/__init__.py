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
    from reuna.adapters.tables import Table, per_table, read_folder
    from reuna.api import Result, simulate
    from reuna.checks import check_learner
    from reuna.core.contract import Contract, contract
    from reuna.core.data import Dataset, Samples
    from reuna.core.scores import calibration_error

_HOMES = {
    "Contract": "reuna.core.contract",
    "Dataset": "reuna.core.data",
    "LinearRegressor": "reuna.adapters.linear",
    "Result": "reuna.api",
    "Samples": "reuna.core.data",
    "SoftmaxClassifier": "reuna.adapters.linear",
    "Table": "reuna.adapters.tables",
    "calibration_error": "reuna.core.scores",
    "check_learner": "reuna.checks",
    "contract": "reuna.core.contract",
    "per_table": "reuna.adapters.tables",
    "read_folder": "reuna.adapters.tables",
    "simulate": "reuna.api",
}

__all__ = [
    "Contract",
    "Dataset",
    "LinearRegressor",
    "Result",
    "Samples",
    "SoftmaxClassifier",
    "Table",
    "__version__",
    "calibration_error",
    "check_learner",
    "contract",
    "per_table",
    "read_folder",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """Load the library when it is first used, so that a gateway's processes stay small."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reuna' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
