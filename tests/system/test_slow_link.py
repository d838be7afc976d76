"""The drill, short: a run over a cut line in a network namespace, and what it says where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drills.slow_link import LIMIT, UNABLE
from drills.thin_line.link import missing

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
SHORT = ["--rounds", "1", "--params", "80000", "--rate", "1024", "--cut-every", "1.5", "--down", "0.3"]


def drill(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "drills.slow_link", "--json", *arguments],
        cwd=Path(__file__).parents[2], env={**os.environ, **environment},
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip


def test_a_run_over_a_line_that_is_cut_ends_and_little_crosses_it_twice() -> None:
    if why := missing():
        pytest.skip(why)
    done = drill(*SHORT)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["cuts"] >= 1
    assert result["bodies"] > 80_000 * 6, "model and update crossed the link"
    assert 1.0 < result["bytes_over_ideal"] <= LIMIT + 0.1, result


def test_where_there_are_no_namespaces_the_drill_says_so_and_ends_with_its_own_status() -> None:
    done = drill(PATH="/nowhere")
    assert done.returncode == UNABLE
    assert "cannot be run here: ip, tc, unshare, nsenter is not installed" in done.stderr
    assert done.stdout == ""


def test_a_cut_that_is_no_time_is_refused() -> None:
    done = drill("--cut-every", "0")
    assert done.returncode == 2
    assert "--cut-every" in done.stderr
