"""What this process does to the disk through `os`, told call by call just before it happens."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters import files

CALLS = ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "replace", "mkdir")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPORARY = re.compile(r"[0-9a-f]{32}")


@contextmanager
def watched(tell: Callable[[str], None]) -> Iterator[None]:
    """Within it each effect is told, as ``fsync blobs`` or ``rename a.part``; it fails if ``tell`` raises."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _telling(name, getattr(os, name), tell))
        yield


def disk_full_at(monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """From here on the disk is full once: when a whole file is written for the nth time."""
    calls, write_all = itertools.count(1), files.write_all

    def fills(fd: int, data: bytes) -> None:
        if next(calls) == nth:
            raise OSError(errno.ENOSPC, "full")
        write_all(fd, data)

    monkeypatch.setattr(files, "write_all", fills)


def _telling(name: str, call: Callable[..., Any], tell: Callable[[str], None]) -> Callable[..., Any]:
    def told(target: Any, *rest: Any, **options: Any) -> Any:
        tell(f"{name} {_named(target)}")
        return call(target, *rest, **options)

    return told


def _named(target: Any) -> str:
    """Name of the file or folder; digests and names of temporary files are the same in each run."""
    path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else Path(target)
    return _TEMPORARY.sub("NEW", _DIGEST.sub("DIGEST", path.name))
