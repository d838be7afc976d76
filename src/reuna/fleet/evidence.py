"""One signed folder with all that is known of a release, and its check on a machine that knows a key.

    reuna evidence export 3 --trust trust      writes it
    reuna evidence verify FOLDER --root …      checks it

What is in it says ``evidence.md`` beside this file, which is the README of every such folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from reuna.adapters.files import read_at_most, replace_file, storage_error, sync_folder
from reuna.adapters.tuf_repository import TufRepository
from reuna.core.errors import KeyProblem, NotUsable, Untrusted
from reuna.core.foreign import readable
from reuna.fleet.lineage import Reports, of_release
from reuna.fleet.release import Catalogue, lineage
from reuna.trust import publish
from reuna.trust.envelope import MAX_ENVELOPE, PrivateKey, add_signature
from reuna.trust.evidence import FORMAT, MAX_FILES, About, Judged, Roots, follow, judge, named, state
from reuna.trust.heads import Keys, countersigner, open_countersignature
from reuna.trust.publish import Ring
from reuna.trust.roles import FILE_NAME, LIMITS
from reuna.trust.targets import read_all
from reuna.wire import release
from reuna.wire.archive import MAX_PART
from reuna.wire.build import SBOM, canonical, read_manifest, sha256
from reuna.wire.release import Manifest, Release

ENVELOPE = "evidence.intoto.json"
SUMS = "SHA256SUMS"
MANIFEST = "release.json"
APPROVALS, HEADS, HISTORY = "approvals.json", "heads.json", "history.json"
TRUST = "trust"
LISTS = ("targets", "code")  #: of the fleet's signed lists
COUNTERSIGNS = "plans"  #: the role whose keys the cloud countersigns heads with
#: Parts of a release that are in the folder as they are; code and model are not.
PARTS = (release.CARD, release.CONTRACT, release.GATES, release.LINEAGE, SBOM, release.PROVENANCE)
NEEDED = (MANIFEST, APPROVALS, HEADS, HISTORY, SUMS, "README.md")
Signing = Callable[[bytes], bytes]  #: an envelope in, the same with signatures out


@dataclass(frozen=True)
class Verified:
    """Evidence in which all holds. ``root``: version of the newest root that was followed, 0 for named keys.

    ``heads``: how many the fleet's cloud has countersigned; ``others``: how many a key has that its list
    does not name, as every one where no list is; ``vouched``: whether the fleet's code role has signed for
    the code, None when its list is not in the folder.
    """

    folder: Path
    judged: Judged
    root: int
    heads: int
    others: int
    vouched: bool | None


# --- writing -----------------------------------------------------------------------------------------


def export(
    catalogue: Catalogue,
    wanted: str | int,
    to: Path,
    sign: Signing,
    now: float,
    trust: Path | None = None,
    heads: Sequence[Mapping[str, Any]] = (),
    reports: Reports | None = None,
) -> About:
    """Write the evidence of a release into the new folder ``to``; what it says of itself.

    ``trust``: the fleet's trust folder, for its public files; ``heads``: those that the cloud keeps now.
    Raises `NotUsable` when ``to`` is there, `KeyProblem`, and what reading the release raises; then
    nothing is written.
    """
    found = catalogue.read(wanted)
    about = _about(found, now)
    files = {
        **_papers(found, of_release(catalogue, wanted, reports), heads),
        **(_public(trust) if trust else {}),
    }
    sums = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(files.items()))
    files[SUMS] = sums.encode()
    envelope = sign(state(about, {name: sha256(data) for name, data in files.items()}))
    with _new_folder(to) as folder:
        for name, data in {**files, ENVELOPE: envelope}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            replace_file(folder / name, data, 0o644)
    return about


def sign_more(folder: Path, key: PrivateKey) -> None:
    """Put one more signature on evidence whose files are as they were signed. Raises `Untrusted`."""
    envelope = _read(folder, ENVELOPE, MAX_ENVELOPE)
    _check_files(folder, _judged(envelope, Ring((), 0)))
    replace_file(folder / ENVELOPE, add_signature(envelope, key), 0o644)


def signing(keys: Collection[PrivateKey]) -> Signing:
    """Signs with all of the keys. Raises `KeyProblem` when there is none."""
    if not keys:
        raise KeyProblem(
            "evidence is worth nothing without a signature",
            "Name a key with --key, or a trust folder that has release keys with --trust.",
        )

    def sign(envelope: bytes) -> bytes:
        for key in keys:
            envelope = add_signature(envelope, key)
        return envelope

    return sign


def _about(found: Release, now: float) -> About:
    about = found.manifest.about
    made = datetime.fromtimestamp(int(now), UTC).isoformat().replace("+00:00", "Z")
    return About(FORMAT, about.project, about.version, found.digest, about.run, made)


def _papers(
    found: Release, history: Mapping[str, Any], heads: Sequence[Mapping[str, Any]]
) -> dict[str, bytes]:
    said = lineage(found)
    return {
        "README.md": (resources.files("reuna.fleet") / "evidence.md").read_bytes(),
        MANIFEST: canonical(msgspec.to_builtins(found.manifest)),
        **{name: found.parts[name] for name in PARTS if name in found.parts},
        APPROVALS: canonical({"run": said.get("approvals"), "release": history["released"]}),
        HEADS: canonical({"run": said.get("heads", []), "export": list(heads)}),
        HISTORY: canonical(history),
    }


def _public(trust: Path) -> dict[str, bytes]:
    """Every root, and the newest lists of releases and of code. Raises `KeyProblem`."""
    repository = TufRepository(trust / "public")
    roots = [path.name for path in repository.folder.glob("*.root.json") if FILE_NAME.fullmatch(path.name)]
    found = {f"{TRUST}/{name}": repository.file(name) or b"" for name in roots}
    return {**found, **{f"{TRUST}/{role}.json": repository.newest(role) for role in LISTS}}


@contextmanager
def _new_folder(to: Path) -> Iterator[Path]:
    """A folder that gets its name when all is in it; else nothing of it stays. Raises `NotUsable`."""
    if os.path.lexists(to):
        raise NotUsable(f"{to} is there already", "Name another folder; evidence is never written over.")
    if not to.parent.is_dir():
        raise NotUsable(f"{to}: there is no folder {to.parent}")
    try:
        work = Path(tempfile.mkdtemp(prefix=f".{to.name[:100]}.", dir=to.parent))
    except OSError as error:
        raise storage_error(error, to) from error
    try:
        yield work
        work.chmod(0o755)
        work.rename(to)  # over nothing but an empty folder that came meanwhile
        sync_folder(to.parent)
    except OSError as error:
        raise storage_error(error, to) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


# --- checking ----------------------------------------------------------------------------------------


def verify(
    folder: Path, pin: bytes | None = None, signers: Collection[str] = (), threshold: int = 1
) -> Verified:
    """Check every file of an evidence folder against what ``pin`` (a root's bytes) or ``signers`` signed.

    With a root the fleet's release keys must have signed, with as many as it asks for. Raises `Untrusted`,
    which names the file that is wrong, missing or too much, `KeyProblem`, `NotUsable`.
    """
    if (pin is None) == (not signers):
        raise KeyProblem(
            "evidence is held against a key that you trust", "Give either --root or --signer, once or more."
        )
    if not folder.is_dir():
        raise NotUsable(f"{folder} is no folder", "Name the folder that `reuna evidence export` wrote.")
    roots = None if pin is None else follow(pin, _roots(folder))
    ring = named(signers, threshold) if roots is None else roots.signers
    judged = _judged(_read(folder, ENVELOPE, MAX_ENVELOPE), ring)
    files = _check_files(folder, judged)
    manifest = _check_release(files, judged)
    lists = _check_lists(files, roots, manifest)
    heads = _check_heads(files, lists.cloud)
    return Verified(folder, judged, roots.version if roots else 0, *heads, lists.vouched)


def _judged(envelope: bytes, ring: Ring) -> Judged:
    try:
        return judge(envelope, ring)
    except Untrusted as error:
        raise Untrusted(error.reason, f"{ENVELOPE}: {error.message}") from error


def _roots(folder: Path) -> list[bytes]:
    """The roots in the folder, the oldest first."""
    found = [path.name for path in (folder / TRUST).glob("*.root.json") if FILE_NAME.fullmatch(path.name)]
    ordered = sorted(found, key=lambda name: int(name.partition(".")[0]))[:MAX_FILES]
    return [_read(folder, f"{TRUST}/{name}", LIMITS["root"]) for name in ordered]


def _check_files(folder: Path, judged: Judged) -> dict[str, bytes]:
    """The files' bytes by name: those that were signed, all of them and no other. Raises `Untrusted`."""
    there = set(_names(folder)) - {ENVELOPE}
    for name in sorted(judged.files.keys() - there):
        raise Untrusted("missing", f"{readable(name)} is missing: it was signed, and is not in {folder}")
    for name in sorted(there - judged.files.keys()):
        raise Untrusted("unknown", f"{readable(name)} was added: nobody has signed it")
    files = {name: _read(folder, name, MAX_PART) for name in sorted(there)}
    for name, data in files.items():
        if sha256(data) != judged.files[name]:
            raise Untrusted("mismatch", f"{name} is not as it was signed: it was changed")
    for name in NEEDED:
        if name not in files:
            raise Untrusted("missing", f"{name} is missing: this is no evidence of a release")
    return files


def _names(folder: Path) -> Iterator[str]:
    """Plain files below the folder by their paths in it. Raises `Untrusted` for anything else."""
    found = sorted(islice(folder.rglob("*"), 2 * MAX_FILES))
    if len(found) == 2 * MAX_FILES:
        raise Untrusted("oversized", f"{folder} holds more files than evidence has")
    for path in found:
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or (path.is_dir() and any(path.iterdir()))):
            raise Untrusted("unknown", f"{readable(name)} was added: evidence holds plain files alone")
        if path.is_file():
            yield name


