"""The two slots of a project on a node's disk, and the file that says which of them answers.

STATE/slots/PROJECT-1234abcd/a, b     one release file each, written beside and renamed
STATE/slots/PROJECT-1234abcd/state    `reuna.loop.operate.State`, replaced at once and forced to the disk

A file is forced to the disk before its name, its name before the state that speaks of it. So a power cut
leaves the state of before or the one after, and what either speaks of is there. What is found at a start is
read whole and held against its digest before it is used.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Collection
from pathlib import Path

import msgspec

from reuna.adapters.checked_file import CheckedFile
from reuna.adapters.files import read_at_most, replace_file
from reuna.core.errors import NotUsable, ReleaseNotFound, ReunaError, StorageError, Untrusted
from reuna.core.health import Health, health
from reuna.loop.operate import SLOTS, Found, SlotName, State, recovered
from reuna.wire import release as wire
from reuna.wire.release import Release

log = logging.getLogger("reuna.slots")
FOLDER = "slots"  #: in a node's state folder
WORK = "work-"
MAX_STATE = 1 << 20  #: bytes
_SLUG = re.compile(r"[^A-Za-z0-9._-]+")


class Kept(msgspec.Struct, frozen=True):
    """What the file ``state`` says."""

    project: str
    state: State


class Slots:
    """The folder of one project, on the node of that name. Blocking."""

    def __init__(self, state: Path, project: str, node: str = "") -> None:
        self.project = project
        self._node = node
        self.folder = state / FOLDER / folder_name(project)
        self._state = CheckedFile[Kept](self.folder / "state", Kept, MAX_STATE)

    def read(self) -> State:
        """The state as it was kept; made anew from what lies in the slots when it cannot be read."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self.folder.glob(".*.part"):  # a power cut in the middle of a file
            left.unlink(missing_ok=True)
        kept = self._state.read()
        if kept is not None and kept.project == self.project:
            return kept.state
        found = {slot: self.found(slot) for slot in SLOTS}
        return recovered({slot: each for slot, each in found.items() if each is not None})

    def keep(self, state: State) -> None:
        """Durable when it returns. Raises `DiskFull`, `NotUsable`, `Corrupted`."""
        self._state.write(Kept(self.project, state))

    def path(self, slot: str) -> Path:
        """Where a slot's release lies."""
        return self.folder / slot

    def work(self, digest: str) -> Path:
        """A folder for what runs a release."""
        return self.folder / f"{WORK}{digest[:16]}"

    def sweep(self, used: Collection[str]) -> None:
        """Remove the folders of releases that do not run; ``used``: digests of those that do."""
        stay = tuple(self.work(digest).name for digest in used)
        for folder in self.folder.glob(f"{WORK}*"):
            if not folder.name.startswith(stay):
                shutil.rmtree(folder, ignore_errors=True)

    def whole(self) -> dict[SlotName, str]:
        """Digest of each slot's file that is a whole release."""
        found = {slot: self.found(slot) for slot in SLOTS}
        return {slot: each.digest for slot, each in found.items() if each is not None}

    def found(self, slot: SlotName) -> Found | None:
        """What lies in a slot, read whole with every digest in it; None for nothing that can be used."""
        try:
            found = read(self.path(slot))
        except ReleaseNotFound:
            return None
        except (Untrusted, StorageError) as error:
            log.error("slot %s of %s: %s %s", slot, self.project, error.code, error)
            return None
        return self._found(found)

    def fill(self, slot: SlotName, source: Path, digest: str) -> Found:
        """Copy a release to a slot, durable and read again whole; what lies there then.

        Raises `ReleaseNotFound`, `Untrusted`, `DiskFull`, `NotUsable`, `Corrupted`.
        """
        found, data = _read(source)
        if found.digest != digest or found.manifest.about.project != self.project:
            raise Untrusted("mismatch", f"{source} is not the release that slot {slot} is to hold")
        replace_file(self.path(slot), data)
        if read(self.path(slot)).digest != digest:
            raise NotUsable(f"{self.path(slot)} does not give back what was written")
        return self._found(found)

    def _found(self, found: Release) -> Found:
        about, measured = found.manifest.about, is_measured(found, self._node)
        return Found(about.version, found.digest, rules_of(found), measured)


def projects(state: Path) -> list[str]:
    """Projects that have slots on this node."""
    files = sorted((state / FOLDER).glob("*/state"))
    kept = (CheckedFile[Kept](file, Kept, MAX_STATE).read() for file in files)
    return sorted({each.project for each in kept if each is not None})


def folder_name(project: str) -> str:
    """A name that people know again, and that no other project has.

    >>> folder_name("Pumps, hall 2")
    'Pumps-hall-2-8bc551fa'
    """
    slug = _SLUG.sub("-", project).strip(".-")[:60] or "project"
    return f"{slug}-{hashlib.sha256(project.encode()).hexdigest()[:8]}"


def read(file: Path) -> Release:
    """A release, every digest in it checked. Raises `ReleaseNotFound`, `Untrusted`, `NotUsable`."""
    return _read(file)[0]


def _read(file: Path) -> tuple[Release, bytes]:
    data = read_at_most(file, wire.MAX_RELEASE)
    if data is None:
        raise ReleaseNotFound(f"there is no file {file}")
    return wire.decode(data), data


def rules_of(found: Release) -> Health:
    """The rules of health that a release brings; the usual ones where its own cannot be read."""
    try:
        return health(wire.settings(found))
    except ReunaError as error:
        log.warning("release %d: %s %s", found.manifest.about.version, error.code, error)
        return Health()


def is_measured(found: Release, node: str) -> bool:
    """Whether this node has measured the model; not when nobody can tell."""
    try:
        return wire.is_measured(found, node)
    except ReunaError as error:
        log.warning("release %d: %s %s", found.manifest.about.version, error.code, error)
        return False
