"""Which of the modules that a project imports are installed here. None of them is imported for it.

>>> from reuna.core.readiness import Module
>>> looked_for((Module("json"), Module("no_such_module"), Module("numpy", "numpy", "0.1")))
(('no_such_module',), ('numpy',))
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec

from reuna.core.readiness import Module


def looked_for(modules: Iterable[Module]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of those that are not installed, and of those whose package has another version."""
    every = list(modules)
    missing = tuple(each.name for each in every if not is_here(each.name))
    other = tuple(each.name for each in every if each.name not in missing and _is_other(each))
    return missing, other


def is_here(name: str) -> bool:
    """Whether there is a module of that name at the top: below it a package would have to be imported."""
    try:
        return name.isidentifier() and find_spec(name) is not None
    except (ImportError, ValueError):  # `__main__` and what else has no specification
        return False


def _is_other(module: Module) -> bool:
    if not module.package or not module.version:
        return False
    try:
        return metadata.version(module.package) != module.version
    except (metadata.PackageNotFoundError, ValueError):
        return True
