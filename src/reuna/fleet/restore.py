"""Bring a place back from its backup: everything is verified first, and lands under its name whole.

Two ways: to a settings file, where each thing goes to where that file says; or to a folder, which then
holds the whole place, its settings file included. Of what lies outside the state folder, and is there
already, nothing is written over.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import os
import pwd
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.archive import Archive
from reuna.adapters.files import storage_error, sync_folder, write_all
from reuna.adapters.ledger_file import segments
from reuna.cloud.files import AUDIT
from reuna.core.backup import Manifest, Marks, behind
from reuna.core.errors import NotUsable, ReunaError
from reuna.fleet import ledger
from reuna.fleet.inventory import STATE, exclusive
from reuna.fleet.marks import marks_of
from reuna.fleet.trail import Trail

NOT_OURS = frozenset({"lost+found"})  #: an empty disk has it
#: Folders of a node's state in which nothing ever goes back; see `Restored.carried`.
GROWING = ("ledger", "policy", "trust")
OFFLINE = "trust/keys/"  #: root, release and code keys, which no place needs to run
KEPT = "Nothing was changed. Give --replace to move it aside first, or name another folder."

Progress = Callable[[int, int], None]  #: bytes done, bytes in all


@dataclass(frozen=True)
class Target:
    """Where a backup goes. ``whole``: the folder that becomes the place; else only ``state`` is ours."""

    settings: Path
    state: Path
    where: Mapping[str, Path]  #: place in the backup -> path
    whole: Path | None = None

    @property
    def own(self) -> Path:
        """What must be empty, and is moved aside by ``--replace``."""
        return self.whole or self.state

    def path(self, at: str) -> Path | None:
        """Where a file of the backup belongs; None when these settings have no such thing."""
        if self.whole is not None:
            return self.whole / at
        prefix, rest = at, ""
        while prefix not in self.where:
            prefix, _, last = prefix.rpartition("/")
            rest = f"{last}/{rest}" if rest else last
            if not prefix:
                return None
        return self.where[prefix] / rest if rest else self.where[prefix]

    @property
    def trust(self) -> Path | None:
        """Where a cloud's metadata is published from."""
        return self.path("trust")


@dataclass
class Restored:
    """What was done. ``kept``: files outside the state folder that were there and differ.

    ``carried``: what was taken from the state that was moved aside, because it goes on from the backup's
    and nothing in it may go back. ``missing``: private keys that are nowhere yet. ``behind``: in what the
    place is older than the one that was there.
    """

    target: Target
    manifest: Manifest
    files: int = 0
    aside: Path | None = None
    kept: list[Path] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    marks: Marks = field(default_factory=Marks)


def to_folder(manifest: Manifest, folder: Path) -> Target:
    """The whole place below one folder."""
    base = folder.absolute()
    return Target(base / manifest.settings, base / STATE, {}, base)


def to_settings(manifest: Manifest, file: Path, values: Mapping[str, Any] | None) -> Target:
    """Where the settings say: those of ``file``, or those of the backup when there is none.

    Raises `NotUsable` when they are of another place.
    """
    wanted = (manifest.fleet, manifest.name)
    if values is not None and (values["fleet"], values["name"]) != wanted:
        raise NotUsable(
            f"the backup is of {manifest.name} of fleet {manifest.fleet}, {file} of {values['name']} of"
            f" {values['fleet']}",
            "Name the settings of that place, or a new folder.",
        )
    where = {manifest.settings: file.absolute()}
    for named in manifest.named:
        value = named.value if values is None else values.get(named.option)
        if value:
            where.setdefault(named.path, Path(value).absolute())
            if named.option == "policy":
                beside = named.path.rpartition(".")[0] + ".sig"
                where.setdefault(beside, Path(value).absolute().with_suffix(".sig"))
    return Target(file.absolute(), where[STATE], where)


def verify(archive: Archive, progress: Progress) -> None:
    """Compare every file in a backup with its digest. Raises `Corrupted`."""
    archive.verify(_told(progress, archive.size))


