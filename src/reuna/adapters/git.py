"""A project in a git repository: its commit, the files of that commit, what differs here, whence it came.

Content is read from git's own objects, so neither what lies in the folder nor a filter, an attribute or the
machine's settings change it. Asks the ``git`` command; no hook and no replacement object has a say.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from reuna.core.errors import ProjectError
from reuna.core.foreign import shown

WAIT_S = 60.0
SYMLINK, SUBMODULE = "120000", "160000"
#: What a hook of git's own hands to its children: it would send us to another repository.
_NOT_OURS = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
)
_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>[^@/:]{2,}):(?P<path>(?!:)\S+)")


@dataclass(frozen=True)
class Checkout:
    """``folder`` lies at ``path`` of its repository ('' is the top); ``commit`` is hexadecimal."""

    folder: Path
    path: str
    commit: str


@dataclass(frozen=True)
class Listed:
    """A file of a commit; ``name`` is its path within the project, ``id`` git's own, ``size`` in bytes."""

    name: str
    mode: str
    id: str
    size: int


def open_checkout(folder: Path, revision: str = "HEAD") -> Checkout:
    """The repository that a project lies in, at a revision.

    Raises `ProjectError`: no git, no repository, no such commit.
    """
    path = _line(_git(folder, "rev-parse", "--show-prefix")).removesuffix("/")
    asked = _run(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if asked.returncode:
        said = "has no commit yet" if revision == "HEAD" else f"has no commit {shown(revision, 80)}"
        raise ProjectError(f"the repository of {folder.absolute()} {said}", "Commit the project first.")
    return Checkout(folder, path, _line(asked.stdout))


def listing(checkout: Checkout) -> list[Listed]:
    """Every file of the project at the commit, sorted.

    Raises `ProjectError`: the project is not in it, or a name is not UTF-8.
    """
    tree = f"{checkout.commit}:{checkout.path}"
    asked = _run(checkout.folder, "ls-tree", "-r", "-l", "-z", "--full-tree", tree)
    if asked.returncode:
        raise ProjectError(
            f"commit {checkout.commit[:12]} has no folder {checkout.path}", "Commit the project first."
        )
    return [_listed(row) for row in asked.stdout.split(b"\0") if row]


def contents(checkout: Checkout, files: Iterable[Listed]) -> dict[str, bytes]:
    """The files' bytes by name, as they were committed. Raises `ProjectError`."""
    wanted = list(files)
    asked = "".join(f"{each.id}\n" for each in wanted).encode()
    data = _git(checkout.folder, "cat-file", "--batch", given=asked)
    found, at = {}, 0
    for each in wanted:
        head = f"{each.id} blob {each.size}\n".encode()
        begin = at + len(head)
        if data[at:begin] != head or len(data) < begin + each.size + 1:
            raise ProjectError(f"git does not hand out {each.name} of {checkout.commit[:12]}", _LOOK)
        found[each.name] = data[begin : begin + each.size]
        at = begin + each.size + 1
    return found


def file_at(folder: Path, revision: str, name: str) -> bytes:
    """One file of the project as it stood in a revision. Raises `ProjectError`: no such revision or file."""
    checkout = open_checkout(folder, revision)
    found = [each for each in listing(checkout) if each.name == name]
    if not found:
        raise ProjectError(
            f"commit {checkout.commit[:12]} of {folder.absolute()} has no {name}", "Name another revision."
        )
    return contents(checkout, found)[name]


def changes(checkout: Checkout, untracked: bool = True) -> list[str]:
    """Paths within the project that are not as committed, or with ``untracked`` not in git (nor ignored)."""
    others = f"--untracked-files={'all' if untracked else 'no'}"
    rows = _git(checkout.folder, "status", "--porcelain=v1", "-z", "--no-renames", others, "--", ".")
    names = [os.fsdecode(row[3:]) for row in rows.split(b"\0") if row]
    prefix = f"{checkout.path}/" if checkout.path else ""
    return sorted(name.removeprefix(prefix) for name in names)


def remote(checkout: Checkout) -> str:
    """Whence others could fetch the repository: origin's address as ``git+https://…``, '' without one.

    Neither a name, a password, a query nor a path of this machine is in it.
    """
    asked = _run(checkout.folder, "config", "--get", "remote.origin.url")
    return "" if asked.returncode else public_address(os.fsdecode(asked.stdout).rstrip("\n"))


def public_address(url: str) -> str:
    """A remote's address without anything that is nobody else's business.

    >>> public_address("https://anna:secret@git.example.org:8443/line/pump.git?token=1")
    'git+https://git.example.org:8443/line/pump.git'
    >>> public_address("git@git.example.org:line/pump.git")
    'git+ssh://git.example.org/line/pump.git'
    >>> public_address("../pump.git"), public_address("file:///srv/pump.git")
    ('', '')
    """
    if "://" not in url:
        match = _SCP.fullmatch(url)
        return f"git+ssh://{match['host']}/{match['path'].lstrip('/')}" if match else ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in {"https", "http", "ssh", "git"} or not parts.netloc:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((f"git+{parts.scheme}", host, parts.path, "", "")) if host else ""


_LOOK = "Look with `git fsck` whether the repository is whole."


def _listed(row: bytes) -> Listed:
    about, _, name = row.partition(b"\t")
    mode, _, number, size = about.decode("ascii").split()
    try:
        return Listed(name.decode("utf-8"), mode, number, 0 if size == "-" else int(size))
    except UnicodeDecodeError as error:
        raise ProjectError(f"the file name {shown(name, 80)} is not UTF-8", "Rename the file.") from error


def _line(data: bytes) -> str:
    return os.fsdecode(data).rstrip("\n")


def _git(folder: Path, *words: str, given: bytes = b"") -> bytes:
    done = _run(folder, *words, given=given)
    if done.returncode:
        said = next(iter(done.stderr.decode(errors="replace").strip().splitlines()), "no reason given")
        raise ProjectError(
            f"git in {folder.absolute()}: {said}", "A build is made of a commit: `git init`, commit."
        )
    return done.stdout


def _run(folder: Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Raises `ProjectError` when there is no git, or it does not end."""
    command = ["git", "--no-replace-objects", "-c", "core.fsmonitor=false", "-C", str(folder), *words]
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    environ = {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            command, input=given, capture_output=True, env=environ, timeout=WAIT_S, check=False
        )
    except ValueError as error:
        raise ProjectError(
            f"git cannot be asked for {shown(words[-1], 80)}: {error}", "Name it otherwise."
        ) from error
    except FileNotFoundError as error:
        raise ProjectError("git is not installed here", "Install git.") from error
    except subprocess.TimeoutExpired as error:
        raise ProjectError(f"git in {folder.absolute()} did not end within {WAIT_S:.0f} s", _LOOK) from error
