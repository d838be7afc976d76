"""A forge in a folder: a bare repository whose hook starts the runner, and somebody's clone of it.

    forge = Forge.make(folder, project)            # project: a repository of one commit or more
    pushed = forge.push({"reuna.toml": text})      # commit in the clone, git push, the pipeline runs
    pushed.failed, pushed.output, pushed.steps

`settings.json` holds the variables that a forge's owner sets for a project.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drills.pushing.runner import BRANCH, kept_of, record_of

ROOT = Path(__file__).parents[2]  #: where `drills` and `reuna` are found from
WHO = ("-c", "user.name=anna", "-c", "user.email=anna@example.org", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class Pushed:
    """What became of a push. ``began``, ``ended``: seconds since 1970; ``output``: what git showed.

    ``kept``: the folder with what its jobs kept.
    """

    commit: str
    kept: Path
    began: float
    ended: float
    output: str
    failed: str
    jobs: tuple[Mapping[str, Any], ...]

    def ended_at(self, begin: str) -> float:
        """When the step that begins with these words was done. Raises `LookupError`."""
        for job in self.jobs:
            for step in job["steps"]:
                if step["line"].startswith(begin):
                    return float(step["began"] + step["seconds"])
        raise LookupError(begin)


@dataclass(frozen=True)
class Forge:
    """Folder of a bare repository, and of the clone that is pushed from."""

    bare: Path
    clone: Path

    @classmethod
    def make(cls, folder: Path, project: Path, settings: Mapping[str, str] | None = None) -> Forge:
        """``project`` becomes the clone; its bare clone gets the hook."""
        folder.mkdir(parents=True)
        bare = folder / f"{project.name}.git"
        git(folder, "clone", "--quiet", "--bare", str(project), str(bare))
        git(project, "remote", "add", "origin", str(bare))
        (bare / "settings.json").write_text(json.dumps(dict(settings or {})), encoding="utf-8")
        hook = bare / "hooks" / "post-receive"
        command = [sys.executable, "-m", "drills.pushing.runner", "--settings", str(bare / "settings.json")]
        way = shlex.quote(str(ROOT))
        hook.write_text(f"#!/bin/sh\nPYTHONPATH={way} exec {shlex.join(command)}\n", encoding="utf-8")
        hook.chmod(0o755)
        return cls(bare, project)

    def commit(self, changes: Mapping[str, str], message: str) -> str:
        """Write the files and commit them; the commit's id."""
        for name, text in changes.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        git(self.clone, "add", "--all")
        git(self.clone, "commit", "--quiet", "--allow-empty", "-m", message)
        return git(self.clone, "rev-parse", "HEAD")

    def push(self, changes: Mapping[str, str], message: str = "a change") -> Pushed:
        """Commit and `git push`; back when the pipeline has ended, however it did.

        Raises `RuntimeError` when the hook itself did not come to its end.
        """
        commit = self.commit(changes, message)
        began = time.time()
        done = subprocess.run(
            ["git", *WHO, "push", "--quiet", "origin", f"HEAD:{BRANCH}"],
            cwd=self.clone, env=_clear(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
        )  # fmt: skip
        ended, record = time.time(), record_of(self.bare, commit)
        if not record.is_file():
            raise RuntimeError(f"the hook ended without a record of {commit}:\n{done.stdout}")
        said = json.loads(record.read_text(encoding="utf-8"))
        return Pushed(
            commit, kept_of(self.bare, commit), began, ended, done.stdout, said["failed"], tuple(said["jobs"])
        )


def git(folder: Path, *words: str) -> str:
    """What git says. Raises `CalledProcessError`."""
    done = subprocess.run(
        ["git", *WHO, *words], cwd=folder, env=_clear(), check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _clear() -> dict[str, str]:
    """Neither who runs this nor how their git is set up has a say."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**own, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
