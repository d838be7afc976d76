"""A new project's git repository: made with its first commit, where git is and no repository is around."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BRANCH = "main"
TIMEOUT_S = 60.0


def begin_repository(folder: Path, message: str) -> str:
    """Make a repository of the folder and commit all that is not ignored. Returns why not, or ''.

    Nothing is changed in a repository that is around the folder already.
    """
    if shutil.which("git") is None:
        return "git is not installed, so no repository was made"
    try:
        around = _git(folder, "rev-parse", "--show-toplevel")
        if around.returncode == 0:
            return f"the folder lies in the repository {around.stdout.strip()}, so nothing was committed"
        for words in (
            ("init", "--quiet"),
            ("symbolic-ref", "HEAD", f"refs/heads/{BRANCH}"),  # `init -b` is not in every git
            ("add", "--all"),
            ("commit", "--quiet", "--message", message),
        ):
            done = _git(folder, *words)
            if done.returncode:
                said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
                return f"git {words[0]} failed ({said[-1]}), so there is no first commit"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"git does not answer ({error}), so there is no first commit"
    return ""


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(folder), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
