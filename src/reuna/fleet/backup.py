"""Copy what a place cannot make again into one file, while it runs.

First everything is *held* as it is at that moment: databases by a read transaction, small files by
their bytes, files that come and go by an open descriptor, files that only grow by a length at which a
record ends. Then it is copied out, for as long as that takes. The journal is held first: whatever it
says is done lies in the other files already, as after a crash.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import reuna
from reuna.adapters.archive import ArchiveWriter, writing
from reuna.adapters.database_copy import Moment, is_database
from reuna.adapters.files import storage_error
from reuna.adapters.fingerprint import DATA_KEY
from reuna.adapters.ledger_file import FILE
from reuna.core.backup import FORMAT, Folder, LeftOut, Manifest, Taken, check_path
from reuna.core.errors import Corrupted, NotUsable
from reuna.exchange.storage import DUMP
from reuna.fleet.inventory import STATE, Place, Root, made_again, roots
from reuna.fleet.marks import JOURNAL, marks_of
from reuna.trust import ledger

SMALL = 256 * 1024  #: bytes of a file that is held in memory
HELD = 512  #: files that are held open; of more, those that changed last
CHUNK = 1 << 20
TRIES = 20
PEM, KEY = b"-----BEGIN", b"PRIVATE KEY-----"
IN_BUCKET = "let the bucket keep versions"
PGDUMP = b"PGDMP"  #: with which a dump begins
WHY_KEY = "a private key; --keys takes it in"
#: Read before the rest of their folder, which then is never behind what they say of it.
FIRST = ("countersigned", "resume", "timestamp.json", "state")
_GONE = {errno.ENOENT, errno.ESTALE}

Progress = Callable[[int, int], None]  #: bytes done, bytes in all


@dataclass
class Held:
    """A file as it was at the moment of the backup; bytes are in ``data``, ``moment`` or on the disk."""

    at: str
    path: Path
    status: os.stat_result
    size: int
    key: bool = False
    data: bytes | None = None
    moment: Moment | None = None
    fd: int = -1


@dataclass
class Holding:
    """Everything that goes into one backup."""

    files: list[Held] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(held.size for held in self.files)


@dataclass(frozen=True)
class Done:
    """A backup that was made. ``digest``: SHA-256 of its manifest; ``size``: bytes of the files in it."""

    file: Path
    manifest: Manifest
    digest: str
    size: int


def back_up(
    place: Place, file: Path, keys: bool, progress: Progress, now: float, dump: Path | None = None
) -> Done:
    """Write the backup of a place. Raises `NotUsable`, `DiskFull`, `Corrupted`; then there is no file.

    ``dump``: what pg_dump wrote of a cloud's database just before; needed where it has one.
    """
    found, named = roots(place)
    found += [Root(_checked(place, file, dump), f"{STATE}/{DUMP}")] if served(place) or dump else []
    real = file.parent.resolve() / file.name
    for root in found:
        if real.is_relative_to(root.path):
            raise NotUsable(f"{file} lies in {root.path}, which is to be backed up", "Name a file elsewhere.")
    with ExitStack() as stack:
        archive = stack.enter_context(writing(file, 0o600))
        marks = marks_of(place.state, place.trust, place.values.get("database", ""))
        holding = hold(found, keys, stack)
        if store := place.values.get("store", ""):
            holding.left_out.append(LeftOut("state/blobs", f"models and bundles are in {store}; {IN_BUCKET}"))
        taken = tuple(_copied(archive, holding, progress))
        manifest = Manifest(
            format=FORMAT,
            made=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            version=reuna.__version__,
            kind=place.kind,
            name=place.values["name"],
            fleet=place.values["fleet"],
            named=tuple(named),
            folders=tuple(holding.folders),
            files=taken,
            left_out=tuple(holding.left_out),
            marks=marks,
        )
        archive.finish(manifest)
    return Done(file, manifest, archive.digest, sum(each.size for each in taken))


def served(place: Place) -> bool:
    """Whether the place keeps its tables on a server."""
    return bool(place.values.get("database", ""))


def _checked(place: Place, file: Path, dump: Path | None) -> Path:
    """The dump, which is one. Raises `NotUsable` where the backup would be half of the place."""
    if not served(place):
        raise NotUsable("this place keeps its tables in its folder: there is no dump", "Leave --dump out.")
    if dump is None:
        url = place.values["database"]
        raise NotUsable(
            "the tables of this cloud are in a PostgreSQL server: its folder alone would be half a backup",
            f"pg_dump --format=custom --file=reuna.dump '{url}' && "
            f"reuna backup {place.file} {file} --dump reuna.dump",
        )
    try:
        with dump.open("rb") as opened:
            if opened.read(len(PGDUMP)) == PGDUMP:
                return dump.absolute()
    except OSError as error:
        raise storage_error(error, dump) from error
    raise NotUsable(f"{dump} is no dump in the custom format", "Make it with pg_dump --format=custom.")


# --- holding ---------------------------------------------------------------------------------------


def hold(found: list[Root], keys: bool, stack: ExitStack) -> Holding:
    """Hold everything below ``found``; ``stack`` lets it go. Raises `NotUsable`, `Corrupted`."""
    moments = _moments(found[0].path, stack)
    for _ in range(TRIES):
        with ExitStack() as trial:
            holding = _hold(found, keys, moments, trial)
            if _is_steady(holding):
                stack.push(trial.pop_all())
                return holding
    raise NotUsable(f"{found[0].path} changes faster than it can be read", "Stop the place and try again.")


def _moments(state: Path, stack: ExitStack) -> dict[Path, Moment]:
    """Every database of the state folder, the journal first."""
    found = sorted(path for path in state.rglob("*") if _may_be_database(path))
    found.sort(key=lambda path: path != state / JOURNAL)
    moments = {}
    for path in found:
        moments[path] = Moment.of(path)
        stack.callback(moments[path].close)
    return moments


def _may_be_database(path: Path) -> bool:
    return path.suffix in {".sqlite", ".db"} and path.is_file() and is_database(path)


def _hold(found: list[Root], keys: bool, moments: dict[Path, Moment], stack: ExitStack) -> Holding:
    holding, own = Holding(), {root.path for root in found}
    for root in found:
        if not os.path.lexists(root.path):
            holding.left_out.append(LeftOut(root.at, "it is not there"))
            continue
        _folders_above(root.at, holding)
        entries = list(_walk(root.path, root.at, own - {root.path}, holding))
        entries.sort(key=lambda each: (each[0].parent, each[0].name not in FIRST))
        newest = _newest([path for path, _, _ in entries])
        for path, at, status in entries:
            held = _held(path, at, status, moments, path in newest)
            if held is None:
                continue
            held.key = root.secret or path.name == DATA_KEY or _is_key(held.data)
            if held.key and not keys:
                holding.left_out.append(LeftOut(at, WHY_KEY, key=True))
            else:
                holding.files.append(held)
    _keep_open(holding, stack)
    holding.files.sort(key=lambda each: each.at)
    return holding


def _folders_above(at: str, holding: Holding) -> None:
    """The folder ``named`` is ours alone: no place has it."""
    above = at.rpartition("/")[0]
    if above and above not in {folder.path for folder in holding.folders}:
        holding.folders.append(Folder(above, 0o700))


def _walk(
    path: Path, at: str, others: set[Path], holding: Holding
) -> Iterator[tuple[Path, str, os.stat_result]]:
    """Plain files below ``path``; its folders go to ``holding``. Raises `NotUsable`, `Corrupted`."""
    try:
        status = path.lstat()
        names = sorted(os.listdir(path)) if stat.S_ISDIR(status.st_mode) else []
    except OSError as error:
        if error.errno in _GONE:
            return
        raise storage_error(error, path) from error
    why = made_again(at)
    if path in others or why is not None:
        if why:
            holding.left_out.append(LeftOut(at, why))
        return
    if wrong := check_path(at):
        raise NotUsable(f"{path} cannot be in a backup: {wrong}", "Rename it.")
    if stat.S_ISLNK(status.st_mode):
        raise NotUsable(f"{path} is a link", "Name the folder itself in the settings, or remove the link.")
    if stat.S_ISREG(status.st_mode):
        yield path, at, status
    elif stat.S_ISDIR(status.st_mode):
        holding.folders.append(Folder(at, stat.S_IMODE(status.st_mode) & 0o777, *_owner(status)))
        for name in names:
            yield from _walk(path / name, f"{at}/{name}", others, holding)
    else:
        holding.left_out.append(LeftOut(at, "no file: a socket, pipe or device"))


def _newest(paths: list[Path]) -> set[Path]:
    """The last file of each ledger: the others do not change any more."""
    found: dict[Path, Path] = {}
    for path in paths:
        if FILE.fullmatch(path.name):
            found[path.parent] = max(path, found.get(path.parent, path))
    return set(found.values())


def _held(
    path: Path, at: str, status: os.stat_result, moments: dict[Path, Moment], is_growing: bool
) -> Held | None:
    """None for a file that was removed meanwhile. Raises `NotUsable`, `Corrupted`."""
    held = Held(at, path, status, status.st_size)
    try:
        if path in moments:
            held.moment = moments[path]
            held.size = held.moment.size
        elif is_growing:
            held.data = _whole_records(path.read_bytes())
        elif path.name == "audit.jsonl":
            held.size = whole_lines(path)
        elif status.st_size <= SMALL:
            held.data = path.read_bytes()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise storage_error(error, path) from error
    if held.data is not None:
        held.size = len(held.data)
    return held


def _is_key(data: bytes | None) -> bool:
    """Whether a file is PEM with a private key in it."""
    return data is not None and data.lstrip()[: len(PEM)] == PEM and KEY in data


def _whole_records(data: bytes) -> bytes:
    """Without the record that is being written, or that a crash cut; other damage stays, as evidence."""
    rest = ledger.split(data).rest
    whole = len(data) - len(rest)
    return data[:whole] if rest and ledger.is_torn(rest, whole) else data


def whole_lines(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        while at > 0:
            step = min(at, SMALL)
            at = file.seek(at - step)
            end = file.read(step).rfind(b"\n")
            if end >= 0:
                return at + end + 1
    return 0


def _keep_open(holding: Holding, stack: ExitStack) -> None:
    """Files that the place may remove or write over: bodies and models of rounds."""
    loose = [held for held in holding.files if held.data is None and held.moment is None]
    loose.sort(key=lambda held: held.status.st_mtime_ns, reverse=True)
    for held in loose[:HELD]:
        try:
            held.fd = os.open(held.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno not in _GONE:
                raise storage_error(error, held.path) from error
            holding.files.remove(held)
        else:
            stack.callback(os.close, held.fd)


def _is_steady(holding: Holding) -> bool:
    """Whether the files that speak of their whole folder are those that were read."""
    for held in holding.files:
        if held.path.name in FIRST:
            try:
                now = held.path.stat()
            except OSError:
                return False
            if (now.st_ino, now.st_mtime_ns) != (held.status.st_ino, held.status.st_mtime_ns):
                return False
    return True


# --- copying ---------------------------------------------------------------------------------------


def _copied(archive: ArchiveWriter, holding: Holding, progress: Progress) -> Iterator[Taken]:
    done, total = 0, holding.size

    def tell(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for held in holding.files:
        try:
            digest = archive.add(_blocks(held, archive.work, tell), held.size)
        except EOFError as error:
            raise Corrupted(f"{held.path} became shorter while it was copied", "Try again.") from error
        mode = 0o600 if held.key else stat.S_IMODE(held.status.st_mode) & 0o777
        yield Taken(held.at, held.size, digest, mode, *_owner(held.status), key=held.key)


def _blocks(held: Held, work: Path, tell: Callable[[int], None]) -> Iterator[bytes]:
    """A file's bytes, as many as were held. Raises `NotUsable`, `Corrupted`, `DiskFull`."""
    if held.data is not None:
        tell(held.size)
        yield held.data
        return
    if held.moment is not None:
        copy = work / "database"
        try:
            held.moment.copy(copy, tell)
            yield from _read(copy, -1, held.size)
        finally:
            copy.unlink(missing_ok=True)
        return
    for block in _read(held.path, held.fd, held.size):
        tell(len(block))
        yield block


def _read(path: Path, fd: int, size: int) -> Iterator[bytes]:
    own = fd < 0
    try:
        if own:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        at = 0
        while at < size and (block := os.pread(fd, min(CHUNK, size - at), at)):
            at += len(block)
            yield block
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        if own and fd >= 0:
            os.close(fd)


def _owner(status: os.stat_result) -> tuple[str, str]:
    """Names of a file's user and group, empty where this machine has none."""
    try:
        user = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        user = ""
    try:
        return user, grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return user, ""
