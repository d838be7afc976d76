"""No pickle is loaded: not in the source, and not in a process that tests run."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = [
    path for folder in ("src", "examples", "drills", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
#: Loading with one of these runs whatever the bytes say.
MODULES = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve", "torch.package"}
#: The same for single functions.
FUNCTIONS = {("torch", "load"), ("torch.jit", "load"), ("pandas", "read_pickle"), ("pd", "read_pickle")}
#: A call with this argument unpickles; with ``weights_only=False`` torch does.
ARGUMENTS = {("allow_pickle", True), ("weights_only", False)}


def pickles_in(source: str) -> Iterator[int]:
    """Lines that import a module, or call a function, that runs what it loads."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if any(_is_module(name.name) for name in names):
                yield node.lineno
            case ast.ImportFrom(module=str(module), names=names) if _is_module(module) or any(
                (module, name.name) in FUNCTIONS for name in names
            ):
                yield node.lineno
            case ast.Attribute(value=value, attr=attribute) if (ast.unparse(value), attribute) in FUNCTIONS:
                yield node.lineno
            case ast.keyword(arg=str(name), value=ast.Constant(value=value)) if (name, value) in ARGUMENTS:
                yield node.lineno


def _is_module(name: str) -> bool:
    return name in MODULES or name.partition(".")[0] in MODULES


@pytest.mark.parametrize(
    "fault",
    [
        "import pickle",
        "import joblib.memory",
        "import torch.package",
        "from pickle import loads",
        "from torch import load",
        "def f():\n    import dill",
        "torch.load('m.pt')",
        "load = torch.load",
        "pd.read_pickle('m')",
        "np.load('m.npy', allow_pickle=True)",
        "load(path, weights_only=False)",
    ],
)
def test_a_planted_pickle_is_found(fault: str) -> None:
    assert list(pickles_in(fault))


def test_no_source_loads_a_pickle() -> None:
    assert len(SOURCE) > 100
    found = {
        str(path.relative_to(ROOT)): list(pickles_in(path.read_text(encoding="utf-8"))) for path in SOURCE
    }
    assert not {path: lines for path, lines in found.items() if lines}


def test_a_pickle_that_is_loaded_fails_the_test(request: pytest.FixtureRequest) -> None:
    data = pickle.dumps(Path("here"))
    with pytest.raises(RuntimeError, match="a pickle is being loaded"):
        pickle.loads(data)
    conftest = request.config.pluginmanager.getplugin(str(ROOT / "tests" / "conftest.py"))
    assert conftest.UNPICKLED.pop().startswith("pathlib")


def test_a_pickle_that_a_process_of_ours_loads_ends_it() -> None:
    script = "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.Path('here')))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 1
    assert "a pickle is being loaded" in done.stderr
