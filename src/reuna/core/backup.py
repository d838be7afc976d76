"""What a backup says of itself: a list of files with their digests, what was left out, what only grows.

A manifest comes from elsewhere, so each of its names is judged before anything is made of it.

>>> check_path("state/ledger/000000000000.ledger")
''
>>> check_path("state/../../etc/passwd")
'it leaves its folder'
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from reuna.core.errors import Corrupted
from reuna.core.foreign import UNREADABLE, shown

FORMAT = "reuna/backup/v1"  #: raised when an older `reuna restore` could misread it
KINDS = ("cloud", "fog", "edge")
MAX_PATH = 1_000  #: characters
MAX_NAME = 255  #: bytes of one part of a path
MAX_FILES = 2_000_000
AGAIN = "Nothing was restored. Use another backup, or copy this one again."

S = TypeVar("S")
Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o777)]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _About(msgspec.Struct, frozen=True):
    """What every format says of itself."""

    format: str
    version: str


class Taken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file: its place in the backup, bytes, SHA-256, and whose it was. ``key``: it holds a private key."""

    path: str
    size: Size
    sha256: Digest
    mode: Mode
    owner: str = ""
    group: str = ""
    key: bool = False


class Folder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder of the place."""

    path: str
    mode: Mode
    owner: str = ""
    group: str = ""


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the backup does not have, and why. ``key``: it holds a private key."""

    path: str
    why: str
    key: bool = False


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A path that the settings name: the option, what it said, and where that lies in the backup."""

    option: str
    value: str
    path: str


class Marks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a place had come in what never goes back; 0 and empty where it has no such thing.

    ``metadata``: version of each role of the fleet's metadata. ``runs``: the newest round known of each
    run that had not ended. ``heads``: newest countersigned record of each node's ledger.
    """

    ledger: str = ""
    records: int = 0
    policy_serial: int = 0
    metadata: dict[str, int] = {}
    runs: dict[str, int] = {}
    heads: dict[str, int] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a backup says. ``made``: UTC, as in 2026-11-27T10:00:00Z."""

    format: str
    made: str
    version: str
    kind: str
    name: str
    fleet: str
    named: tuple[Named, ...]
    folders: tuple[Folder, ...]
    files: tuple[Taken, ...]
    left_out: tuple[LeftOut, ...] = ()
    marks: Marks = Marks()

    @property
    def settings(self) -> str:
        """Where the settings file lies in the backup."""
        return f"{self.kind}.toml"


def write_manifest(manifest: Manifest) -> bytes:
    """Its bytes: JSON for people and for `read_manifest`."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def read_manifest(data: bytes) -> Manifest:
    """The manifest, each of its names judged. Raises `Corrupted`."""
    about = _decode(data, _About)
    if about.format != FORMAT:
        raise Corrupted(
            f"the backup has the format {shown(about.format, 40)}, this version reads {FORMAT}",
            f"Restore it with Reuna {shown(about.version, 40)}.",
        )
    manifest = _decode(data, Manifest)
    if manifest.kind not in KINDS:
        raise Corrupted(f"the backup is of a {shown(manifest.kind, 40)}, which is no place", AGAIN)
    _check_paths(manifest)
    return manifest


def _decode(data: bytes, kind: type[S]) -> S:
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise Corrupted(f"the backup's manifest cannot be read: {error}", AGAIN) from error


def _check_paths(manifest: Manifest) -> None:
    files = [file.path for file in manifest.files]
    folders = [folder.path for folder in manifest.folders]
    for path in (*files, *folders, *(named.path for named in manifest.named)):
        if wrong := check_path(path):
            raise Corrupted(f"the backup names {shown(path)}: {wrong}", AGAIN)
    if len(files) != len(set(files)) or set(files) & set(folders):
        raise Corrupted("the backup names a file twice", AGAIN)
    known = set(folders)
    for path in (*files, *folders):
        above = path.rpartition("/")[0]
        if above and above not in known:
            raise Corrupted(f"the backup names {shown(path)}, but not its folder", AGAIN)
    if manifest.settings not in files:
        raise Corrupted(f"the backup has no {manifest.settings}", AGAIN)


def check_path(path: str) -> str:
    """What is wrong with a name in a backup, or ''. It may never lead out of its folder."""
    if not path or len(path) > MAX_PATH:
        return "it is empty" if not path else "it is too long"
    if path.startswith("/") or "\\" in path or not path.isprintable():
        return "it is no plain relative path"
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "it leaves its folder"
    try:
        too_long = any(len(part.encode()) > MAX_NAME for part in parts)
    except UnicodeEncodeError:
        return "it is no plain relative path"
    return "a part of it is too long" if too_long else ""


def behind(backup: Marks, here: Marks) -> list[str]:
    """In what a backup is older than the place as it is now, one sentence for each."""
    found = []
    if here.ledger and here.ledger != backup.ledger:
        found.append(f"the ledger here is {here.ledger}, that of the backup {backup.ledger or 'none'}")
    elif here.records > backup.records:
        found.append(f"the ledger here has {here.records} records, that of the backup {backup.records}")
    if here.policy_serial > backup.policy_serial:
        found.append(f"the policy here has serial {here.policy_serial}, the backup's {backup.policy_serial}")
    for role, version in sorted(here.metadata.items()):
        if version > backup.metadata.get(role, 0):
            found.append(f"{role} here has version {version}, the backup's {backup.metadata.get(role, 0)}")
    for run, number in sorted(here.runs.items()):
        if number > backup.runs.get(run, 0):
            found.append(f"{run} here is at round {number}, in the backup at {backup.runs.get(run, 0)}")
    return found
