"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: For processes that share a machine with others: threads of BLAS wait for each other by spinning.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
#: Libraries that would tell their makers what runs here, told not to; read when each is loaded.
SILENT = {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0"}
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
#: What glibc calls it in an environment, its number for ``mallopt``, its value.
_HEAP = (
    ("MALLOC_ARENA_MAX", -8, 1),
    ("MALLOC_MMAP_THRESHOLD_", -3, 4 << 20),  #: what is larger is mapped by itself, and goes back at once
    ("MALLOC_TRIM_THRESHOLD_", -1, 16 << 20),  #: so much may be kept at the heap's end
)
_MADV_DONTNEED = 4
_FORK = "reuna-"  #: how the name of a fork begins; 15 characters in all are kept
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def silence_makers() -> None:
    """From now on libraries loaded here and in what is started here send nothing to their makers."""
    os.environ.update(SILENT)


def end_with_parent() -> None:
    """Called in the child, before exec or as the first thing: the kernel ends it with who started it.

    That is the starting thread's process. Linux only; elsewhere a child notices by its closed socket.
    In a new process group, so that Ctrl-C in a terminal reaches the parent alone, which then ends its
    children in order.
    """
    os.setpgid(0, 0)
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become(part: str) -> None:
    """Called in a process of a place: what it is from now on, as `part_of` and ``ps -o comm`` say it."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, f"{_FORK}{part}".encode(), 0, 0, 0)


def one_heap() -> None:
    """Threads of this process and of those that it starts share one heap, and use what was freed there again.

    The system's own way is to hand 128 KiB and more back at each use, and the machine then clears the same
    pages anew, block after block: a tenth of a round. `give_back` gives it back once it is idle. Before the
    first thread; glibc only.
    """
    set_option = getattr(_libc, "mallopt", None)
    for name, option, value in _HEAP:
        os.environ[name] = str(value)
        if set_option is not None:
            set_option(option, value)


def give_back() -> None:
    """Memory that was freed and is kept for later goes back to the machine. Linux with glibc only."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


class Libraries:
    """Code and constants of the libraries in memory, most of which is needed once, when a library begins."""

    def __init__(self, folder: Path = Path("/proc/self")) -> None:
        self._folder = folder
        self._seen: frozenset[str] = frozenset()
        self._ranges: list[tuple[int, int]] = []

    def let_go(self) -> None:
        """Hold no page of them; what is needed comes back from the machine's file cache, page by page.

        Only of ranges to which nobody has ever written, so nothing is lost. Linux only.
        """
        if _libc is None:
            return
        for start, end in self.ranges():
            _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)

    def ranges(self) -> list[tuple[int, int]]:
        """Where they lie now. Which were written to is looked up when others are there than before: 3 ms."""
        try:
            seen = frozenset(filter(_of_a_library, self._lines("maps")))
            if seen != self._seen:
                self._ranges = _never_written(self._lines("smaps"))
                self._seen = seen
        except OSError:
            return []
        return self._ranges

    def _lines(self, name: str) -> list[str]:
        return (self._folder / name).read_text(encoding="utf-8", errors="replace").splitlines()


def _of_a_library(line: str) -> bool:
    """Whether a line of a process's memory map is of a library's code or constants."""
    return ".so" in line and (" r-xp " in line or " r--p " in line)


def _never_written(lines: Iterable[str]) -> list[tuple[int, int]]:
    """Start and end of each such range of a memory map with details that has no page of its own."""
    found: list[tuple[int, int]] = []
    at: tuple[int, int] | None = None
    for line in lines:
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            start, _, end = name.partition("-")
            at = (int(start, 16), int(end, 16)) if _of_a_library(line) else None
        elif at is not None and name == "Anonymous:" and rest.split()[0] == "0":
            found.append(at)
    return found


def no_core_files() -> None:
    """A crash of this process and of those it starts leaves no image of memory, which holds keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def loading() -> Iterator[None]:
    """Around the imports of a place that starts: a fifth less work for the cloud's.

    Nothing is garbage yet, but the collector would look through all modules again and again. What was
    loaded is never looked through again, here and later.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def settle() -> None:
    """What is there now stays: the collector of cycles looks at it once more and then never again.

    Called when a process is ready for its work. Looking through all that was imported, again and again,
    took a twentieth of an egress' work in a round.
    """
    gc.collect()
    gc.freeze()


