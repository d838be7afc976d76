"""A fleet on this machine that is left to itself, and what can be seen of it from outside.

    works = Unattended(folder, project, fleet)
    await works.reuna("build", "make", ...)        # what people do, as they would type it
    works.alone(state)                             # from now on `reuna apply --keep` does what is left to do
    await works.until("a release", lambda: works.newer(1))

Nobody signs, begins or orders anything once `alone` was called: the cloud's triggers begin runs, `reuna
apply --keep` judges, releases, signs and rolls out, and the edges decide what they keep.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from reuna.adapters.processes import end_with_parent
from reuna.core.errors import ProjectError, ReunaError, RunFailed
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, PlaceFile
from reuna.fleet.release import Catalogue

T = TypeVar("T")
LOOK_S = 0.5
PATIENCE_S = 480.0
LOG = "keep.log"  #: what `reuna apply --keep` says
STATE = "state"  #: the folder that says what is wanted
FLEET = "fleet"  #: the fleet's, below that of all
DESIRED = """[fleet]
name = "{fleet}"

[projects.{project}]
release_from = "../{project}"
rollout = true

[placements.{project}]
project = "{project}"
follows = "challenger"
"""


def desired(fleet: str, project: str, triggers: Mapping[str, str]) -> str:
    """The state in which a project's newest release goes everywhere; triggers: name -> lines of TOML."""
    text = DESIRED.format(fleet=fleet, project=project)
    return text + "".join(f"\n[triggers.{name}]\n{lines}" for name, lines in triggers.items())


def commit(project: Path, message: str) -> None:
    """Put a project into a git repository of one commit. Raises `ProjectError` without git."""
    who = ("-c", "user.name=anna", "-c", "user.email=anna@example.org", "-c", "commit.gpgsign=false")
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    plain = {**own, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for words in (("init", "-q", "-b", "main", "."), ("add", "--all"), ("commit", "-q", "-m", message)):
        try:
            subprocess.run(["git", *who, *words], cwd=project, env=plain, check=True, capture_output=True)
        except FileNotFoundError:
            raise ProjectError("git is not installed", "On Debian and Ubuntu: apt-get install git.") from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise ProjectError(f"git {words[0]} failed: {said}", "Look at git --version.") from error


def read_machine(place: PlaceFile, sources: str, lateness_s: float) -> None:
    """From its next start on an edge reads these sources, and answers what they say."""
    file = place.folder / "sources.toml"
    file.write_text(sources, encoding="utf-8")
    said = place.settings.read_text(encoding="utf-8")
    live = f"\n[live]\nlateness_s = {lateness_s}\n"
    place.settings.write_text(f'sources = "{file}"\n{said}{live}', encoding="utf-8")


class Unattended:
    """See the module. ``project``: the name of the project, whose repository is ``folder``/``project``."""

    def __init__(self, folder: Path, project: str, fleet: Fleet) -> None:
        self.folder, self.name, self.fleet = folder, project, fleet
        self.names = tuple(place.name for place in fleet.of("edge"))
        self.project = folder / project
        self.file = fleet.folder / "fleet.toml"
        self.operator = Operator.of(fleet)
        self.catalogue = Catalogue.of(folder / "releases", project)
        self._running: list[subprocess.Popen[str]] = []

    async def reuna(self, *words: str, heard: Callable[[str], None] = lambda _line: None) -> str:
        """What a command of ours says, which ``heard`` is told line by line. Raises `RunFailed`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reuna.cli", *words,
            cwd=self.folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, preexec_fn=end_with_parent,
        )  # fmt: skip
        assert process.stdout is not None
        said = []
        try:
            async for line in process.stdout:
                said.append(line.decode())
                heard(said[-1].rstrip())
            await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise RunFailed(f"reuna {' '.join(words)}: {''.join(said).strip()}")
        return "".join(said)

    def begin(
        self, words: Sequence[str], log: Path | None = None, folder: Path | None = None
    ) -> subprocess.Popen[str]:
        """Another process in a folder, until `end`; its output goes to a file, or is read by who began it."""
        with (log or Path(os.devnull)).open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file if log else subprocess.PIPE,
                stderr=file if log else subprocess.PIPE,
                text=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - it makes one system call
            )
        self._running.append(process)
        return process

    def alone(self, state: str) -> list[str]:
        """From now on nobody is there: a directory says what is wanted. The words of what keeps it so."""
        folder = self.folder / STATE
        folder.mkdir()
        (folder / f"{self.name}.toml").write_text(state, encoding="utf-8")
        words = ["apply", STATE, "--fleet", str(self.file.relative_to(self.folder)), "--keep"]
        self.begin(("reuna.cli", *words), self.folder / LOG, self.folder)
        return words

    def end(self) -> None:
        """End what `begin` began, the last first."""
        for process in reversed(self._running):
            process.terminate()  # SIGINT is ignored by what a shell began in the background
            process.wait()

    # --- what is looked at ------------------------------------------------------------------------

    def said(self) -> list[str]:
        """What `reuna apply --keep` has said so far."""
        log = self.folder / LOG
        return log.read_text(encoding="utf-8").splitlines() if log.is_file() else []

    def operates(self) -> dict[str, tuple[int, str, str]]:
        """Edge -> version that it runs, phase, reason."""
        return {
            node: (each.get("version", 0), each.get("phase", "none"), each.get("reason", ""))
            for node, said in self.operator.releases()["nodes"].items()
            for each in said["operates"]
            if each["project"] == self.name
        }

    def on(self, version: int) -> list[str]:
        """Edges that have confirmed a version and run it."""
        return [
            node
            for node, (has, phase, _) in self.operates().items()
            if (has, phase) == (version, "confirmed")
        ]

    def running(self) -> dict[str, int]:
        """Edge -> version that it runs, on trial or confirmed."""
        return {node: version for node, (version, _, _) in self.operates().items()}

    def alarms(self) -> list[dict[str, Any]]:
        """The oldest first."""
        return list(reversed(self.operator.watch()["alarms"]))

    def newer(self, than: int) -> int:
        """The newest version of the catalogue, once it is newer; else 0."""
        newest = max(self.catalogue.versions(), default=0)
        return newest if newest > than else 0

    def rollouts(self) -> list[dict[str, Any]]:
        """The newest first."""
        return self.operator.rollouts()

    def rolled(self, version: int) -> str:
        """The phase of that version's rollout, '' while there is none."""
        return next((each["phase"] for each in self.rollouts() if each["version"] == version), "")

    def begun(self) -> list[dict[str, Any]]:
        """Runs that the cloud began by itself, the oldest first."""
        return [each for each in reversed(self.operator.runs()) if each.get("why")]

    def rests(self) -> bool:
        """Whether nothing alarms and no run goes on."""
        runs = all(each["state"] != "running" for each in self.operator.runs())
        return runs and all(each["ended"] for each in self.operator.watch()["alarms"])

    async def until(self, what: str, look: Callable[[], T], seconds: float = PATIENCE_S) -> T:
        """What ``look`` finds, once it is something. Raises `RunFailed`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := await asyncio.to_thread(look):
                    return found
            except ReunaError:
                pass
            await asyncio.sleep(LOOK_S)
        last = "\n".join(self.said()[-12:])
        raise RunFailed(f"{what} never came within {seconds:g} s\n{last}".strip())
