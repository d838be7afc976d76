"""What a sandbox is asked for and what it reached: plain records, and the number that sums them up."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

#: The layers each level needs, besides those of the levels below it.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("environment", "descriptors", "process group", "limits"),
    ("no new privileges", "network namespace"),
    ("landlock files", "seccomp"),
)
HIGHEST = len(LEVELS)
#: Layers that are told and raise no level.
EXTRA = ("own user", "landlock network", "landlock scopes", "cgroup")
#: What a person does about a missing layer.
REMEDIES: dict[str, str] = {
    "environment": "start the worker through Reuna, which passes on a short list of variables",
    "descriptors": "start the worker through Reuna, which closes what it does not need",
    "process group": "start the worker through Reuna, which gives it a group of its own",
    "limits": "raise the hard limits of the edge's service above those of `sandbox.…`",
    "no new privileges": "run on Linux",
    "network namespace": "allow user namespaces to the edge's user (see the notes on distributions in "
    "docs/explanation/sandbox.md), or run the edge as root",
    "landlock files": "use a Linux kernel from 5.13 on with `landlock` in its list of `lsm=`",
    "seccomp": "use a Linux kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
    "own user": "run the edge as root; its workers then run as nobody in particular",
    "landlock network": "use a Linux kernel from 6.7 on",
    "landlock scopes": "use a Linux kernel from 6.12 on",
    "cgroup": "start the edge's service with Delegate=yes and DelegateSubgroup=edge (systemd 254)",
}


class SandboxLimits(msgspec.Struct, frozen=True):
    """How much a worker may take. ``memory_mib`` is address space, ``processes`` are its threads."""

    memory_mib: int = 8192
    file_mib: int = 1024
    processes: int = 256
    files: int = 1024


class Room(msgspec.Struct, frozen=True):
    """The folders of a worker: those it may read besides Python's own, and the one it may write."""

    read: tuple[str, ...]
    write: str


class Level(msgspec.Struct, frozen=True):
    """What a sandbox reached: the level 0 to 3, its layers, and the missing ones with the reason.

    ``agent``: why the agent above the worker keeps the machine's network, where that was asked.
    """

    number: int
    layers: tuple[str, ...] = ()
    missing: dict[str, str] = {}
    agent: str = ""


def level_of(layers: tuple[str, ...], missing: Mapping[str, str]) -> Level:
    """The level these layers make: each needs all its own layers and those of the levels below.

    >>> level_of(("environment", "descriptors", "process group", "limits", "seccomp"), {}).number
    1
    """
    number = 0
    while number < HIGHEST and set(LEVELS[number]) <= set(layers):
        number += 1
    return Level(number, layers, dict(missing))


def sentence(level: Level, minimum: int = HIGHEST) -> str:
    """What is missing from a level, with the reasons; empty when nothing is.

    >>> sentence(Level(2, (), {"seccomp": "no filter for riscv64", "cgroup": "none"}))
    'seccomp (no filter for riscv64)'
    """
    wanted = {name for names in LEVELS[:minimum] for name in names}
    return ", ".join(f"{name} ({reason})" for name, reason in level.missing.items() if name in wanted)
