"""A small project in a real git repository."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

SETTINGS = '[project]\nname = "pump"\n[strategy]\nrounds = 3\n[train]\nrate = 0.5\n'
LOCK = f"numpy==2.1.0 \\\n    --hash=sha256:{'ab' * 32}\n"
FILES: dict[str, str | bytes] = {
    "reuna.toml": SETTINGS,
    "requirements.lock": LOCK,
    "README.md": "a pump\n",
    "detector/__init__.py": "",
    "detector/model.py": "import numpy\n",
    "tests/test_model.py": "assert True\n",
}
_OURS = ("-c", "user.name=anna", "-c", "user.email=anna@example.org", "-c", "commit.gpgsign=false")
#: Neither who runs the tests nor how their git is set up has a say.
_ENVIRON = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder: Path, *words: str) -> str:
    """What git says."""
    done = subprocess.run(
        ["git", "-C", str(folder), *_OURS, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **_ENVIRON},
    )
    return done.stdout.strip()


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def commit(folder: Path, files: Mapping[str, str | bytes]) -> str:
    """Write the files and commit all there is; the commit's id."""
    write(folder, files)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "a change")
    return git(folder, "rev-parse", "HEAD")


def repository(folder: Path, files: Mapping[str, str | bytes] | None = None) -> Path:
    """A new repository with one commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "-b", "main", ".")
    commit(folder, FILES if files is None else files)
    return folder
