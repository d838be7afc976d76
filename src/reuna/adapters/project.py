"""A user's project: its code loaded, its folder packed into a bundle and unpacked again.

A project is a folder with ``reuna.toml`` and Python modules. The entry module has

    load(folder: Path, settings: Mapping) -> data        this node's own data, however it likes
    learner(settings: Mapping) -> Learner                four methods, see reuna.core.ports

A bundle is a zip of the project's code with fixed order and times and without compression, so equal
code gives equal bytes, whatever zlib there is. It holds no data, and not ``reuna.toml``: settings travel
in the signed plan, so that code which a site has approved stays approved when only they change.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import stat
import struct
import sys
import tokenize
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from reuna.adapters.processes import silence_makers
from reuna.core.contract import contract
from reuna.core.errors import DiskFull, LearnerError, ProjectError, ReunaError
from reuna.core.foreign import shown
from reuna.core.ports import Learner
from reuna.core.records import Setting

if TYPE_CHECKING:  # who unpacks a bundle has no use for numpy
    from reuna.adapters.tables import Table

CODE = (".py", ".toml", ".json")
CONFIGURATION = "reuna.toml"  #: at the top of the project
SKIPPED = ("data", "runs", "dist", "build", "node_modules", "__pycache__", "tests", "venv")
#: What our own commands write at the top of a project: a model's release must not make its code another.
WRITTEN = ("releases", "evidence", "trust", "trust-seen")
MAX_FILE = 1 << 20  #: bytes of one file in a bundle
MAX_TOTAL = 16 << 20  #: bytes of all files in a bundle
MAX_FILES = 1000
_TIME = (1980, 1, 1, 0, 0, 0)
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
FULL = (errno.ENOSPC, errno.EDQUOT)
_UNIX = 3  # "made on", in a zip's entry: the same on every machine
#: What a damaged zip makes the standard library raise.
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error)
#: Projects this process has put on ``sys.path``: as much state as ``sys.path`` itself is.
_on_path: list[str] = []


Load = Callable[[Path, Mapping[str, Setting]], Any]


@dataclass(frozen=True)
class Entry:
    """The two functions a project offers.

    ``load`` looks first whether the node's tables keep the contract, and raises `ContractBroken`;
    ``load_judged`` is the project's own, for who has looked already.
    """

    load: Load
    load_judged: Load
    learner: Callable[[Mapping[str, Setting]], Learner]

    def load_stuck(self, folder: Path, settings: Mapping[str, Setting], sensor: str) -> tuple[Any, bool]:
        """The node's data as if a sensor had stopped, and whether any table has that sensor."""
        from reuna.adapters.tables import stuck

        with stuck(sensor) as tables:
            return self.load_judged(folder, settings), bool(tables)

    def load_instead(self, folder: Path, settings: Mapping[str, Setting], tables: Iterable[Table]) -> Any:
        """The node's data with these tables in place of the files at their paths."""
        from reuna.adapters.tables import instead

        with instead(tables):
            return self.load_judged(folder, settings)


def load_entry(folder: Path, entry: str) -> Entry:
    """Import the project's entry module, afresh. Raises `ProjectError` that names file and line.

    A process works on one project at a time: modules of the one loaded before are forgotten, so two
    projects may name theirs alike.
    """
    if not _ENTRY.fullmatch(entry):
        raise ProjectError(
            f"learner.entry is {entry!r}, which is no name of a module",
            'Write it as in `entry = "detector.model"`.',
        )
    _forget_modules(_on_path)
    place = str(folder.resolve())
    _on_path.append(place)
    sys.path.insert(0, place)
    importlib.invalidate_caches()
    silence_makers()  # whatever the project's code imports
    with blame_project(folder, f"importing {entry}", ProjectError):
        module = _import(folder, entry)
    missing = [name for name in ("load", "learner") if not callable(getattr(module, name, None))]
    if missing:
        raise ProjectError(
            f"{entry} has no function {' and no function '.join(missing)}",
            "Define load(folder, settings) and learner(settings) there; see docs/reference/learner.md.",
        )
    return Entry(_checked(module.load), module.load, module.learner)


def _checked(load: Load) -> Load:
    """The project's ``load`` behind a look at the node's tables: do they keep the contract?"""

    def checked(folder: Path, settings: Mapping[str, Setting]) -> Any:
        from reuna.adapters.conformity import judge_folder

        agreed = contract(settings)
        judge_folder(folder, agreed).refuse(agreed)
        return load(folder, settings)

    return checked