def own_peak_mib() -> float:
    """Largest resident size of this process so far, MiB."""
    return peak_mib(os.getpid())


def peak_mib(pid: int) -> float:
    """Largest resident size of a process so far (VmHWM), MiB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            lines = [line for line in status if line.startswith("VmHWM")]
    except OSError:
        return 0.0
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def pss_mib(pid: int) -> float:
    """Proportional set size of a process, MiB: shared pages are divided among those that share."""
    return _rolled_up(pid, ("Pss:",))


def uss_mib(pid: int) -> float:
    """Unique set size of a process, MiB: pages that no other process has."""
    return _rolled_up(pid, ("Private_Clean:", "Private_Dirty:"))


def _rolled_up(pid: int, names: tuple[str, ...]) -> float:
    """Sum of fields of a process's memory map, MiB; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            return sum(int(line.split()[1]) for line in rollup if line.startswith(names)) / 1024
    except OSError:
        return 0.0


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        todo += children(current)
    return found


def children(pid: int) -> list[int]:
    """Direct child processes; empty when it is gone."""
    pids: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as listing:
                pids += [int(word) for word in listing.read().split()]
    except OSError:
        return pids
    return pids


def parent(pid: int) -> int:
    """The process that started it, or whoever adopted it; 0 when it is gone."""
    return _fields(Path(f"/proc/{pid}/status"), ("PPid",)).get("PPid", 0)


def began_s(pid: int) -> float:
    """When a process began, s since the epoch; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            ticks = int(stat.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0.0
    return _fields(Path("/proc/stat"), ("btime",)).get("btime", 0) + ticks / os.sysconf("SC_CLK_TCK")


def part_of(pid: int) -> str:
    """What a process of a place is: main, starter (of egress or reader), egress, reader, worker or nats."""
    try:
        own = Path(f"/proc/{pid}/comm").read_text(encoding="ascii", errors="replace").strip()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "gone"
    if own.startswith(_FORK):
        return own.removeprefix(_FORK)
    marks = {
        b"nats-server": "nats",
        b"exchange/starter.py": "starter",  # has the commands of others behind its own
        b"reuna.exchange.process": "egress",
        b"reuna.edge.reader": "reader",
        b"reuna.adapters.worker": "worker",
    }
    return next((part for mark, part in marks.items() if mark in command), "main")


def own_address_mib() -> float:
    """Largest address space of this process so far (VmPeak), MiB."""
    return _fields(Path("/proc/self/status"), ("VmPeak",)).get("VmPeak", 0) / 1024


def available_mib(root: Path = Path("/")) -> float | None:
    """Memory that a new process could have, MiB: the machine's, or less where a cgroup has a limit.

    None where the system does not say it.
    """
    found = _fields(root / "proc/meminfo", ("MemAvailable",))
    if not found:
        return None
    return min([found["MemAvailable"] / 1024, *_left_in_cgroups(root)])


def _left_in_cgroups(root: Path) -> Iterator[float]:
    """What is left below the limit of each cgroup that this process is in (version 2)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    top = root / "sys/fs/cgroup"
    for folder in () if own is None else (top / own, *(top / own).parents):
        if not folder.is_relative_to(top):
            return
        try:
            limit = (folder / "memory.max").read_text(encoding="ascii").strip()
            used = int((folder / "memory.current").read_text(encoding="ascii"))
            files = _fields(folder / "memory.stat", ("inactive_file",)).get("inactive_file", 0)
        except (OSError, ValueError):
            continue
        if limit.isdigit():
            yield max(0, int(limit) - used + files) / (1 << 20)


def _fields(path: Path, names: tuple[str, ...]) -> dict[str, int]:
    """Numbers by name of a file of the kernel's with a line for each; none when it cannot be read."""
    try:
        words = [line.replace(":", " ").split() for line in path.read_text(encoding="ascii").splitlines()]
        return {each[0]: int(each[1]) for each in words if each and each[0] in names}
    except (OSError, ValueError):
        return {}
