"""Reads `.gitlab-ci.yml` as far as ours goes; whatever it does not understand, it refuses.

    pipeline = read(text)
    wanted = [job for job in pipeline.jobs if applies(job, variables)]

What is not understood must not be passed over: a step that nobody runs looks like one that passed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

STAGES = ("build", "test", "deploy")  #: of a file that names none
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
#: What a runner of its own makes no difference to: which image, which runner, what is kept for speed.
NOTED = {"image", "cache", "tags", "resource_group"}
GLOBAL = {"stages", "variables", "default"}
OF_JOB = {"stage", "script", "before_script", "artifacts", "rules", "timeout", "variables"}
_DURATION = re.compile(r"(\d+) (second|minute|hour|day)s?")
_TERM = re.compile(r"""\$(\w+)(?:\s*(==|!=)\s*(?:\$(\w+)|"([^"]*)"))?""")
_NAME = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Refused(Exception):
    """The file has something that this runner does not understand."""


@dataclass(frozen=True)
class Job:
    """One job: its commands in order, when it runs, what of its folder later jobs get.

    ``keep``: when that is kept; ``conditions``: one of them must hold, None: it always runs.
    """

    name: str
    stage: str
    lines: tuple[str, ...]
    conditions: tuple[str, ...] | None = None
    paths: tuple[str, ...] = ()
    keep: str = "on_success"
    timeout_s: float = 3600.0
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """Jobs by the order of their stages."""

    jobs: tuple[Job, ...]
    variables: Mapping[str, str]


def read(text: str) -> Pipeline:
    """Raises `Refused`."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused(f"no YAML: {error}") from error
    if not isinstance(found, dict):
        raise Refused("no table of jobs")
    default = found.get("default", {})
    _known("default", default, NOTED | {"before_script", "timeout"})
    stages = list(found.get("stages", STAGES))
    names = [name for name in found if name not in NOTED | GLOBAL]
    jobs = [_job(name, {**default, **_table(name, found[name])}, stages) for name in names]
    return Pipeline(
        tuple(sorted(jobs, key=lambda job: stages.index(job.stage))), _texts(found.get("variables", {}))
    )


def applies(job: Job, variables: Mapping[str, str]) -> bool:
    """Whether a job runs in this pipeline. Raises `Refused`."""
    return job.conditions is None or any(holds(each, variables) for each in job.conditions)


def holds(condition: str, variables: Mapping[str, str]) -> bool:
    """`$A`, `$A == "text"`, `$A != $B`, joined by `&&` and `||`; a variable that is not there is empty.

    Raises `Refused`.
    """
    return any(all(_term(each, variables) for each in part.split("&&")) for part in condition.split("||"))


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$NAME` and `${NAME}` in the value of a variable."""
    return _NAME.sub(lambda found: variables.get(found[1] or found[2], ""), text)


def _term(text: str, variables: Mapping[str, str]) -> bool:
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise Refused(f"rules: if: {text.strip()!r} is not understood")
    name, sign, other, literal = match.groups()
    left = variables.get(name, "")
    if sign is None:
        return bool(left)
    right = variables.get(other, "") if other else literal
    return (left == right) == (sign == "==")


def _job(name: str, said: Mapping[str, Any], stages: list[str]) -> Job:
    _known(name, said, OF_JOB | NOTED)
    stage = said.get("stage", "test")
    if stage not in stages:
        raise Refused(f"{name}: there is no stage {stage!r}")
    if not said.get("script"):
        raise Refused(f"{name}: has no script")
    artifacts = _table(f"{name}: artifacts", said.get("artifacts", {}))
    _known(f"{name}: artifacts", artifacts, {"when", "paths", "reports", "expire_in"})
    return Job(
        name=name,
        stage=stage,
        lines=(*_lines(name, said.get("before_script", [])), *_lines(name, said["script"])),
        conditions=_conditions(name, said["rules"]) if "rules" in said else None,
        paths=tuple(artifacts.get("paths", ())),
        keep=artifacts.get("when", "on_success"),
        timeout_s=_seconds(name, said.get("timeout", "1 hour")),
        variables=_texts(said.get("variables", {})),
    )


def _conditions(name: str, rules: Any) -> tuple[str, ...]:
    if not isinstance(rules, list) or not all(isinstance(r, dict) and set(r) == {"if"} for r in rules):
        raise Refused(f"{name}: rules: only `- if: …` is understood")
    return tuple(rule["if"] for rule in rules)


def _lines(name: str, said: Any) -> tuple[str, ...]:
    lines = [said] if isinstance(said, str) else said
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise Refused(f"{name}: a script is a list of lines")
    return tuple(line.rstrip("\n") for line in lines)


def _seconds(name: str, said: str) -> float:
    match = _DURATION.fullmatch(said)
    if match is None:
        raise Refused(f"{name}: timeout {said!r} is not understood")
    return float(match[1]) * UNITS[match[2]]


def _table(name: str, said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise Refused(f"{name}: is no table")
    return said


def _texts(said: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in said.items()}


def _known(name: str, said: Mapping[str, Any], known: set[str]) -> None:
    for key in said:
        if key not in known:
            raise Refused(f"{name}: {key!r} is not understood")