def _import(folder: Path, entry: str) -> ModuleType:
    try:
        return importlib.import_module(entry)
    except ModuleNotFoundError as error:
        name = error.name or entry
        if name == entry or entry.startswith(f"{name}."):
            raise ProjectError(
                f"learner.entry is {entry!r}, but there is no such module in {folder}",
                "Correct `entry` under [learner] in reuna.toml.",
            ) from error
        raise ProjectError(
            f"importing {entry}: {_where(folder, error)}: there is no module {name!r}",
            f"Install it where the node runs, or correct the import of {name!r}.",
        ) from error


def _forget_modules(places: list[str]) -> None:
    """Take projects off ``sys.path`` and their modules out of ``sys.modules``."""
    while places:
        place = places.pop()
        if place in sys.path:
            sys.path.remove(place)
        for name, module in list(sys.modules.items()):
            if _lies_in(getattr(module, "__file__", None), place) or _lies_in(_first_path(module), place):
                del sys.modules[name]


def _first_path(module: ModuleType) -> str | None:
    """Where a package without ``__init__.py`` lies; some modules have something else by that name."""
    path = getattr(module, "__path__", None)
    return next(iter(path), None) if isinstance(path, Iterable) else None


def _lies_in(path: str | None, place: str) -> bool:
    return path is not None and path.startswith(place + os.sep)


@contextmanager
def blame_project(folder: Path, doing: str, kind: type[ReunaError] = LearnerError) -> Iterator[None]:
    """Whatever the project's code raises becomes an error that names its file and line."""
    try:
        yield
    except ReunaError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"{doing}: no space left on the device") from error
        raise _blamed(folder, doing, kind, error) from error
    except (Exception, SystemExit) as error:  # project code may raise anything; this is the one place for it
        raise _blamed(folder, doing, kind, error) from error


def _blamed(folder: Path, doing: str, kind: type[ReunaError], error: BaseException) -> ReunaError:
    return kind(f"{doing}: {_where(folder, error)}: {type(error).__name__}: {error}")


def _where(folder: Path, error: BaseException) -> str:
    """``file.py:line`` of the innermost frame of the project, else of the innermost at all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_within(folder, error.filename)}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    places = {str(folder.absolute()), str(folder.resolve())}
    own = [frame for frame in frames if any(_lies_in(frame.filename, place) for place in places)]
    frame = (own or list(frames))[-1]
    return f"{_within(folder, frame.filename)}:{frame.lineno}"


def _within(folder: Path, file: str) -> str:
    """The file as seen from the project, or its bare name."""
    path = Path(file)
    for place in (folder.absolute(), folder.resolve()):
        if path.is_relative_to(place):
            return path.relative_to(place).as_posix()
    return path.name


def pack_bundle(folder: Path) -> bytes:
    """The project's code as a zip; equal code gives equal bytes. Raises `ProjectError` as `pack_code`."""
    return pack_code(read_code(folder))


def read_code(folder: Path) -> dict[str, bytes]:
    """The project's code by its path within the folder. Raises `ProjectError` for what is too large."""
    found = {path.relative_to(folder).as_posix(): path for path in _code_files(folder)}
    code = {name: path for name, path in found.items() if name != CONFIGURATION}
    check_sizes({name: path.stat().st_size for name, path in code.items()})
    return {name: path.read_bytes() for name, path in code.items()}


def pack_code(files: Mapping[str, bytes]) -> bytes:
    """Code by its path within the project, as a bundle.

    Raises `ProjectError` for a file, or all files together, over what a bundle holds, for a file that is
    not UTF-8 and for a name that no bundle may hold.
    """
    check_sizes({name: len(content) for name, content in files.items()})
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as bundle:
        for name in sorted(files, key=lambda name: PurePosixPath(name).parts):
            if not _may_be_held(name):
                raise ProjectError(f"{shown(name)} is no name for a file of code", "Rename it.")
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = _UNIX
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = zipfile.ZIP_STORED
            source_text(name, files[name])
            bundle.writestr(info, files[name])
    if out.tell() > MAX_TOTAL:
        raise ProjectError(f"the bundle has {out.tell()} bytes, over {MAX_TOTAL}", _MOVE_OUT)
    return out.getvalue()


_MOVE_OUT = "Move what is not code out of the project, or into its folder `data`, which stays here."


