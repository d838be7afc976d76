"""Landlock: which files a process may open, said by the process itself and never taken back.

The kernel's ABI grows; what an older one does not know is left out here and, where it matters,
closed by the seccomp filter (truncation below ABI 3). Source: Linux, userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from reuna.adapters.sandbox.kernel import NotReached, system_call, threads
from reuna.adapters.sandbox.level import Room

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION = 1  #: flag of CREATE_RULESET: ask for the ABI
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE, IOCTL_DEV = 1 << 7, 1 << 8, 1 << 13, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  #: rights a single file can have
#: ABI -> how many rights on files it knows, from the lowest bit on.
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
TCP = 0b11  #: bind and connect, from ABI 4 on
SCOPES = 0b11  #: abstract sockets and signals, from ABI 6 on

#: What Python, BLAS and the data libraries read of the system.
SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/usr/share/locale",
    "/etc/localtime", "/etc/timezone", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom",
    "/dev/random", "/sys/devices/system/cpu", "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
)  # fmt: skip
#: Of the process itself and of the machine; other processes stay out of sight.
PROCESS = (
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime",
    "/proc/filesystems", "/proc/version", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/osrelease",
)  # fmt: skip
WRITABLE = ("/dev/null",)
#: Descriptors that keep the kernel from forgetting a rule on /proc, whose entries come and go.
_held: list[int] = []


def abi() -> int:
    """The kernel's ABI. Raises `NotReached`."""
    try:
        return system_call(CREATE_RULESET, None, 0, VERSION)
    except OSError as error:
        raise NotReached(f"the kernel has no Landlock: {error.strerror}") from error


def ruleset(version: int) -> bytes:
    """``struct landlock_ruleset_attr`` of an ABI: everything that it knows is refused.

    >>> [len(ruleset(version)) for version in (1, 4, 6, 7)]
    [8, 16, 24, 24]
    """
    files = (1 << RIGHTS[min(version, max(RIGHTS))]) - 1
    words = [files, *([TCP] if version >= 4 else []), *([SCOPES] if version >= 6 else [])]
    return struct.pack(f"<{len(words)}Q", *words)


def restrict(room: Room) -> list[str]:
    """Confine this process for good; the layers that the kernel's ABI gives. Raises `NotReached`."""
    version = abi()
    if threads() > 1:
        raise NotReached("threads run already, which would stay free")
    attributes = ruleset(version)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    try:
        rules = system_call(CREATE_RULESET, buffer, len(attributes), 0)
        known = int.from_bytes(attributes[:8], "little")
        for path, rights in wanted(room):
            _allow(rules, path, rights & known)
        system_call(RESTRICT_SELF, rules, 0)
        os.close(rules)
    except OSError as error:
        raise NotReached(f"the kernel refuses it: {error.strerror}") from error
    return [
        "landlock files",
        *(["landlock network"] if version >= 4 else []),
        *(["landlock scopes"] if version >= 6 else []),
    ]


def wanted(room: Room) -> Iterator[tuple[str, int]]:
    """Each path with the rights on it; a path of Python's that holds the worker's own folder is left out.

    Such a path would open the node's folder, with its key, to the project's code.
    """
    for path in (*python_paths(), *SYSTEM, *PROCESS):
        if not Path(room.write).is_relative_to(path):
            yield path, READ
    for path in room.read:
        yield path, READ
    for path in WRITABLE:
        yield path, READ | WRITE_FILE
    yield room.write, WRITE


def python_paths() -> list[str]:
    """Where modules and shared libraries of this Python lie."""
    roots = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path]
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    found = {os.path.realpath(path) for path in (*roots, *libraries) if path}
    return sorted(path for path in found if path != os.sep)


def why_not(name: str) -> str:
    """Why a layer that `restrict` gives with newer kernels is missing. Raises `NotReached`."""
    needed = {"landlock network": 4, "landlock scopes": 6}
    if name not in needed:
        return "no step took it"
    return f"the kernel's Landlock has ABI {abi()}, this needs {needed[name]}"


def _allow(rules: int, path: str, rights: int) -> None:
    """One rule; a path that is not there, or that this user cannot reach, needs none."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        rights &= OF_FILES
    rule = struct.pack("<Qi", rights, place)
    system_call(ADD_RULE, rules, PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
    if path.startswith("/proc"):
        _held.append(place)
    else:
        os.close(place)
