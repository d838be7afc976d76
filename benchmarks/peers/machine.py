"""The machine and what runs on it, as a table of figures has to say it; no name and no path of it."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_of(module: str) -> dict[str, object]:
    """When, by which command, of which commit, and how busy the machine was before. To be asked at the start."""
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(module, sys.argv[1:]),
        "commit": commit(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def command(module: str, words: Sequence[str]) -> str:
    """How to make it again; where its result went on this machine is left out."""
    kept = list(words)
    while "--out" in kept:
        place = kept.index("--out")
        del kept[place : place + 2]
    return shlex.join(["python", "-m", module, *(word for word in kept if not word.startswith("--out="))])


def described() -> dict[str, object]:
    """Cores, memory, kind of processor, system and Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory),
        "cpu": _cpu(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.machine()


def commit() -> str:
    """What was measured; with a + where files differ from it."""
    try:
        run = ["git", "-C", str(ROOT)]
        head = subprocess.run(
            [*run, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            [*run, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def version(python: Path, package: str) -> str | None:
    """Of a package in an environment; None when there is none."""
    asked = f"import importlib.metadata as m; print(m.version({package!r}))"
    try:
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