def _check_release(files: Mapping[str, bytes], judged: Judged) -> Manifest:
    """The parts are those of the release that the statement names. Raises `Untrusted`."""
    manifest = read_manifest(files[MANIFEST], Manifest, release.FORMAT, "release")
    about, said = manifest.about, judged.about
    if (about.project, about.version, about.run) != (said.project, said.version, said.run):
        raise Untrusted("mismatch", f"{MANIFEST} is of {about.project} {about.version}; that was not signed")
    for name in PARTS:
        part, data = manifest.parts.get(name), files.get(name)
        if (part.sha256 if part else None) != (None if data is None else sha256(data)):
            raise Untrusted("mismatch", f"{name} is not the part that {MANIFEST} names")
    return manifest


def _check_heads(files: Mapping[str, bytes], cloud: Collection[bytes]) -> tuple[int, int]:
    """Heads that a key of the fleet's cloud has countersigned, and those that another key has.

    Each must be signed by its node's key and by the key that countersigns. Raises `Untrusted`.
    """
    try:
        said = json.loads(files[HEADS])
        heads = [(str(each["node"]), bytes.fromhex(each["key"]), bytes.fromhex(each["countersignature"]))
                 for each in (*said["run"], *said["export"])]  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Untrusted("malformed", f"{HEADS} cannot be read: {error!r}") from error
    known = 0
    for node, key, signed in heads:
        try:
            by = countersigner(signed)
            open_countersignature(signed, Keys(frozenset({key}), frozenset({by})))
        except Untrusted as error:
            raise Untrusted(error.reason, f"{HEADS}, {readable(node)}: {error.message}") from error
        known += by in cloud
    return known, len(heads) - known


