"""A user's project: its code loaded, its folder packed into a bundle and unpacked again.

A project is a folder with ``reuna.toml`` and Python modules. The entry module has

    load(folder: Path, settings: Mapping) -> data        this node's own data, however it likes
    learner(settings: Mapping) -> Learner                four methods, see reuna.core.ports

A bundle is a zip of the project's code and configuration with fixed order and times, so equal
projects give equal bytes. It holds no data.
"""

from __future__ import annotations

import importlib
import io
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from reuna.core.errors import LearnerError, ProjectError, ReunaError
from reuna.core.ports import Learner
from reuna.core.records import Setting

CODE = (".py", ".toml", ".json")
SKIPPED = ("data", "runs", "dist", "build", "node_modules", "__pycache__", "tests", "venv")
MAX_FILE = 1 << 20  #: bytes of one file in a bundle
MAX_TOTAL = 16 << 20  #: bytes of all files in a bundle
MAX_FILES = 1000
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Entry:
    """The two functions a project offers."""

    load: Callable[[Path, Mapping[str, Setting]], Any]
    learner: Callable[[Mapping[str, Setting]], Learner]


def load_entry(folder: Path, entry: str) -> Entry:
    """Import the project's entry module. Raises `ProjectError` that names file and line."""
    place = str(folder.absolute())
    if place not in sys.path:
        sys.path.insert(0, place)
    with blame_project(folder, f"importing {entry}", ProjectError):
        module = importlib.import_module(entry)
    missing = [name for name in ("load", "learner") if not callable(getattr(module, name, None))]
    if missing:
        raise ProjectError(f"{entry} has no function {' and no function '.join(missing)}")
    return Entry(module.load, module.learner)


@contextmanager
def blame_project(folder: Path, doing: str, kind: type[ReunaError] = LearnerError) -> Iterator[None]:
    """Whatever the project's code raises becomes an error that names its file and line."""
    try:
        yield
    except ReunaError:
        raise
    except Exception as error:  # project code may raise anything; this is the one place for it
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename.startswith(str(folder.absolute()))]
        frame = (own or frames)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        raise kind(f"{doing}: {where}: {type(error).__name__}: {error}") from error


def pack_bundle(folder: Path) -> bytes:
    """The project's code and configuration as a zip; equal projects give equal bytes."""
    files = sorted(_code_files(folder, folder))
    total = sum(path.stat().st_size for path in files)
    if total > MAX_TOTAL or len(files) > MAX_FILES:
        raise ProjectError(
            f"{folder} has {len(files)} code files of {total} bytes, a bundle holds {MAX_FILES} and {MAX_TOTAL}",
            "Move what is not code out of the project folder.",
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in files:
            info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _TIME)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            bundle.writestr(info, path.read_bytes())
    return out.getvalue()


def _code_files(folder: Path, root: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            if path.name not in SKIPPED:
                yield from _code_files(path, root)
        elif path.suffix in CODE and path.stat().st_size <= MAX_FILE:
            yield path


def unpack_bundle(data: bytes, into: Path) -> None:
    """Write a bundle's files below ``into``. Raises `ProjectError` for anything but a bundle of ours."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as bundle:
            infos = bundle.infolist()
            if len(infos) > MAX_FILES or sum(info.file_size for info in infos) > MAX_TOTAL:
                raise ProjectError("the bundle is larger than a bundle may be")
            for info in infos:
                _unpack_one(bundle, info, into)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
        raise ProjectError(f"the bundle cannot be unpacked: {error}", "Pack it again.") from error


def _unpack_one(bundle: zipfile.ZipFile, info: zipfile.ZipInfo, into: Path) -> None:
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename or path.suffix not in CODE:
        raise ProjectError(f"the bundle holds {info.filename!r}, which no bundle of ours does")
    target = into / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with bundle.open(info) as source:
        content = source.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ProjectError(f"{info.filename} in the bundle is larger than it says")
    target.write_bytes(content)
