"""Does what the CI of a forge does with a push: a fresh checkout for each job, its lines in order, the first that fails ends it.

Started by the hook of a bare repository (`drills.pushing.forge`), it reads `.gitlab-ci.yml` of the
pushed commit. What it prints, git shows to who pushed. Beside the repository `pipelines/<commit>.json`
says in the end what was done, and `pipelines/<commit>/` has what its jobs kept.

Other than at a forge:
- jobs run in the Python environment that runs this, not in the file's `image`: `pip install` finds
  what it asks for there, and nothing is fetched (PIP_NO_INDEX),
- `cache`, `tags` and `resource_group` make no difference, `timeout` does,
- a job that is not done when the runner ends is not taken up again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from drills.pushing.gitlab import Job, Refused, applies, expanded, read

FILE = ".gitlab-ci.yml"
BRANCH = "main"
DEPTH = "20"  #: commits of a checkout, as many as GitLab fetches
GONE = "0" * 40  #: what git calls the commit of a branch that was removed


@dataclass(frozen=True)
class Step:
    """One line of a job: when it began (s since 1970), how long it took."""

    line: str
    began: float
    seconds: float


@dataclass(frozen=True)
class Done:
    """One job: its steps as far as they came. ``failed``: why it ended, empty when it passed."""

    name: str
    stage: str
    steps: tuple[Step, ...]
    failed: str = ""


@dataclass(frozen=True)
class Push:
    """What came into a bare repository."""

    repository: Path
    commit: str
    branch: str

    @property
    def record(self) -> Path:
        """Where what became of it is said."""
        return record_of(self.repository, self.commit)


def record_of(repository: Path, commit: str) -> Path:
    """What a pipeline did, in JSON, beside the bare repository."""
    return kept_of(repository, commit).with_suffix(".json")


def kept_of(repository: Path, commit: str) -> Path:
    """What the jobs of a pipeline kept, beside the bare repository."""
    return repository.parent / "pipelines" / commit


def run(push: Push, settings: Mapping[str, str], scratch: Path) -> list[Done]:
    """The whole pipeline of a push; ``settings`` are the variables that the forge's owner has set.

    Raises `Refused` for a file that is not understood.
    """
    pipeline = read(_git(push.repository, "show", f"{push.commit}:{FILE}"))
    done: list[Done] = []
    for job in pipeline.jobs:
        place = scratch / job.name
        own = {**_given(push, job, place / "checkout"), **settings}
        own |= {name: expanded(value, own) for name, value in {**pipeline.variables, **job.variables}.items()}
        if not applies(job, own):
            _say(f"job {job.name}: left out, its rules do not hold")
            continue
        done.append(_carry_out(push, job, own, place))
        if done[-1].failed:
            break  # later stages need it
    return done


def _given(push: Push, job: Job, checkout: Path) -> dict[str, str]:
    """The environment of a job before anybody sets anything in it."""
    tools = Path(sys.executable).parent
    return {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(checkout.parent / "home"),
        "LANG": "C.UTF-8",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_QUIET": "1",
        "CI": "true",
        "CI_PIPELINE_SOURCE": "push",
        "CI_PROJECT_DIR": str(checkout),
        "CI_PROJECT_NAME": push.repository.stem,
        "CI_COMMIT_SHA": push.commit,
        "CI_COMMIT_BRANCH": push.branch,
        "CI_DEFAULT_BRANCH": BRANCH,
        "CI_JOB_NAME": job.name,
        "CI_JOB_STAGE": job.stage,
    }


def _carry_out(push: Push, job: Job, environment: Mapping[str, str], place: Path) -> Done:
    checkout, marks, artifacts = place / "checkout", place / "steps", kept_of(push.repository, push.commit)
    (place / "home").mkdir(parents=True)
    _check_out(push, checkout)
    if artifacts.is_dir():
        shutil.copytree(artifacts, checkout, dirs_exist_ok=True)
    _say(f"job {job.name}, stage {job.stage}")
    why = _shell(job, environment, checkout, marks)
    steps = _steps(job, marks)
    failed = f"step {len(steps)} of {len(job.lines)}, {why}: {steps[-1].line}" if why else ""
    if job.keep == "always" or (job.keep == "on_failure") == bool(failed):
        _keep(job, checkout, artifacts)
    _say(f"job {job.name} failed at {failed}" if failed else f"job {job.name} passed")
    return Done(job.name, job.stage, steps, failed)


def _check_out(push: Push, checkout: Path) -> None:
    """Some commits deep and on no branch, as a forge's runner has it."""
    checkout.mkdir()
    _git(checkout, "init", "--quiet")
    _git(checkout, "fetch", "--quiet", "--depth", DEPTH, push.repository.as_uri(), push.commit)
    _git(checkout, "checkout", "--quiet", "--detach", push.commit)


