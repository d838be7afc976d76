"""Files of the past, to be written over.

A new file costs four times one that is written over: its blocks, and the pages of memory before them, have to
be found first, and given back when it goes. A round writes what the round before wrote, as large, and drops
that.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


class Spares:
    """A few files that nobody needs any more, in a folder of their own, made when there is one.

    One that has a second name, or that somebody reads under a shared lock, is not kept.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        files = folder.iterdir() if folder.is_dir() else ()
        self._sizes = {file: file.stat().st_size for file in files}
        self._given = 0

    def give(self, path: Path) -> None:
        """Take over a file that nobody needs any more; of more than there is room for the oldest goes.

        One that cannot be kept, as on a full disk, is removed.
        """
        with suppress(OSError):
            if _is_ours_alone(path):
                self._keep(path)
        path.unlink(missing_ok=True)

    def _keep(self, path: Path) -> None:
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._given += 1
        spare = self._folder / str(self._given % self._most)
        size = path.stat().st_size
        path.replace(spare)
        self._sizes[spare] = size

    def take(self, path: Path, size: int) -> bool:
        """Put a spare in the place of a new file; whether there was one. It is as long as it was.

        The one whose length is the nearest to ``size``: what it lacks would have to be found, and what it has
        more is given back.
        """
        sizes = list(self._sizes.items())
        if not sizes or path.exists():
            return False
        spare, _ = min(sizes, key=lambda each: abs(each[1] - size))
        with suppress(KeyError, FileNotFoundError):  # another thread took it, or another process cleared it
            del self._sizes[spare]
            spare.replace(path)
            return True
        return False

    def clear(self) -> None:
        """Keep none."""
        while self._sizes:
            self._sizes.popitem()[0].unlink(missing_ok=True)


def _is_ours_alone(path: Path) -> bool:
    """Whether nobody else has a name for it or a lock on it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(fd).st_nlink == 1
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
