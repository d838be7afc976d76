"""A build that was made: written, signed, verified, taken apart; and where the code of a run comes from.

What the builder claims about a build lies beside it, in ``FILE.intoto.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from reuna import __version__
from reuna.adapters import git
from reuna.adapters.files import read_at_most, replace_file
from reuna.adapters.installed import INSTALLED
from reuna.adapters.project import CONFIGURATION, is_code, pack_code, unpack_bundle
from reuna.core.errors import KeyProblem, NotReproduced, NotUsable, ProjectError, SettingsError, Untrusted
from reuna.core.project import ProjectSettings
from reuna.fleet.build import Made, committed, in_folder, make, plan_of, settings_in
from reuna.fleet.result import SourceLine
from reuna.trust.envelope import MAX_ENVELOPE, PrivateKey, add_signature, open_envelope
from reuna.trust.provenance import Claim, judge, read_claim, state
from reuna.wire import build as wire
from reuna.wire import digest_bytes
from reuna.wire.build import MAX_BUILD, Build

BESIDE = ".intoto.json"  #: after the build's name: its provenance
_KEY = re.compile(r"(?:[^=]*=)?([0-9a-f]{64})")


class Verified(msgspec.Struct, frozen=True):
    """A build whose every digest is right; ``signed_by`` those of the named keys that signed its provenance.

    ``others``: good signatures of keys that nobody named. ``rebuilt``: whether it was built again from the
    commit that it claims, with the same bytes; None when nobody asked.
    """

    file: str
    build: Build
    claim: Claim
    signed_by: tuple[str, ...]
    others: tuple[str, ...]
    rebuilt: bool | None = None


def write(made: Made, file: Path, key: PrivateKey | None = None) -> Claim:
    """Write the build, and its provenance beside it, signed when there is a key; what is claimed there.

    Signatures of the same provenance that lies there already stay.
    """
    beside = provenance_of(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    claim = msgspec.structs.replace(made.claim, name=file.name)
    envelope = state(claim)
    kept = read_at_most(beside, MAX_ENVELOPE)
    if kept is not None and _same_payload(kept, envelope):
        envelope = kept
    replace_file(file, made.data, 0o644)
    replace_file(beside, envelope if key is None else add_signature(envelope, key), 0o644)
    return claim


def sign(file: Path, key: PrivateKey) -> Claim:
    """Add a signature to the provenance of a build, once all of its digests are found right.

    Raises `Untrusted`, `NotUsable`, `DiskFull`.
    """
    found = verify(file)
    beside = provenance_of(file)
    replace_file(beside, add_signature(_read(beside, MAX_ENVELOPE), key), 0o644)
    return found.claim


def verify(
    file: Path, signers: Collection[str] = (), threshold: int = 1, project: Path | None = None
) -> Verified:
    """Check every digest of a build, its provenance, and that enough of ``signers`` signed that.

    ``project``: a clone of its repository, in which it is built again. Raises `Untrusted`, which names
    what is wrong, `NotUsable`, `NotReproduced`, and what `make` does.
    """
    build = read(file)
    beside = provenance_of(file)
    envelope = read_at_most(beside, MAX_ENVELOPE)
    if envelope is None:
        raise Untrusted("missing", f"the build has no provenance: there is no {beside}")
    judged = judge(envelope, build.digest, signers, threshold)
    if project is not None:
        _check_rebuilt(build, judged.claim, project)
    again = None if project is None else True
    return Verified(str(file), build, judged.claim, judged.signed_by, judged.others, again)


def is_build(file: Path) -> bool:
    """Whether a file begins as a build does. Raises `Corrupted`, `NotUsable`."""
    return (read_at_most(file, len(wire.MANIFEST)) or b"")[: len(wire.MANIFEST)] == wire.MANIFEST.encode()


def read(file: Path) -> Build:
    """A build whose every digest is right. Raises `Untrusted`, `NotUsable`."""
    return wire.decode(_read(file, MAX_BUILD))


def claimed(file: Path) -> Claim | None:
    """What the provenance beside a build says, unjudged; None without one. Raises `Untrusted`."""
    data = read_at_most(provenance_of(file), MAX_ENVELOPE)
    return None if data is None else read_claim(open_envelope(data))


def provenance_of(file: Path) -> Path:
    """Where the provenance of a build lies."""
    return file.with_name(f"{file.name}{BESIDE}")


def keys(texts: Collection[str]) -> tuple[str, ...]:
    """Public keys as people give them, ``NAME=KEY`` or ``KEY``. Raises `KeyProblem`."""
    found = []
    for text in texts:
        match = _KEY.fullmatch(text)
        if match is None:
            raise KeyProblem(
                f"{text!r} is no public key", "Give 64 hexadecimal digits, as `reuna policy key` prints them."
            )
        found.append(match[1])
    return tuple(dict.fromkeys(found))


def _check_rebuilt(build: Build, claim: Claim, project: Path) -> None:
    if claim.dirty:
        raise NotReproduced(
            f"the build is of files that are not those of commit {claim.commit[:12]}", "Build a clean commit."
        )
    again = make(project, claim.commit).build
    names = {*build.parts, *again.parts}
    different = sorted(name for name in names if build.parts.get(name) != again.parts.get(name))
    if different:
        raise NotReproduced(
            f"commit {claim.commit[:12]} gives another {', '.join(different)} here", _why(again)
        )


def _why(again: Build) -> str:
    if json.loads(again.parts[wire.ENVIRONMENT])["source"] == INSTALLED:
        return "The project has no lock: build with the same packages, or commit a lock of them."
    return "Name the project's folder in a clone of its repository, and use the same version of Reuna."


def _same_payload(a: bytes, b: bytes) -> bool:
    try:
        return open_envelope(a).payload == open_envelope(b).payload
    except Untrusted:
        return False


def _read(file: Path, limit: int) -> bytes:
    data = read_at_most(file, limit)
    if data is None:
        raise NotUsable(f"there is no file {file}")
    return data


def unpack(build: Build, into: Path) -> ProjectSettings:
    """Make the project's folder again: its code and its ``reuna.toml``; the settings as they were built.

    Raises `SettingsError` when this Reuna would read them otherwise, `ProjectError`, `DiskFull`.
    """
    settings = settings_in(build.parts[wire.SETTINGS])
    now = json.loads(plan_of(settings))
    try:
        was = msgspec.json.decode(build.parts[wire.PLAN], type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Untrusted("malformed", f"{wire.PLAN} in the build cannot be read") from error
    different = sorted(name for name, value in was.items() if name not in now or now[name] != value)
    if different:
        raise SettingsError(
            f"this Reuna ({__version__}) reads {', '.join(different)} otherwise than the one that built it",
            "Build it again with this version, or use that one.",
        )
    into.mkdir(parents=True, exist_ok=True)
    unpack_bundle(build.parts[wire.CODE], into)
    replace_file(into / CONFIGURATION, build.parts[wire.SETTINGS], 0o644)
    return settings


def source_of(project: Path) -> SourceLine:
    """Where the code in a project's folder comes from, as far as git can tell.

    Raises `ProjectError` as `pack_bundle`.
    """
    files = in_folder(project)
    code = digest_bytes(pack_code({name: data for name, data in files.items() if is_code(name)}))
    try:
        checkout = git.open_checkout(project)
    except ProjectError:  # no git, no repository, no commit
        return SourceLine(code)
    return SourceLine(code, checkout.commit, not _is_committed(checkout, files), git.remote(checkout))


def _is_committed(checkout: git.Checkout, files: Mapping[str, bytes]) -> bool:
    """Whether the files, byte for byte, are those that a build of the commit would be made of."""
    try:
        return committed(checkout) == files
    except ProjectError:  # of that commit there can be no build
        return False


def source_of_build(build: Build, claim: Claim | None) -> SourceLine:
    """Where the code of a build comes from, as its provenance claims."""
    if claim is None or claim.digest != build.digest:
        return SourceLine(build.manifest.code, build=build.digest)
    return SourceLine(build.manifest.code, claim.commit, claim.dirty, claim.remote, build.digest)
