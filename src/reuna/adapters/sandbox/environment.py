"""What a worker inherits: a short list of variables, and three descriptors besides its socket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping

from reuna.adapters.processes import ONE_THREAD, SILENT
from reuna.adapters.sandbox.kernel import LINUX, NotReached

PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "PYTHONPATH",
    "VIRTUAL_ENV", "LD_LIBRARY_PATH",
)  # fmt: skip
#: The memory of one round serves the next: the system is not asked for fresh pages each time (bytes).
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 28), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
OWN = {"PYTHONDONTWRITEBYTECODE": "1", "USER": "reuna", "LOGNAME": "reuna", **KEEP_MEMORY, **SILENT}
PREFIX = "OPENBLAS_"  #: the processor's type, where somebody had to set it
MOST_DESCRIPTORS = 1 << 16


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker may see of the environment: no secrets, one BLAS thread."""
    kept = {name: environ[name] for name in PASSED_ON if name in environ}
    coretype = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    return {**kept, **coretype, **ONE_THREAD, **OWN}


def check_environment(folder: str) -> None:
    """Nothing but the list was inherited; home and temporary files are in the worker's own folder."""
    known = {*PASSED_ON, *ONE_THREAD, *OWN}
    strange = sorted(name for name in os.environ if name not in known and not name.startswith(PREFIX))
    if strange:
        raise NotReached(f"the environment holds {', '.join(strange[:5])}")
    os.environ["HOME"] = os.environ["TMPDIR"] = folder
    tempfile.tempdir = folder


def close_descriptors(keep: Collection[int]) -> None:
    """Close all but standard input, output, error and ``keep``."""
    kept = {0, 1, 2, *keep}
    if LINUX:
        found = [int(name) for name in os.listdir("/proc/self/fd")]
    else:
        found = list(range(min(os.sysconf("SC_OPEN_MAX"), MOST_DESCRIPTORS)))
    for number in found:
        if number not in kept:
            _close(number)


def own_group() -> None:
    """A group of its own: signals to the parent's group do not reach it, nor its own the parent's."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


def _close(number: int) -> None:
    try:
        os.close(number)
    except OSError:  # the one that the listing itself was read through
        return
