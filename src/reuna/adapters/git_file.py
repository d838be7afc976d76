"""A file as it stood in a revision of a git repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from reuna.core.errors import SettingsError

WAIT_S = 30.0


def file_at(folder: Path, revision: str, name: str) -> bytes:
    """The file ``name`` of a folder in a revision.

    Raises `SettingsError` when git is not there, or there is no such revision or file in it.
    """
    asked = ["git", "-C", str(folder), "show", "--end-of-options", f"{revision}:./{name}"]
    try:
        done = subprocess.run(asked, capture_output=True, timeout=WAIT_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"git cannot be asked for {revision!r}: {error}", "Name two files.") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise SettingsError(
            f"{revision!r} is no file, and no revision of {folder.absolute()} with {name}: {said}",
            "Name a file, a project's folder, or a git revision such as HEAD~1 or main.",
        )
    return done.stdout
