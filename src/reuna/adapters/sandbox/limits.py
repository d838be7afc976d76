"""How much a worker may take: the limits of its process, and of a cgroup where one can be made."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from reuna.adapters.sandbox.kernel import LINUX, NotReached
from reuna.adapters.sandbox.level import SandboxLimits

MIB = 1 << 20
NICE = 5
CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
PREFIX = "reuna-worker-"
CONTROLLERS = {"memory", "pids"}


def set_limits(limits: SandboxLimits, own_count: bool) -> None:
    """Soft and hard limits of this process, and less claim on the processor.

    ``own_count`` tells that the system counts this worker's threads apart; otherwise those that
    the user already runs are added, because the system counts all of a user's together.
    Raises `NotReached` when a limit cannot be set or does not bind.
    """
    wanted = {
        resource.RLIMIT_AS: limits.memory_mib * MIB,
        resource.RLIMIT_FSIZE: limits.file_mib * MIB,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: limits.processes + (0 if own_count else _threads_of(os.getuid())),
    }
    for kind, value in wanted.items():
        _limit(kind, value)
    os.nice(NICE)
    if os.getuid() == 0:
        raise NotReached("the number of processes does not bind root, and no other user could be taken")


def _limit(kind: int, value: int) -> None:
    """One limit, never above the hard one that is there already."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _threads_of(uid: int) -> int:
    """Threads that a user runs on this machine."""
    if not LINUX:
        return 1024
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if Path(f"/proc/{name}").stat().st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:  # it ended meanwhile
                continue
    return count


def join_cgroup(limits: SandboxLimits, root: Path = CGROUPS, membership: Path = MEMBERSHIP) -> None:
    """Move into a cgroup (version 2) of its own with a limit of memory and of tasks.

    It is made below or beside the one we are in, where that is ours to write. An empty one that an
    earlier worker left is removed. Raises `NotReached`.
    """
    own = _own_cgroup(root, membership)
    for parent in (own, own.parent):
        if parent.is_relative_to(root) and _offers(parent):
            break
    else:
        raise NotReached(f"no cgroup with memory and pids to write in at {own}")
    for left in parent.glob(f"{PREFIX}*"):
        _remove(left)
    made = parent / f"{PREFIX}{os.getpid()}"
    made.mkdir()
    (made / "memory.max").write_text(str(limits.memory_mib * MIB))
    (made / "pids.max").write_text(str(limits.processes))
    (made / "cgroup.procs").write_text(str(os.getpid()))


def _own_cgroup(root: Path, membership: Path) -> Path:
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.exists() else []
    paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    if not paths or not (root / "cgroup.controllers").exists():
        raise NotReached("this machine has no cgroups of version 2")
    return root / paths[0].lstrip("/")


def _offers(folder: Path) -> bool:
    """Whether a cgroup made below ``folder`` would have our controllers, and we may make one."""
    try:
        offered = set((folder / "cgroup.subtree_control").read_text(encoding="utf-8").split())
        if not offered >= CONTROLLERS:
            (folder / "cgroup.subtree_control").write_text("+memory +pids")
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # a worker lives in it
        return
