"""`reuna test`: the project's own pytest, then a simulated federation with a stated fault in each scenario.

found = await carry_out(prepare(Asked(project, data)), watch)
found.passed, junit(found), as_dict(found)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reuna.adapters import junit as xml
from reuna.adapters.git import changes, open_checkout
from reuna.core.errors import ProjectError, SettingsError
from reuna.core.project import ProjectSettings
from reuna.fleet.check import check_all
from reuna.fleet.data import find_nodes, sites_of
from reuna.fleet.open_project import open_settings
from reuna.fleet.own_tests import OwnTests, check_pytest, run_pytest
from reuna.fleet.scenarios import Ask, for_test, play_all
from reuna.sim import judge
from reuna.sim.judge import FAILED, LEFT_OUT, WARNED, Judged, Limits

Watch = Callable[[dict[str, Any]], None]
SUITE = "reuna.simulation"


@dataclass(frozen=True)
class Asked:
    """A project, the folder of its nodes (else PROJECT/data), settings beside its file, pytest or not."""

    project: Path
    data: Path | None = None
    flags: list[str] = field(default_factory=list)
    pytest: bool = True


@dataclass(frozen=True)
class Findings:
    """All of a test: ``chance`` by site, the scenarios, the project's own tests if they were asked for."""

    settings: ProjectSettings
    chance: dict[str, float]
    scenarios: Sequence[Judged]
    own: OwnTests | None
    commit: str
    seconds: float

    @property
    def lower(self) -> bool:
        """Whether less of the metric is better."""
        return limits_of(self.settings).lower

    @property
    def passed(self) -> bool:
        """Whether everything did; warnings do."""
        own_passed = self.own is None or not self.own.bad
        return own_passed and judge.passed([each.verdict.status for each in self.scenarios])

    @property
    def warnings(self) -> int:
        """How many scenarios ended with one."""
        return sum(each.verdict.status == WARNED for each in self.scenarios)


@dataclass(frozen=True)
class Ready:
    """What is asked, read and found sound."""

    asked: Asked
    settings: ProjectSettings
    data: Path


def prepare(asked: Asked) -> Ready:
    """Look at everything before anything is played.

    Raises what keeps a test from running at all: `SettingsError`, `ProjectError`, `DataError`,
    `LearnerError`, `ExtraMissing` (no pytest).
    """
    settings = for_test(open_settings(asked.project, asked.flags))
    data = asked.data or asked.project / "data"
    nodes = find_nodes(data)
    sites = sites_of(nodes)
    if settings.test.site and settings.test.site not in sites:
        raise SettingsError(f"test.site is {settings.test.site!r}, but the sites are {', '.join(sites)}")
    if asked.pytest:
        check_pytest()
    check_all(asked.project, settings, nodes)
    return Ready(asked, settings, data)


async def carry_out(ready: Ready, watch: Watch) -> Findings:
    """Run all of it; ``watch`` hears what goes on. Raises `ProjectError`, `RunFailed`."""
    began, asked = time.monotonic(), ready.asked
    own = None
    if asked.pytest:
        watch({"what": "pytest"})
        own = await run_pytest(asked.project)
    played = await play_all(Ask(asked.project, ready.data, asked.flags), watch)
    chance, scenarios = judge.judge_all(played, limits_of(ready.settings))
    seconds = time.monotonic() - began
    return Findings(ready.settings, chance, scenarios, own, commit_of(asked.project), seconds)


def limits_of(settings: ProjectSettings) -> Limits:
    """What the project is held to."""
    return Limits(settings.metric, settings.test, settings.strategy)


def commit_of(project: Path) -> str:
    """The commit that the project's folder has, ``+`` behind it when tracked files differ; '' without git."""
    try:
        checkout = open_checkout(project)
        return f"{checkout.commit[:12]}{'+' if changes(checkout, untracked=False) else ''}"
    except ProjectError:
        return ""


# --- for machines ------------------------------------------------------------------------------


def junit(found: Findings) -> bytes:
    """The project's own cases as pytest wrote them, and a case for each scenario."""
    settings = found.settings
    told = {
        "seed": settings.seed,
        "rounds": settings.rounds,
        "metric": settings.metric,
        "commit": found.commit,
    }
    cases = [*(found.own.beside if found.own else ()), *(_case(each) for each in found.scenarios)]
    properties = {name: str(value) for name, value in {**told, "commit": found.commit}.items()}
    own = xml.Suite(SUITE, cases, properties)
    return xml.merged(found.own.document if found.own else None, own)


def _case(each: Judged) -> xml.Case:
    status, why = each.verdict.status, each.verdict.why
    outcome = {FAILED: xml.FAILED, LEFT_OUT: xml.SKIPPED}.get(status, xml.PASSED)
    return xml.Case(
        name=each.played.name,
        outcome=outcome,
        message="" if outcome == xml.PASSED else why,
        classname=SUITE,
        seconds=each.played.seconds,
        output=f"{status}: {why}",
    )


def as_dict(found: Findings) -> dict[str, Any]:
    """For scripts."""
    settings = found.settings
    return {
        "project": settings.name,
        "passed": found.passed,
        "warnings": found.warnings,
        "seed": settings.seed,
        "rounds": settings.rounds,
        "metric": settings.metric,
        "better": "lower" if found.lower else "higher",
        "commit": found.commit,
        "seconds": round(found.seconds, 3),
        "pytest": None if found.own is None else _own(found.own),
        "chance": found.chance,
        "scenarios": [_scenario(each, found.lower) for each in found.scenarios],
    }


def _own(own: OwnTests) -> dict[str, Any]:
    counts = {each: own.count(each) for each in (xml.PASSED, xml.FAILED, xml.ERROR, xml.SKIPPED)}
    bad = [{"name": f"{case.classname}.{case.name}", "message": case.message} for case in own.bad]
    return {**counts, "seconds": round(own.seconds, 3), "not_passed": bad}


def _scenario(each: Judged, lower: bool) -> dict[str, Any]:
    played, verdict = each.played, each.verdict
    worst = judge.worst(played.scores, lower) if played.scores else ""
    return {
        **asdict(played),
        "status": verdict.status,
        "why": verdict.why,
        "losses": dict(verdict.losses),
        "worst_site": worst,
    }
