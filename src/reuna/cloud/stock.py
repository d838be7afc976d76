"""The releases that nodes may fetch: those of the published list, out of the trust folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from reuna.adapters.files import FileBlob, storage_error
from reuna.adapters.tuf_repository import TufRepository
from reuna.core.errors import Corrupted
from reuna.core.ports import Offload
from reuna.trust.targets import Target, read_all
from reuna.wire import hashes_of

Stamp = tuple[int, int, int]


class Stock:
    """``folder`` holds the bytes of what may come down by digest (`reuna.fleet.trust`); it is only read."""

    def __init__(self, repository: TufRepository, folder: Path, offload: Offload) -> None:
        self._repository = repository
        self._folder = folder
        self._offload = offload
        self._checked: dict[
            str, tuple[Stamp, bytes]
        ] = {}  #: digest -> what was checked, hashes of its blocks

    def listed(self) -> tuple[Target, ...]:
        """Releases that nodes may take, as published. Raises `KeyProblem`, `Untrusted`."""
        found = read_all(self._repository.targets("targets").signed)
        return tuple(each for each in found if each.kind == "release" and each.project)

    async def get(self, digest: str) -> FileBlob | None:
        """A listed release, None when it is none or nobody brought its bytes. Raises `Corrupted`."""
        return await self._offload(lambda: self._get(digest))

    def _get(self, digest: str) -> FileBlob | None:
        if digest not in {each.digest for each in self.listed()}:
            return None
        path = self._folder / digest
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, path) from error
        stamp = found.st_mtime_ns, found.st_ino, found.st_size
        blob = FileBlob(path, digest, found.st_size)
        before, hashes = self._checked.get(digest, ((0, 0, 0), b""))
        if before != stamp:
            hashes = hashes_of(blob)
            if hashlib.sha256(hashes).hexdigest() != digest:
                raise Corrupted(
                    f"{path} is not what its name says", "Add the release again: `reuna trust add`."
                )
            self._checked[digest] = stamp, hashes
        blob.hashes = hashes
        return blob
