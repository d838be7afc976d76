"""Calls to the kernel that Python has no name for, by `ctypes`; a refusal is a sentence."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION = 0x20080522
LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True) if LINUX else None


class NotReached(Exception):
    """A layer that this machine does not give; the message is the reason."""


def call(name: str, *arguments: Any) -> int:
    """A function of the C library. Raises `OSError`."""
    result: int = getattr(_library(), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def system_call(number: int, *arguments: Any) -> int:
    """A system call by number; plain integers pass as 64 bits. Raises `OSError`."""
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return call("syscall", ctypes.c_long(number), *wide)


def prctl(option: int, value: int | ctypes.c_void_p) -> None:
    """One option of this process. Raises `OSError`."""
    second = value if isinstance(value, ctypes.c_void_p) else ctypes.c_ulong(value)
    zero = ctypes.c_ulong(0)
    call("prctl", ctypes.c_int(option), second, zero, zero, zero)


def prctl_filter(option: int, mode: int, program: ctypes.Structure) -> None:
    """``prctl`` with a mode and a program. Raises `OSError`."""
    zero = ctypes.c_ulong(0)
    call("prctl", ctypes.c_int(option), ctypes.c_ulong(mode), ctypes.byref(program), zero, zero)


def keep_capabilities(mask: int) -> None:
    """Of this process's capabilities keep those of ``mask``, effective and permitted. Raises `OSError`."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    call("capset", ctypes.byref(header), ctypes.byref(data))


def threads() -> int:
    """Threads of this process."""
    return len(os.listdir("/proc/self/task"))


def _library() -> ctypes.CDLL:
    if _libc is None:
        raise NotReached("it needs Linux")
    return _libc