def restore(archive: Archive, target: Target, replace: bool, progress: Progress, now: float) -> Restored:
    """Verify everything, then put it in place. Raises `NotUsable`, `Corrupted`, `DiskFull`.

    Until the last step nothing of what was there has changed.
    """
    check_free(target, replace)
    tell = _told(progress, 2 * archive.size)
    archive.verify(tell)
    done = Restored(target, archive.manifest)
    here = marks_of(target.state, target.trust)
    own = target.own
    _make_parents(own)
    beside = Path(_made(own, lambda: tempfile.mkdtemp(prefix=f".{own.name}.restoring-", dir=own.parent)))
    try:
        _write(archive, target, beside, done, tell)
        if target.whole is not None:
            _rewrite_settings(archive.manifest, target, beside)
        new_state = beside / STATE if target.whole else beside
        if replace and target.state.is_dir():
            _carry(archive.manifest, target.state, new_state, done)
        done.missing = _missing(archive.manifest, target, new_state)
        _sync(beside)
        done.aside = _swap(beside, own, now)
    except OSError as error:
        raise storage_error(error, own) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    done.marks = marks_of(target.state, target.trust)
    done.behind = behind(done.marks, here)
    _note(target, archive)
    return done


def check_free(target: Target, replace: bool) -> None:
    """Raises `NotUsable` when the place runs, or when something is there and is to stay."""
    own = target.own
    if os.path.lexists(own) and not own.is_dir():
        raise NotUsable(f"{own} is no folder", "Name a folder, or a settings file that ends in .toml.")
    if os.path.ismount(own):
        raise NotUsable(
            f"a disk is mounted at {own}",
            "Let `folder` in the settings be a folder below it, as in state/place, and restore again.",
        )
    for lock in exclusive(target.state):
        if _is_locked(lock):
            raise NotUsable(f"the place in {target.state} is running", "Stop it, then restore.")
    if own.is_dir() and set(os.listdir(own)) - NOT_OURS and not replace:
        raise NotUsable(f"{own} is not empty", KEPT)


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


# --- writing ---------------------------------------------------------------------------------------


def _write(
    archive: Archive, target: Target, beside: Path, done: Restored, tell: Callable[[int], None]
) -> None:
    """What belongs to ``target.own`` goes to ``beside``, the rest where it is to be."""
    beside.chmod(0o700)
    for folder in archive.manifest.folders:
        path = _new_path(folder.path, target, beside)
        if path is None or path.is_dir():
            if path == beside:
                _give(path, folder.mode, folder.owner, folder.group)
            continue
        path.mkdir(parents=True)
        _give(path, folder.mode, folder.owner, folder.group)
    for index, taken in enumerate(archive.manifest.files):
        path = _new_path(taken.path, target, beside)
        if path is None:
            done.skipped.append(taken.path)
            continue
        if not path.is_relative_to(beside):
            if os.path.lexists(path):
                if not _is_same(path, taken.size, taken.sha256):
                    done.kept.append(path)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
        _write_one(path, archive.read(index), tell)
        _give(path, 0o600 if taken.key else taken.mode, taken.owner, taken.group)
        done.files += 1


def _new_path(at: str, target: Target, beside: Path) -> Path | None:
    """Where a file is written for now."""
    path = target.path(at)
    if path is None or not path.is_relative_to(target.own):
        return path
    return beside / path.relative_to(target.own)


def _write_one(path: Path, blocks: Iterable[bytes], tell: Callable[[int], None]) -> None:
    """A new file, whole and on the disk, or none. Raises `DiskFull`, `Corrupted`."""
    part = path.with_name(f".{path.name[:100]}.restoring")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            for block in blocks:
                write_all(fd, block)
                tell(len(block))
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise storage_error(error, path) from error
    except ReunaError:
        part.unlink(missing_ok=True)
        raise


def _give(path: Path, mode: int, owner: str, group: str) -> None:
    """Mode, and for the superuser whose it was, where this machine knows them."""
    if os.geteuid() == 0:
        os.chown(path, _uid(owner), _gid(group))
    path.chmod(mode)


@cache
def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid if name else -1
    except KeyError:
        return -1


@cache
def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError:
        return -1


def _is_same(path: Path, size: int, sha256: str) -> bool:
    return path.is_file() and path.stat().st_size == size and _digest(path, size) == sha256


