"""A drill that is stopped ends in order: its processes and its folder are gone, and it says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.test_fleet import of_session

pytestmark = [pytest.mark.system, pytest.mark.timeout(100)]
REPOSITORY = Path(__file__).parents[2]
DRILLS = sorted(path.stem for path in (REPOSITORY / "drills").glob("*.py") if "def main(" in path.read_text())


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize(("drill", "number"), [("revoke", signal.SIGTERM), ("rollback", signal.SIGINT)])
def test_a_drill_that_is_stopped_leaves_neither_processes_nor_files(
    drill: str, number: signal.Signals, tmp_path: Path
) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", f"drills.{drill}", "--json"],
        cwd=REPOSITORY, env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    until(lambda: len(of_session(running.pid)) > 1 and any(tmp_path.iterdir()))
    running.send_signal(number)
    out, said = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, ""), said
    assert said.startswith("stopping")
    assert "Traceback" not in said
    until(lambda: not of_session(running.pid))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("drill", DRILLS)
def test_every_drill_ends_so(drill: str) -> None:
    text = (REPOSITORY / "drills" / f"{drill}.py").read_text()
    assert "    in_order(lambda: sys.exit(main()))\n" in text
    assert "asyncio.run(" not in text, "until_done ends it in order"
