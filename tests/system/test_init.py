"""Projects of the other tasks run on real processes, and the policies that come with a run let their metrics out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from reuna.fleet.result import ResultFile
from reuna.template import make_project

pytestmark = [pytest.mark.system, pytest.mark.timeout(150)]


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("anomaly-detection", {"auroc", "detected", "false_alarms", "loss"}),
        ("remaining-useful-life", {"rmse", "mae", "late"}),
    ],
)
def test_a_run_reports_the_metrics_of_its_task_and_its_policy_refuses_none(
    tmp_path: Path, task: str, metrics: set[str]
) -> None:
    make_project(tmp_path / "pumps", True, task)
    command = [sys.executable, "-m", "reuna.cli", "run", "--rounds", "3", "--json"]
    done = subprocess.run(command, cwd=tmp_path / "pumps", capture_output=True, text=True, timeout=140)
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(done.stdout, type=ResultFile)
    assert (result.task, len(result.sites)) == (task, 4)
    assert all(set(site.federated) == metrics for site in result.sites)
    assert result.refused_by_policy == []
