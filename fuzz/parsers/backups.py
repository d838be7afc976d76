"""A backup's file, any manifest in a good archive, and any path in a manifest."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fuzz.kit import attempt, scratch
from reuna.adapters.archive import MANIFEST, SUM, open_archive
from reuna.core.backup import (
    FORMAT,
    Folder,
    LeftOut,
    Manifest,
    Marks,
    Named,
    Taken,
    check_path,
    write_manifest,
)
from reuna.core.errors import Corrupted, NotUsable
from reuna.fleet.restore import restore, to_folder

FILES = {"edge.toml": b'folder = "/srv/state"\n', "state/ledger.key": b"k", "state/policy/policy": b"p" * 600}


def manifest(**more: object) -> Manifest:
    taken = tuple(
        Taken(path, len(data), hashlib.sha256(data).hexdigest(), 0o600) for path, data in FILES.items()
    )
    folders = (Folder("state", 0o700), Folder("state/policy", 0o700))
    made = Manifest(
        FORMAT, "2026-11-27T10:00:00Z", "0.1.0", "edge", "press-1", "line",
        (Named("folder", "/srv/state", "state"),), folders, taken, (LeftOut("state/nats", "made anew"),),
        Marks(ledger="ab", records=7, metadata={"root": 1}),
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def packed(about: bytes, files: dict[str, bytes] | None = None) -> bytes:
    """An archive as `reuna backup` writes it, with any bytes for its manifest."""
    out = io.BytesIO()
    members = {f"{number:08}": data for number, data in enumerate((files or FILES).values(), 1)}
    line = f"{hashlib.sha256(about).hexdigest()}  {MANIFEST}\n".encode()
    for name, data in {**members, MANIFEST: about, SUM: line}.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        out.write(info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512))
    return out.getvalue() + bytes(1024)


def seeds() -> Iterator[bytes]:
    about = write_manifest(manifest())
    yield b"\0" + packed(about)
    yield b"\1" + about
    yield b"\1" + msgspec.json.encode(manifest(marks=Marks()))
    yield b"\2state/ledger/000000000000.ledger"
    yield b"\2../x"


def check(data: bytes) -> None:
    kind, rest = (data[0] % 3, data[1:]) if data else (0, b"")
    if kind == 2:
        path = rest.decode(errors="surrogateescape")
        if not check_path(path):
            assert (scratch() / path).resolve().is_relative_to(scratch().resolve())
            path.encode()
        return
    box = scratch() / "backups"
    box.mkdir()
    try:
        _restored(packed(rest) if kind else rest, box)
        assert {path.name for path in box.iterdir()} <= {"file", "place"}, "something beside the place"
    finally:
        shutil.rmtree(box)


def _restored(data: bytes, box: Path) -> None:
    (box / "file").write_bytes(data)
    archive = attempt(lambda: open_archive(box / "file"), Corrupted, NotUsable)
    if archive is not None:
        target = to_folder(archive.manifest, box / "place")
        attempt(
            lambda: restore(archive, target, False, lambda _done, _total: None, 0.0), Corrupted, NotUsable
        )