class _Lists(NamedTuple):
    """What the fleet's lists say: the cloud's keys, and whether the code role has signed for the code."""

    cloud: Collection[bytes] = ()
    vouched: bool | None = None


def _check_lists(files: Mapping[str, bytes], roots: Roots | None, manifest: Manifest) -> _Lists:
    """Nothing without the lists or a root. Raises `Untrusted` for one that others have signed."""
    targets, code = (files.get(f"{TRUST}/{role}.json") for role in LISTS)
    if roots is None or targets is None or code is None:
        return _Lists()
    for role, data, above in (("targets", targets, roots.newest), ("code", code, targets)):
        if lacks := publish.lacking(role, data, above):
            raise Untrusted("signature", f"{TRUST}/{role}.json: {lacks}")
    bundle = manifest.parts[release.CODE].sha256
    listed = read_all(publish.read("code", code).signed)
    vouched = any(each.kind == "code" and each.sha256 == bundle for each in listed)
    return _Lists(publish.rings("targets", targets)[COUNTERSIGNS].keys, vouched)


def _read(folder: Path, name: str, most: int) -> bytes:
    data = read_at_most(folder / name, most)
    if data is None:
        raise Untrusted("missing", f"{name} is missing in {folder}")
    if len(data) > most:
        raise Untrusted("oversized", f"{name} has more than {most} bytes")
    return data
