"""Builds that the cloud keeps by their digest: what a run may be begun from by name.

Each was read whole before it was kept, so that whatever is here has every digest right:

    builds/<digest>.build.tar     the build                    builds/<digest>.json   what is told of it
    builds/<digest>.intoto.json   its provenance, when somebody handed one over
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from reuna.adapters.files import read_at_most, replace_file
from reuna.core.errors import BlobNotFound, Corrupted
from reuna.core.ports import Clock
from reuna.core.records import KeptBuild
from reuna.trust.envelope import MAX_ENVELOPE
from reuna.trust.provenance import judge
from reuna.wire import build as wire

_DIGEST = re.compile(r"[0-9a-f]{64}")
TOLD = 64 << 10  #: bytes of what is told of a build, at most


class Builds:
    """Blocking, and safe to use from several threads: each file is replaced whole."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._clock = clock

    def put(self, digest: str, data: bytes) -> None:
        """Keep a build, once every digest in it is found right; one that is here stays as it is.

        Raises `Corrupted` when it is another one than ``digest`` names, `Untrusted`, `DiskFull`.
        """
        build = wire.decode(data)
        if build.digest != digest:
            raise Corrupted(
                f"the build sent is {build.digest[:12]}…, not {digest[:12]}…", "Send it once more."
            )
        if self._told(digest) is not None:
            return
        replace_file(self._file(digest), data)
        self._tell(
            KeptBuild(digest, build.manifest.project, build.manifest.code, len(data), self._clock.now())
        )

    def put_provenance(self, digest: str, envelope: bytes) -> None:
        """Keep what its builder claims, instead of what was kept before.

        Raises `BlobNotFound` when there is no such build, `Untrusted` when it is another's or a signature
        is not good, `DiskFull`.
        """
        told = self._told(digest)
        if told is None:
            raise _no_build(digest)
        judged = judge(envelope, digest, ())
        replace_file(self._beside(digest), envelope)
        claim = judged.claim
        self._tell(
            msgspec.structs.replace(told, commit=claim.commit, dirty=claim.dirty, signed_by=judged.others)
        )

    def get(self, digest: str) -> bytes:
        """The build's file. Raises `BlobNotFound`, `Corrupted`."""
        if self._told(digest) is None:
            raise _no_build(digest)
        data = read_at_most(self._file(digest), wire.MAX_BUILD)
        if data is None or wire.sha256(data) != digest:
            raise Corrupted(f"the build {digest[:12]}… was changed on the cloud's disk", "Push it again.")
        return data

    def provenance(self, digest: str) -> bytes:
        """What its builder claims. Raises `BlobNotFound`."""
        data = read_at_most(self._beside(digest), MAX_ENVELOPE) if _DIGEST.fullmatch(digest) else None
        if data is None:
            raise BlobNotFound(
                f"there is no provenance of build {digest[:12]} here", "Push it: `reuna build push`."
            )
        return data

    def listed(self) -> list[KeptBuild]:
        """All of them, the newest first."""
        told = [self._told(path.stem) for path in self._folder.glob("*.json") if _DIGEST.fullmatch(path.stem)]
        return sorted((each for each in told if each), key=lambda each: (-each.at, each.digest))

    def _told(self, digest: str) -> KeptBuild | None:
        """None when the build is not here whole."""
        if not _DIGEST.fullmatch(digest):
            return None
        data = read_at_most(self._folder / f"{digest}.json", TOLD)
        if data is None or not self._file(digest).is_file():
            return None
        try:
            return msgspec.json.decode(data, type=KeptBuild)
        except msgspec.DecodeError as error:
            raise Corrupted(
                f"what is told of build {digest[:12]} cannot be read", "Push it again."
            ) from error

    def _tell(self, kept: KeptBuild) -> None:
        replace_file(self._folder / f"{kept.digest}.json", msgspec.json.encode(kept))

    def _file(self, digest: str) -> Path:
        return self._folder / f"{digest}.build.tar"

    def _beside(self, digest: str) -> Path:
        return self._folder / f"{digest}.intoto.json"


def _no_build(digest: str) -> BlobNotFound:
    return BlobNotFound(
        f"the cloud keeps no build {digest[:12]!r}", "Push it first: `reuna build push FILE --fleet FLEET`."
    )
