"""`reuna demo` as a person runs it: six plants as real processes, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from reuna.fleet.result import ResultFile
from tests.system.test_fleet import of_session, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]


def test_the_demo_writes_its_result_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    aside = tmp_path / "tmp"
    aside.mkdir()
    running = subprocess.Popen(
        [sys.executable, "-m", "reuna.cli", "demo", "--rounds", "3", "--split", "2", "--json"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(aside)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said, complaint = running.communicate(timeout=160)
    assert running.returncode == 0, complaint
    result = msgspec.json.decode(said, type=ResultFile)
    assert (result.rounds, result.split) == (3, 2)
    assert [site.site for site in result.sites] == [f"plant-{number}" for number in range(1, 7)]
    assert all(site.local and site.federated and site.centralised for site in result.sites)
    assert {(line.node, line.kind) for line in result.refused_by_policy} == {("plant-3", "metric")}
    assert result.scaling is not None
    (folder,) = (tmp_path / "runs").iterdir()
    assert msgspec.json.decode((folder / "result.json").read_bytes(), type=ResultFile) == result
    assert {path.name for path in folder.iterdir()} == {
        "logs",
        "model.safetensors",
        "report.html",
        "result.json",
    }
    wait_until(lambda: not of_session(running.pid))
    assert not list(aside.iterdir())
