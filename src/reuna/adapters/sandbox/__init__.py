"""The sandbox of project code: what a worker gives up before it imports the first line of it.

    level = confine(Room(read=("project", "data"), write="work"), SandboxLimits(), keep=(7,))
    level.number                     # 0 to 3
    level.missing                    # layer -> why this machine does not give it

Called in a fresh process, by itself, after its own imports and before its first thread; nothing of
it can be taken back. Each layer that the machine does not give is told with the reason and the rest
goes on: whether what was reached is enough is for the parent to say. `probe` does it all in a process
of its own and tells the level. What each level stops: docs/explanation/sandbox.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator

import msgspec

from reuna.adapters.sandbox import identity, landlock, seccomp
from reuna.adapters.sandbox.environment import (
    check_environment,
    close_descriptors,
    own_group,
    worker_environment,
)
from reuna.adapters.sandbox.identity import leave_network_whole
from reuna.adapters.sandbox.kernel import LINUX, NotReached
from reuna.adapters.sandbox.level import (
    EXTRA,
    HIGHEST,
    LEVELS,
    REMEDIES,
    Level,
    Room,
    SandboxLimits,
    level_of,
    sentence,
)
from reuna.adapters.sandbox.limits import join_cgroup, set_limits

__all__ = (
    "EXTRA",
    "HIGHEST",
    "LEVELS",
    "REMEDIES",
    "Level",
    "NotReached",
    "Room",
    "SandboxLimits",
    "confine",
    "leave_network_whole",
    "level_of",
    "probe",
    "sentence",
    "worker_environment",
)

PROBE_S = 60.0
#: A layer's name, and what takes it; it may name further layers that came with it.
Step = tuple[str, Callable[[], list[str] | None]]


def steps(room: Room, limits: SandboxLimits, keep: Collection[int]) -> Iterator[Step]:
    """The layers in their order: first what needs rights, then what gives them up."""
    yield "environment", lambda: check_environment(room.write)
    yield "descriptors", lambda: close_descriptors(keep)
    yield "process group", own_group
    if LINUX:
        yield "cgroup", lambda: join_cgroup(limits)
        yield "network namespace", identity.leave_network
        yield "own user", lambda: identity.become_nobody(room.write)
    yield "limits", lambda: set_limits(limits, identity.counted_apart())
    if LINUX:
        yield "no new privileges", identity.no_new_privileges
        yield "landlock files", lambda: landlock.restrict(room)
        yield "seccomp", seccomp.install


def confine(room: Room, limits: SandboxLimits, keep: Collection[int] = ()) -> Level:
    """Confine this process for good; descriptors 0, 1, 2 and ``keep`` stay open. The level reached."""
    layers: list[str] = []
    missing: dict[str, str] = {}
    for name, take in steps(room, limits, keep):
        try:
            came = take()
        except (NotReached, OSError, ValueError) as error:
            missing[name] = str(error)
        else:
            layers += [name, *(further for further in came or () if further != name)]
    for names in (*LEVELS, EXTRA):
        for name in names:
            if name not in layers and name not in missing:
                missing[name] = _why_not(name, missing)
    return level_of(tuple(layers), missing)


def _why_not(name: str, missing: dict[str, str]) -> str:
    """Why a layer that nobody tried is missing."""
    if not LINUX:
        return f"it needs Linux, this is {sys.platform}"
    if "landlock files" in missing:
        return missing["landlock files"]
    return landlock.why_not(name)


def probe() -> Level:
    """The level that a worker reaches on this machine with this user, tried in a process of its own."""
    command = [sys.executable, "-P", "-m", "reuna.adapters.sandbox.probe"]
    done = subprocess.run(
        command, env=worker_environment(os.environ), capture_output=True, timeout=PROBE_S, check=False
    )
    try:
        return msgspec.json.decode(done.stdout, type=Level)
    except msgspec.DecodeError:
        lines = done.stderr.decode(errors="replace").splitlines() or [f"it ended with {done.returncode}"]
        return level_of((), {name: lines[-1] for names in LEVELS for name in names})