def check_sizes(sizes: Mapping[str, int]) -> None:
    """Bytes of each file of code. Raises `ProjectError` for what a bundle does not hold."""
    large = sorted(name for name, size in sizes.items() if size > MAX_FILE)
    if large:
        raise ProjectError(f"{large[0]} has {sizes[large[0]]} bytes, over the limit of {MAX_FILE}", _MOVE_OUT)
    total = sum(sizes.values())
    if total > MAX_TOTAL or len(sizes) > MAX_FILES:
        raise ProjectError(
            f"the project has {len(sizes)} code files of {total} bytes, over {MAX_FILES} or {MAX_TOTAL}",
            _MOVE_OUT,
        )


def _code_files(folder: Path) -> Iterator[Path]:
    return (path for path in _walk(folder) if path.suffix in CODE and not path.is_symlink())


def links(folder: Path) -> list[str]:
    """Symbolic links where code may lie, by their path in the folder: `pack_bundle` passes over them."""
    return sorted(path.relative_to(folder).as_posix() for path in _walk(folder) if path.is_symlink())


def _walk(folder: Path, skipped: tuple[str, ...] = (*SKIPPED, *WRITTEN)) -> Iterator[Path]:
    """Files and links where code may lie."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_symlink() or not path.is_dir():
            yield path
        elif path.name not in skipped:
            yield from _walk(path, SKIPPED)


def is_looked_at(name: str) -> bool:
    """Whether a path of a project lies where code may lie: not in what is hidden, `SKIPPED` or `WRITTEN`."""
    *folders, last = PurePosixPath(name).parts
    if folders[:1] and folders[0] in WRITTEN:
        return False
    return not (last.startswith(".") or any(f.startswith(".") or f in SKIPPED for f in folders))


def is_code(name: str) -> bool:
    """Whether the file at a path of a project goes into its bundle: the rule of `pack_bundle`."""
    return is_looked_at(name) and PurePosixPath(name).suffix in CODE and name != CONFIGURATION


def source_text(name: str, content: bytes) -> str:
    """A file of a bundle as everybody reads it, UTF-8. Raises `ProjectError`.

    A line `coding: utf-7` would have Python run another text than an officer is shown.
    """
    again = f"Save {name} as UTF-8, without a line that names another coding."
    try:
        coding = (
            tokenize.detect_encoding(io.BytesIO(content).readline)[0] if name.endswith(".py") else "utf-8"
        )
        text = content.decode("utf-8")
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ProjectError(f"{name} is not UTF-8: {error}", again) from error
    if coding not in {"utf-8", "utf-8-sig"}:
        raise ProjectError(f"{name} says that its coding is {coding}, not UTF-8", again)
    return text


def unpack_bundle(data: bytes, into: Path) -> None:
    """Write a bundle's files below ``into``. Raises `ProjectError` for anything but a bundle of ours.

    Nothing is written before every name and size was judged; what a file turns out to hold over
    its announced size is an error too. Raises `DiskFull`.
    """
    if len(data) > MAX_TOTAL:
        raise ProjectError("the bundle is larger than a bundle may be")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            infos = bundle.infolist()
            if len(infos) > MAX_FILES or sum(info.file_size for info in infos) > MAX_TOTAL:
                raise ProjectError("the bundle is larger than a bundle may be")
            if len({info.filename for info in infos}) < len(infos):
                raise ProjectError("the bundle holds a file twice, which no bundle of ours does")
            for info in infos:
                _check_info(info)
            for info in infos:
                _unpack_one(bundle, info, into)
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise DiskFull(f"no space left for the project in {into}") from error
        raise ProjectError(f"the bundle cannot be unpacked: {error}", "Pack it again.") from error


def _check_info(info: zipfile.ZipInfo) -> None:
    """A plain file of code, by a name that stays inside, and of a size that a bundle's file may have."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    strange = (
        not _may_be_held(info.filename)
        or kind not in {0, stat.S_IFREG}
        or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    )
    if strange:
        raise ProjectError(f"the bundle holds {info.filename!r}, which no bundle of ours does")
    if info.file_size > MAX_FILE:
        raise ProjectError(f"{info.filename} in the bundle is larger than a file of a bundle may be")


def _may_be_held(name: str) -> bool:
    path = PurePosixPath(name)
    strange = path.is_absolute() or ".." in path.parts or any(letter in name for letter in "\\:\0")
    return not strange and path.suffix in CODE and all(not "\ud800" <= letter <= "\udfff" for letter in name)


def _unpack_one(bundle: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path) -> None:
    target = into / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with bundle.open(info) as source:
        content = source.read(MAX_FILE + 1)
    if len(content) != info.file_size:
        raise ProjectError(f"{info.filename} in the bundle has not the size it says")
    source_text(info.filename, content)
    target.write_bytes(content)
