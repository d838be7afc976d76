"""What a user may import, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import reuna
from reuna.loop import STAGES

PACKAGE = Path(reuna.__file__).parent
FRAMEWORKS = {
    "asyncua",
    "cryptography",
    "dbos",
    "joblib",
    "matplotlib",
    "mlflow",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "securesystemslib",
    "sklearn",
    "torch",
    "tuf",
}

#: What serves and journals; loading it takes longer than most commands.
SERVERS = {"aiohttp", "dbos", "sqlalchemy"}


def loaded_by(module: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh Python after ``import module``."""
    script = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_public_names_are_sorted_and_there() -> None:
    assert list(reuna.__all__) == sorted(reuna.__all__)
    for name in reuna.__all__:
        assert getattr(reuna, name) is not None


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        reuna.nothing


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        ("reuna", FRAMEWORKS | {"numpy", "aiohttp", "nats", "msgspec"}),
        # `reuna --help` answers before anybody notices
        ("reuna.cli", FRAMEWORKS | {"numpy", "aiohttp", "nats"}),
        # an edge node: msgspec and the standard library; numpy's threads would keep it in the network
        ("reuna.edge.agent", FRAMEWORKS | {"aiohttp", "typer", "numpy"}),
        # what leaves is signed for, what comes down is verified
        ("reuna.exchange.egress", FRAMEWORKS - {"cryptography"} | {"aiohttp", "typer"}),
        # the whole of it: nats-py alone would bring aiohttp along
        ("reuna.exchange.process", SERVERS | {"typer"}),
        # the fog serves freight, so aiohttp, and metadata, and certifies its edges; it journals no run
        ("reuna.fog.gateway", FRAMEWORKS - {"cryptography", "securesystemslib", "tuf"} | {"typer"}),
        # a command about a fleet looks where its places write; it serves nothing and journals nothing
        ("reuna.fleet.session", SERVERS | {"nats"}),
        ("reuna.fleet.admit", SERVERS | {"nats", "numpy"}),
        ("reuna.fleet.backup", SERVERS | {"nats", "numpy"}),
        ("reuna.fleet.upgrade", SERVERS | {"nats", "numpy"}),
    ],
)
def test_a_process_loads_only_what_it_uses(module: str, not_loaded: set[str]) -> None:
    assert not loaded_by(module) & not_loaded


def test_each_stage_is_a_module_of_the_loop() -> None:
    modules = {path.stem for path in (PACKAGE / "loop").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)


def test_each_place_has_a_file_named_after_each_stage_it_runs_and_no_other() -> None:
    every_stage = {"plan", "data", "train", "validate", "release", "deploy", "operate", "monitor", "trigger"}
    for place in ("edge", "fog", "cloud"):
        files = {path.stem for path in (PACKAGE / place).glob("*.py")}
        assert files & every_stage == {stage for stage, places in STAGES.items() if place in places}
