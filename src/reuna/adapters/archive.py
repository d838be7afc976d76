"""A backup's file: a plain tar archive of numbered members, a manifest, and the manifest's SHA-256.

    00000001 …        the files, in the order of the manifest
    manifest.json     their names, sizes and digests
    manifest.sha256   as `sha256sum` writes it

`tar tvf` lists it and `tar xf` takes it apart. Members have numbers for names, so that no name in an
archive is ever a path; links, sparse files and extended headers do not occur and are refused. The
library's own reader would follow what a header claims of its length, so the blocks are walked here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from reuna.adapters.files import storage_error, sync_folder
from reuna.core.backup import AGAIN, MAX_FILES, Manifest, read_manifest, write_manifest
from reuna.core.errors import Corrupted, DiskFull, NotUsable

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
MANIFEST, SUM = "manifest.json", "manifest.sha256"
MAX_MANIFEST = 1 << 30  #: bytes; about 300 for each file
_SUM_LINE = f"{{}}  {MANIFEST}\n"
END = bytes(2 * BLOCK)
NO_SPACE = "Nothing was left there. Free space in the folder named, or name a file on another disk."

Progress = Callable[[int], None]  #: told how many bytes more were worked through


class ArchiveWriter:
    """Members in order; see `writing`."""

    def __init__(self, file: IO[bytes], work: Path) -> None:
        self.work = work  #: a folder on the same disk, for copies on their way; it goes with the writer
        self.digest = ""  #: SHA-256 of the manifest, once there is one
        self._file = file
        self._count = 0

    def add(self, blocks: Iterator[bytes], size: int) -> str:
        """Append a file of ``size`` bytes; its SHA-256. Raises `OSError`, `EOFError` when it is shorter."""
        self._count += 1
        return self._member(f"{self._count:08}", blocks, size)

    def finish(self, manifest: Manifest) -> None:
        """Write what was taken, and the end."""
        data = write_manifest(manifest)
        self.digest = self._member(MANIFEST, iter([data]), len(data))
        line = _SUM_LINE.format(self.digest).encode()
        self._member(SUM, iter([line]), len(line))
        self._file.write(END)

    def _member(self, name: str, blocks: Iterator[bytes], size: int) -> str:
        self._file.write(_header(name, size))
        hasher, left = hashlib.sha256(), size
        for block in blocks:
            part = block[:left]
            hasher.update(part)
            self._file.write(part)
            left -= len(part)
            if not left:
                break
        if left:
            raise EOFError(name)
        self._file.write(bytes(-size % BLOCK))
        return hasher.hexdigest()


@contextmanager
def writing(path: Path, mode: int) -> Iterator[ArchiveWriter]:
    """An archive that gets its name when the block ends well, whole and on the disk; else nothing is left.

    Raises `NotUsable` when there is such a file, `DiskFull`.
    """
    if os.path.lexists(path):
        raise NotUsable(f"{path} is there already", "Name another file; a backup is never written over.")
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.parent))
    except OSError as error:
        if not path.parent.is_dir():
            raise NotUsable(f"{path}: there is no folder {path.parent}") from error
        raise storage_error(error, path) from error
    try:
        fd = os.open(work / "archive", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb", buffering=CHUNK) as file:
            yield ArchiveWriter(file, work)
            os.fchmod(fd, mode)
            file.flush()
            os.fsync(fd)
        os.link(work / "archive", path)  # unlike a rename it never replaces what came meanwhile
        sync_folder(path.parent)
    except FileExistsError as error:
        raise NotUsable(f"{path} is there already", "Name another file.") from error
    except DiskFull as error:
        raise DiskFull(f"no space left for {path.name} in {path.parent}", NO_SPACE) from error
    except OSError as error:
        found = storage_error(error, path)
        if isinstance(found, DiskFull):
            found.next_step = NO_SPACE
        raise found from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)  # which writes sizes above 8 GiB in binary, as every tar reads


class Archive:
    """An archive whose structure is good; `verify` looks at the bytes."""

    def __init__(self, path: Path, manifest: Manifest, digest: str, places: Sequence[int]) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest  #: SHA-256 of the manifest
        self._places = places  #: of each file, the byte where it begins

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.manifest.files)

    def verify(self, progress: Progress) -> None:
        """Compare every file with its digest. Raises `Corrupted` that names the first that differs."""
        for index in range(len(self.manifest.files)):
            for block in self.read(index):
                progress(len(block))

    def read(self, index: int) -> Iterator[bytes]:
        """A file's bytes. Raises `Corrupted` at its end when they are not those of the manifest."""
        taken, hasher = self.manifest.files[index], hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                file.seek(self._places[index])
                for block in _blocks(file, taken.size):
                    hasher.update(block)
                    yield block
        except OSError as error:
            raise storage_error(error, self.path) from error
        if hasher.hexdigest() != taken.sha256:
            raise Corrupted(f"{self.path}: {taken.path} is not as it was written", AGAIN)


def open_archive(path: Path) -> Archive:
    """Read an archive's structure and manifest. Raises `Corrupted`, `NotUsable`."""
    if path.exists() and not path.is_file():
        raise NotUsable(f"{path} is no file", "Name the file that `reuna backup` wrote.")
    try:
        with path.open("rb") as file:
            return _open(path, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise (
            NotUsable(f"{path}: there is no such file") if not path.exists() else storage_error(error, path)
        ) from error


def _open(path: Path, file: IO[bytes], size: int) -> Archive:
    places, sizes = [], []
    names = _walk(path, file, size)
    for number, (name, at, length) in enumerate(names, 1):
        if name == MANIFEST:
            break
        if name != f"{number:08}" or number > MAX_FILES:
            raise _no_backup(path)
        places.append(at)
        sizes.append(length)
    else:
        raise _short(path)
    if length > MAX_MANIFEST:
        raise Corrupted(f"{path}: a manifest of {length} bytes, more than {MAX_MANIFEST}", AGAIN)
    data = _at(file, at, length)
    digest = hashlib.sha256(data).hexdigest()
    name, at, length = next(names, (SUM, 0, 0))
    line = _SUM_LINE.format(digest).encode()
    if name != SUM or length != len(line) or _at(file, at, length) != line:
        raise Corrupted(f"{path}: the manifest is not as it was written", AGAIN)
    if next(names, None) is not None:
        raise _no_backup(path)
    manifest = read_manifest(data)
    if [taken.size for taken in manifest.files] != sizes:
        raise Corrupted(f"{path}: the manifest names other files than are in it", AGAIN)
    return Archive(path, manifest, digest, places)


def _walk(path: Path, file: IO[bytes], size: int) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and length of each member. Raises `Corrupted` for anything but plain files."""
    at = 0
    while True:
        header = _at(file, at, BLOCK)
        if len(header) < BLOCK:
            raise _short(path)
        if header == bytes(BLOCK):
            break
        try:
            info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise _no_backup(path) if at == 0 else _short(path) from error
        if info.type != tarfile.REGTYPE or info.linkname:
            raise _no_backup(path)
        if not 0 <= info.size <= size - at - BLOCK:
            raise _short(path)
        yield info.name, at + BLOCK, info.size
        at += BLOCK + info.size + -info.size % BLOCK
    if size != at + len(END) or _at(file, at, len(END)) != END:
        raise _short(path)


def _no_backup(path: Path) -> Corrupted:
    return Corrupted(f"{path} is no backup of Reuna", "Name the file that `reuna backup` wrote.")


def _short(path: Path) -> Corrupted:
    return Corrupted(f"{path} is cut short or damaged", AGAIN)


def _at(file: IO[bytes], at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, CHUNK))):
        size -= len(block)
        yield block
