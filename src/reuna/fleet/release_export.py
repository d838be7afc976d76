"""Releases in the forms that others read, and such a form back as the release it is.

    openssf    a folder of the release's parts, with one signature over all: OpenSSF model signing v1.0
    oci        an OCI image layout, a folder or one .tar, for registries

Both hold every part and the manifest, so that the release can be made again from them, byte for byte.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from reuna.adapters.files import read_at_most, replace_file, storage_error
from reuna.core.errors import KeyProblem, NotUsable, Untrusted
from reuna.fleet.release import lineage
from reuna.trust import model_signing
from reuna.trust.model_signing import IGNORED, MAX_BUNDLE, SIGNATURE, ExportKey, PublicKey
from reuna.wire import oci
from reuna.wire import release as wire
from reuna.wire.archive import pack, unpack
from reuna.wire.build import sha256
from reuna.wire.release import Release

OPENSSF, OCI = FORMATS = ("openssf", "oci")
ARTIFACT = "application/vnd.reuna.release.v1"
#: A tar is at most this much longer than what it holds.
MAX_TAR = wire.MAX_RELEASE + (1 << 20)


@dataclass(frozen=True)
class Exported:
    """What stands in an export: its form, the release's file if it holds one, files that were checked."""

    form: str
    data: bytes | None
    files: int


def export(file: Path, found: Release, to: Path, form: str, key: ExportKey | None = None) -> dict[str, bytes]:
    """Write a release in another form; what was written, by name. ``file``: the release itself.

    Raises `NotUsable` when something is there already, `KeyProblem` without a key for openssf, `DiskFull`.
    """
    if os.path.lexists(to) and not (to.is_dir() and not any(to.iterdir())):
        raise NotUsable(f"{to} is there already", "Name a folder that does not exist yet, or an empty one.")
    parts = _parts(read_at_most(file, wire.MAX_RELEASE) or b"")
    files = _oci(found, parts) if form == OCI else _openssf(found, parts, key)
    if form == OCI and to.suffix == ".tar":
        to.parent.mkdir(parents=True, exist_ok=True)
        replace_file(to, pack(files), 0o644)
    else:
        _write(to, files)
    return files


def _parts(data: bytes) -> dict[str, bytes]:
    """Manifest and parts, as they stand in the release."""
    return dict(unpack(data, "release"))


def _openssf(found: Release, parts: Mapping[str, bytes], key: ExportKey | None) -> dict[str, bytes]:
    if key is None:
        raise KeyProblem(
            "this form is signed with a key of its own",
            "Name it with --key; `reuna release key --out FILE` makes one.",
        )
    if not model_signing.is_supported(key):
        raise KeyProblem(
            "the key is on a curve that this form does not know",
            "Use P-256, P-384 or P-521; `reuna release key --out FILE` makes one.",
        )
    digests = {name: sha256(data) for name, data in parts.items()}
    about = found.manifest.about
    return {**parts, SIGNATURE: model_signing.sign(f"{about.project} {about.version}", digests, key)}


def _oci(found: Release, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    about = found.manifest.about
    commit = str(lineage(found)["source"].get("commit", ""))
    annotations = {
        "org.opencontainers.image.title": about.project,
        "org.opencontainers.image.version": str(about.version),
        **({"org.opencontainers.image.revision": commit} if commit else {}),
        "reuna.release.digest": found.digest,
        "reuna.release.run": about.run,
        "reuna.release.model": about.model,
    }
    return oci.layout(ARTIFACT, str(about.version), parts, annotations)


def is_export(path: Path) -> bool:
    """Whether a path is one of these forms rather than a release."""
    return path.is_dir() or path.suffix == ".tar"


def read(path: Path, public: PublicKey | None) -> Exported:
    """Check an export. ``public``: the key that must have signed an openssf folder.

    Raises `Untrusted` that names the first file that is wrong, `KeyProblem` without a key, `NotUsable`.
    """
    if not path.is_dir():
        return _from_layout(_members(path).get)
    if (path / oci.LAYOUT).is_file():
        return _from_layout(lambda name: _file(path / name))
    if (path / SIGNATURE).is_file():
        return _from_folder(path, public)
    raise Untrusted("kind", f"{path} holds neither {SIGNATURE} nor {oci.LAYOUT}")


def _from_layout(get: oci.Get) -> Exported:
    found = oci.read(get, ARTIFACT)
    data = _again(found.files)
    if data is None:
        raise Untrusted("missing", f"the artifact has no {wire.MANIFEST}")
    if sha256(data) != found.annotations.get("reuna.release.digest"):
        raise Untrusted("mismatch", "the artifact's files are not those of the release that it names")
    return Exported(OCI, data, len(found.files))


def _from_folder(path: Path, public: PublicKey | None) -> Exported:
    if public is None:
        raise KeyProblem(
            f"{path} is signed with a key of its own", "Name the file of its public part: --public-key FILE."
        )
    signed = model_signing.check(read_at_most(path / SIGNATURE, MAX_BUNDLE) or b"", public)
    files = dict(_walk(path))
    model_signing.compare(signed, {name: sha256(data) for name, data in files.items()})
    return Exported(OPENSSF, _again(files), len(files))


def _again(files: Mapping[str, bytes]) -> bytes | None:
    """The release's file, when these are its parts."""
    if wire.MANIFEST not in files:
        return None
    rest = {name: data for name, data in sorted(files.items()) if name != wire.MANIFEST}
    return pack({wire.MANIFEST: files[wire.MANIFEST], **rest})


def _walk(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file by its path below the folder, but for what is ignored. Raises `Untrusted` at a link."""
    total = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] in IGNORED:
            continue
        if path.is_symlink():
            raise Untrusted("kind", f"{path} is a link; a signed folder holds files alone")
        if path.is_file():
            data = _file(path) or b""
            total += len(data)
            if total > MAX_TAR:
                raise Untrusted("oversized", f"{folder} has more than {MAX_TAR} bytes, which no release has")
            yield name.as_posix(), data


def _file(path: Path) -> bytes | None:
    data = read_at_most(path, wire.MAX_RELEASE)
    if data is not None and len(data) > wire.MAX_RELEASE:
        raise Untrusted("oversized", f"{path} has more than {wire.MAX_RELEASE} bytes")
    return data


def _members(path: Path) -> dict[str, bytes]:
    data = read_at_most(path, MAX_TAR)
    if data is None:
        raise NotUsable(f"there is no file {path}")
    if len(data) > MAX_TAR:
        raise Untrusted("oversized", f"{path} has more than {MAX_TAR} bytes")
    return dict(unpack(data, "layout"))


def _write(to: Path, files: Mapping[str, bytes]) -> None:
    """A folder, whole or not at all."""
    beside = to.with_name(f".{to.name}.{uuid4().hex}.part")
    try:
        for name, data in files.items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            replace_file(beside / name, data, 0o644)
        beside.replace(to)
    except OSError as error:
        raise storage_error(error, to) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(beside)
