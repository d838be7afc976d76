"""What processes take, looked at from outside: memory by side, how many, and that none is left.

Standard library only: the peers' drivers load it in environments of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

MIB = 1 << 20
EVERY_S = 0.25  #: between two looks
SETTLING_S = 2.0  #: in which a process that still starts takes more memory
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGE_SIZE")


def adopt() -> None:
    """From now on whoever loses his parent below this process becomes its child, so that it can be ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_when_told() -> None:
    """Adopt, and end by an exception when told to, so that what was started is ended too."""
    adopt()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def driven(doc: str | None, asked: Iterable[str], measure: Callable[[Namespace], dict[str, object]]) -> None:
    """Print what a peer's driver measured as its one line, and end all it started, whatever happens.

    ``asked``: names of the whole numbers that have to be given to it.
    Threads that a peer left waiting for ever do not keep the process.
    """
    parser = ArgumentParser(description=doc)
    for name in asked:
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    end_when_told()
    status = 1
    try:
        line = json.dumps(measure(args))
        status = 0
    except SystemExit:
        sys.stderr.write("it was told to end\n")
    except BaseException:
        traceback.print_exc()
    finally:
        end_below(os.getpid())
    if status == 0:
        print(line, flush=True)
    sys.stderr.flush()
    os._exit(status)


def below(pid: int) -> list[int]:
    """All that descend from a process, without itself."""
    found: list[int] = []
    todo = [pid]
    while todo:
        tasks, names = Path(f"/proc/{todo.pop()}/task"), list[str]()
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names = os.listdir(tasks)
        for name in names:
            with contextlib.suppress(OSError):
                more = [int(word) for word in (tasks / name / "children").read_text(encoding="ascii").split()]
                found += more
                todo += more
    return found


def end_below(pid: int, patience_s: float = 5.0) -> int:
    """End all that descend from a process; how many there were."""
    found = below(pid)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + patience_s
        for each in reversed(below(pid)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(each, sign)
        while time.monotonic() < until and (left := below(pid)):
            for each in left:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(each, os.WNOHANG)
            time.sleep(0.05)
    return len(found)


def command(pid: int) -> str:
    """The words a process was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def rss_mib(pid: int) -> float:
    """Resident size, MiB; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / MIB
    except (OSError, IndexError):
        return 0.0


def pss_mib(pids: Iterable[int]) -> float:
    """Proportional size of processes together, MiB: a page counts in part where others share it."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def settled_pss_mib(pids: Callable[[], Iterable[int]], patience_s: float = 30.0) -> float:
    """The same once imports are over: when it grows no more, or the patience is at its end."""
    until_s, before = time.monotonic() + patience_s, 0.0
    while True:
        time.sleep(SETTLING_S)
        now = pss_mib(pids())
        if now < before * 1.01 or time.monotonic() > until_s:
            return now
        before = now


class Watch:
    """Looks at everything below this process until it is stopped.

    ``is_server`` tells by a process's id whether it is of the server's side.
    """

    def __init__(self, is_server: Callable[[int], bool]) -> None:
        self._is_server = is_server
        self._end = threading.Event()
        self.largest = self.together = 0.0
        self.processes = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        running = below(os.getpid())
        sizes = [rss_mib(pid) for pid in running if self._is_server(pid)]
        self.processes = max(self.processes, len(running))
        self.together = max(self.together, sum(sizes))
        self.largest = max(self.largest, max(sizes, default=0.0))

    def stop(self) -> dict[str, float]:
        """The most of each that was seen: of the server's side MiB of its largest process and of all, and processes."""
        self._end.set()
        self._thread.join()
        return {
            "server_peak_mib": round(self.largest, 1),
            "server_all_peak_mib": round(self.together, 1),
            "processes": self.processes,
        }


def told(path: Path, lines: int = 6) -> str:
    """The end of a log, for a report."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def until(ready: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for it; how long it took. Raises `TimeoutError`."""
    began = time.monotonic()
    while not ready():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - began
