"""Runs in MLflow, the extra ``mlflow``: a projection that can be made again at any time.

`store` writes, `names` turns any name into a key that MLflow takes.
"""

from __future__ import annotations

import importlib.util


def installed() -> bool:
    """Whether MLflow is there, without loading it."""
    return importlib.util.find_spec("mlflow") is not None
