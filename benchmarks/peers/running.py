"""Runs a measurement as a process of its own, with a limit, and leaves nothing of it behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import looking

ROOT = Path(__file__).parents[2]
ENDING_S = 15.0  #: for a process to end what it started, once it is told to


class Outcome(NamedTuple):
    """Of one process: status (None at the limit), what it said, seconds, most processes at once."""

    status: int | None
    output: str
    errors: str
    seconds: float
    processes: int


def run(command: list[str], limit_s: float) -> Outcome:
    """Run a process to its end or the limit; nothing that it started is left."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        out, errors = Path(name) / "out", Path(name) / "errors"
        watch, began = looking.Watch(lambda _pid: False), time.monotonic()
        with out.open("wb") as to, errors.open("wb") as wrong:
            process = subprocess.Popen(command, cwd=ROOT, stdout=to, stderr=wrong, stdin=subprocess.DEVNULL)
            status = ended(process, limit_s)
        taken = time.monotonic() - began
        processes = int(watch.stop()["processes"])
        looking.end_below(os.getpid())
        text, said = (path.read_text(encoding="utf-8", errors="replace") for path in (out, errors))
    return Outcome(status, text, said, taken, processes)


def ended(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    """Its status; None when it had to be told to end."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return None


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
