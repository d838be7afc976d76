"""The floors of the house hold, and each contract catches a fault planted for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"

#: contract, module that gets the line, the line
FAULTS = [
    ("floors", "reuna/edge/train.py", "import reuna.cloud.train"),
    (
        "floors",
        "reuna/core/settings.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING: import reuna.wire",
    ),
    ("floors", "reuna/fog/train.py", "def lazy():\n    import reuna.sim.bus"),
    ("floors", "reuna/common.py", "HELPERS = 'a module without a floor'"),
    ("stages", "reuna/loop/train.py", "import reuna.loop.plan"),
    ("pure", "reuna/loop/train.py", "import sqlite3"),
    ("pure", "reuna/core/records.py", "import asyncio"),
    ("floors", "reuna/trust/plans.py", "import reuna.wire"),
    ("trust-pure", "reuna/trust/metadata.py", "def lazy():\n    import socket"),
    ("adapters-decide-nothing", "reuna/adapters/spool.py", "def lazy():\n    import reuna.learn.sums"),
    ("adapters-apart", "reuna/adapters/nats_bus.py", "import reuna.adapters.https_client"),
    ("third-parties", "reuna/exchange/trust.py", "import tuf.ngclient"),
    ("third-parties", "reuna/edge/agent.py", "def lazy():\n    import aiohttp"),
    ("third-parties", "reuna/fleet/tracking.py", "def lazy():\n    import mlflow"),
]


def contracts() -> dict[str, str]:
    """Id and name of each contract in pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"]: contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


def broken(house: Path) -> tuple[set[str], str]:
    """Ids of the contracts that the package under ``house`` breaks, and what the linter said."""
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    said = done.stdout + done.stderr
    assert "Contracts:" in said, said
    told = " ".join(said.split())
    return {key for key, name in contracts().items() if f"{name} BROKEN" in told}, said


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the package and of its contracts."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.npz", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_keep_to_the_floors(house: Path) -> None:
    found, said = broken(house)
    assert not found, said


def test_each_contract_has_a_planted_fault() -> None:
    assert {contract for contract, _, _ in FAULTS} == set(contracts())


@pytest.mark.parametrize(("contract", "module", "line"), FAULTS)
def test_a_planted_fault_is_caught(house: Path, contract: str, module: str, line: str) -> None:
    with (house / "src" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    found, said = broken(house)
    assert contract in found, said