def _digest(path: Path, size: int) -> str:
    """SHA-256 of the first ``size`` bytes."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            size -= len(block)
            hasher.update(block)
    return hasher.hexdigest()


def _rewrite_settings(manifest: Manifest, target: Target, beside: Path) -> None:
    """Let the settings of a whole place name what lies below its folder; what cannot be is left."""
    assert target.whole is not None
    file = beside / manifest.settings
    text = file.read_text(encoding="utf-8")
    for named in manifest.named:
        new = str(target.whole / named.path)
        for quoted in (_quoted(named.value), f"'{named.value}'"):
            text = text.replace(f"= {quoted}", f"= {_quoted(new)}")
    tomllib.loads(text)
    mode = file.stat().st_mode & 0o777
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


# --- what never goes back --------------------------------------------------------------------------


def _carry(manifest: Manifest, old: Path, new: Path, done: Restored) -> None:
    """Take over from the old state what goes on from the backup's, and private keys that it lacks."""
    for folder in GROWING:
        if (old / folder).is_dir() and _goes_on(manifest, folder, old, new):
            shutil.rmtree(new / folder, ignore_errors=True)
            shutil.copytree(old / folder, new / folder, ignore=shutil.ignore_patterns("*.part"))
            _as_before(old / folder, new / folder)
            done.carried.append(folder)
    for left in manifest.left_out:
        rest = left.path.removeprefix(f"{STATE}/")
        if left.key and rest != left.path and (old / rest).is_file():
            (new / rest).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(old / rest, new / rest)
            (new / rest).chmod(0o600)
            _as_before(old / rest, new / rest)
            done.carried.append(rest)


def _as_before(old: Path, new: Path) -> None:
    """The superuser's copy belongs to whom the original does."""
    if os.geteuid() != 0:
        return
    for path in (old, *(old.rglob("*") if old.is_dir() else ())):
        status = path.lstat()
        os.chown(new / path.relative_to(old), status.st_uid, status.st_gid, follow_symlinks=False)


def _goes_on(manifest: Manifest, folder: str, old: Path, new: Path) -> bool:
    """Whether a folder of the old state is whole, and begins with what the backup has of it."""
    before, now = marks_of(new), marks_of(old)
    if folder == "policy":
        return now.policy_serial > before.policy_serial
    if folder == "trust":
        newer = any(version > before.metadata.get(role, 0) for role, version in now.metadata.items())
        return newer and all(now.metadata.get(role, 0) >= at for role, at in before.metadata.items())
    if now.ledger != before.ledger or now.records <= before.records:
        return False
    at = f"{STATE}/{folder}/"
    mine = [taken for taken in manifest.files if taken.path.startswith(at) and taken.path.endswith(".ledger")]
    begins = all(
        _begins(old / taken.path.removeprefix(f"{STATE}/"), taken.size, taken.sha256) for taken in mine
    )
    return begins and _is_good(old / folder)


def _begins(path: Path, size: int, sha256: str) -> bool:
    return path.is_file() and path.stat().st_size >= size and _digest(path, size) == sha256


def _is_good(folder: Path) -> bool:
    try:
        return bool(segments(folder)) and ledger.judge(folder, None, None).good
    except ReunaError:
        return False


def _missing(manifest: Manifest, target: Target, new_state: Path) -> list[Path]:
    """Private keys that the backup does not have, that are not there, and without which nothing starts."""
    found = []
    for left in manifest.left_out:
        needed = left.key and not left.path.startswith(OFFLINE)
        path = target.path(left.path) if needed else None
        if path is None:
            continue
        now = new_state / path.relative_to(target.state) if path.is_relative_to(target.state) else path
        if not now.is_file():
            found.append(path)
    return found


# --- the last step ---------------------------------------------------------------------------------


def _swap(new: Path, own: Path, now: float) -> Path | None:
    """Give the new folder its name; what was there goes aside under another. Its path, or None."""
    aside = None
    if own.is_dir() and set(os.listdir(own)) - NOT_OURS:
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = own.with_name(f"{own.name}.before-{stamp}")
        if os.path.lexists(aside):
            raise NotUsable(f"{aside} is there already", "Wait a second, and try again.")
        own.rename(aside)
    try:
        new.rename(own)
    except OSError:
        if aside is not None:
            aside.rename(own)
        raise
    sync_folder(own.parent)
    return aside


def _sync(folder: Path) -> None:
    """Make every name below a folder durable; the files are already."""
    for path, _, _ in os.walk(folder):
        sync_folder(Path(path))


def _make_parents(own: Path) -> None:
    _made(own, lambda: own.parent.mkdir(parents=True, exist_ok=True))


def _made(own: Path, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NotUsable(f"{own.parent} cannot be made") from error
        raise storage_error(error, own) from error


def _told(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return tell


def _note(target: Target, archive: Archive) -> None:
    """A line in the place's audit trail, where it has one."""
    if (target.state / AUDIT).is_file():
        made, digest = archive.manifest.made, archive.digest
        Trail(target.state).note("place.restore", str(archive.path), "allowed", made=made, digest=digest)
