"""What benchmarks, drills, fuzzers and tests import of ours is there; the type checker does not look for them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imported(folder: str) -> Iterator[tuple[Path, str, str]]:
    """File, module and name of each ``from reuna.… import …``, wherever it stands in a file."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "reuna":
                yield from ((path, node.module or "", alias.name) for alias in node.names)


def missing(module: str, name: str) -> bool:
    try:
        return not hasattr(importlib.import_module(module), name) and not is_module(f"{module}.{name}")
    except ImportError as error:
        return (error.name or "").partition(".")[0] == "reuna"  # else an extra that is not installed


def is_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("folder", ["benchmarks", "drills", "fuzz", "tests"])
def test_every_name_of_ours_that_is_imported_is_there(folder: str) -> None:
    found = set(imported(folder))
    assert found
    known = {(module, name): missing(module, name) for _, module, name in found}
    wrong = [
        f"{path.relative_to(ROOT)}: {module}.{name}" for path, module, name in found if known[module, name]
    ]
    assert not wrong


def test_a_name_that_is_gone_is_seen() -> None:
    assert missing("reuna.exchange.encode", "extent")
    assert missing("reuna.exchange.no_such_module", "anything")
    assert not missing("reuna.exchange", "encode")
