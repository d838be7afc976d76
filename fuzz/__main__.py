"""Fuzz targets one after the other with Atheris: ``python -m fuzz [TARGET ...] [--seconds N] [--seed N]``.

Each target has a line of JSON: seconds, executions, and the file of an input that failed, if any.
What was found worth keeping stays in ``runs/fuzz/TARGET`` for the next time; a failing input is
replayed with ``python -m fuzz TARGET --replay FILE``. Ends with 1 when a check failed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from fuzz.kit import harness, names

MEMORY_MIB = 2048  #: an input that makes a parser take more is a find
SLOW_S = 10  #: so is one that keeps it busy for longer
MAX_BYTES = 8_192  #: of an input
_RUNS = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")


def main(words: list[str]) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser("python -m fuzz", description="Fuzz the parsers with Atheris.")
    parser.add_argument("target", nargs="*", choices=[*names(), []], help="all of them when none is named")
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="the same inputs again; 0 means others each time")
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"), help="of inputs worth keeping")
    parser.add_argument("--replay", type=Path, help="check the bytes of this file once, without Atheris")
    options = parser.parse_args(words)
    targets = options.target or names()
    if options.replay:
        for target in targets:
            harness(target).check(options.replay.read_bytes())
        return 0
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("error: no Atheris here: `make fuzz` installs it, on Linux on x86-64\n")
        return 2
    return max(fuzz(target, options.folder, options.seconds, options.seed) for target in targets)


def fuzz(target: str, folder: Path, seconds: int, seed: int) -> int:
    """One target; prints its line. Returns 1 when a check failed."""
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    for kept in harness(target).seeds():
        (corpus / hashlib.sha256(kept).hexdigest()).write_bytes(kept)
    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": MAX_BYTES,
        "rss_limit_mb": MEMORY_MIB,
        "malloc_limit_mb": 1 << 20,  # the address space is what bounds a single piece
        "timeout": SLOW_S,
        "artifact_prefix": f"{folder}/{target}-",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.child", target, str(corpus), *(f"-{k}={v}" for k, v in options.items())],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        check=False,
    )
    ran = _RUNS.search(done.stdout)
    found = re.search(rb"Test unit written to (\S+)", done.stdout)
    line = {
        "target": target,
        "seconds": round(time.monotonic() - began, 1),
        "executions": int(ran[1]) if ran else 0,
        "failed": found[1].decode() if found else "",
    }
    print(json.dumps(line), flush=True)
    if done.returncode:
        sys.stderr.write(done.stdout.decode(errors="replace")[-4_000:])
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