def _shell(job: Job, environment: Mapping[str, str], checkout: Path, marks: Path) -> str:
    """All lines in one shell that ends at the first that fails; why it ended, empty when all went well."""
    words = ["set -eo pipefail"]
    for number, line in enumerate(job.lines):
        words += [
            f"echo {number} $EPOCHREALTIME >> {shlex.quote(str(marks))}",
            f"echo {shlex.quote('$ ' + line)}",
        ]
        words.append(line)
    words.append(f"echo end $EPOCHREALTIME >> {shlex.quote(str(marks))}")
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join(words)],
        cwd=checkout,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        status = shell.wait(job.timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        return f"not done after {job.timeout_s:g} s"
    return f"exit status {status}" if status else ""


def _steps(job: Job, marks: Path) -> tuple[Step, ...]:
    """What the shell noted; of the last step of a job that failed the end is now."""
    noted = [line.split() for line in marks.read_text().splitlines()]
    times = [float(at) for _, at in noted] + [time.time()]
    found = [(job.lines[int(number)], times[i]) for i, (number, _) in enumerate(noted) if number != "end"]
    return tuple(Step(line, at, round(times[i + 1] - at, 3)) for i, (line, at) in enumerate(found))


def _keep(job: Job, checkout: Path, artifacts: Path) -> None:
    """Files and folders that later jobs find in their checkout."""
    for path in job.paths:
        for found in sorted(checkout.glob(path.rstrip("/"))):
            target = artifacts / found.relative_to(checkout)
            target.parent.mkdir(parents=True, exist_ok=True)
            if found.is_dir():
                shutil.copytree(found, target, dirs_exist_ok=True)
            else:
                shutil.copy(found, target)


def _git(folder: Path, *words: str) -> str:
    """What git says, whatever the hook's own git has set. Raises `CalledProcessError`."""
    clear = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    found = subprocess.run(
        ["git", *words], cwd=folder, env=clear, check=True, stdout=subprocess.PIPE, text=True
    )
    return found.stdout


def _say(text: str) -> None:
    print(f"== {text}", flush=True)


def _write(push: Push, done: list[Done], failed: str) -> None:
    """Under its name only when it is whole."""
    said = {"commit": push.commit, "failed": failed, "jobs": [asdict(job) for job in done]}
    push.record.parent.mkdir(exist_ok=True)
    part = push.record.with_suffix(".part")
    part.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    part.replace(push.record)


def take(push: Push, settings: Mapping[str, str]) -> bool:
    """Run a push's pipeline, say and write what became of it; whether all of it passed."""
    done: list[Done] = []
    with tempfile.TemporaryDirectory(prefix="reuna-ci-") as scratch:
        try:
            done = run(push, settings, Path(scratch))
            bad = next((job for job in done if job.failed), None)
            failed = f"job {bad.name}: {bad.failed}" if bad else ""
        except (Refused, subprocess.CalledProcessError) as error:
            failed = f"{FILE}: {error}"
    _write(push, done, failed)
    _say(
        f"pipeline of {push.commit[:12]} FAILED: {failed}"
        if failed
        else f"pipeline of {push.commit[:12]} passed"
    )
    return not failed


def main() -> int:
    """As a post-receive hook: a line `OLD NEW REF` on standard input for each branch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", type=Path, required=True, help="JSON file: the forge's variables")
    settings: dict[str, str] = json.loads(parser.parse_args().settings.read_text(encoding="utf-8"))
    passed = True
    for line in sys.stdin:
        _, new, ref = line.split()
        if new != GONE and ref.startswith("refs/heads/"):
            passed &= take(Push(Path.cwd(), new, ref.removeprefix("refs/heads/")), settings)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
