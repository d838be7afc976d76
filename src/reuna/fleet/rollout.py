"""A rollout as people ask for it: settings and a signed list become a `RolloutSpec`; and how it goes.

>>> name_of("Pumps, hall 2", 4, 1_767_225_600.0)
'pumps-hall-2-4-20260101-000000'
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from reuna.core.desired import Placement
from reuna.core.errors import RolloutProblem, Unreachable
from reuna.core.project import ProjectSettings
from reuna.core.rollout import ALL, RolloutSpec, Terms, Wave, named_waves
from reuna.fleet.open_project import open_settings
from reuna.loop.rollout import Version
from reuna.wire.release import Release

WAIT_S = 20  #: one question to the cloud lasts so long at most
AWAY_S = 1.0  #: until it is asked again when it did not answer
PATIENCE_S = 120.0  #: how long a cloud may be away in between
FINAL = ("done", "failed", "aborted")
_SLUG = re.compile(r"[^a-z0-9]+")


class Asks(Protocol):
    """What the cloud is asked (`reuna.fleet.client.Operator`)."""

    def rollout(self, name: str, after: int = 0, wait_s: int = 0) -> dict[str, Any]: ...


class Begins(Protocol):
    """What a rollout is begun by (`reuna.fleet.client.Operator`)."""

    def releases(self, after: int = 0, wait_s: int = 0) -> dict[str, Any]: ...
    def start_rollout(self, spec: RolloutSpec) -> str: ...


def begin_placed(
    operator: Begins,
    placed: Placement,
    cohorts: Mapping[str, tuple[str, ...]],
    source: Path | None,
    release: Version,
    now: float,
) -> str:
    """Begin the rollout of a release as its placement says; what was done, in words. It is listed later.

    ``source``: folder of the project, whose ``[rollout]`` says the rest. Raises `RolloutProblem`,
    `SettingsError`.
    """
    spec = placed_spec(operator.releases(), placed, cohorts, source, release, now)
    proposal = operator.start_rollout(spec)
    waits = f" waits for a second person: reuna proposals approve {proposal}" if proposal else " begins"
    return f"rollout {spec.rollout}{waits}"


def placed_spec(
    answer: Mapping[str, Any],
    placed: Placement,
    cohorts: Mapping[str, tuple[str, ...]],
    source: Path | None,
    release: Version,
    now: float,
) -> RolloutSpec:
    """What `begin_placed` asks for. ``answer``: as `Operator.releases`."""
    terms, approval = Terms(), False
    waves: tuple[Wave, ...] = (Wave(ALL),)
    if source is not None:
        settings = open_settings(source, [])
        waves = named_waves(settings.rollout.waves, settings.machines, _sites(answer))
        terms, approval = settings.rollout.terms, settings.approval
    if placed.waves != (ALL,):
        waves = tuple(Wave(name, cohorts.get(name, ())) for name in placed.waves)
    if placed.soak_s is not None:
        terms = msgspec.structs.replace(terms, soak_s=placed.soak_s)
    name = name_of(placed.project, release.version, now)
    return RolloutSpec(
        name, placed.project, release.version, release.sha256, waves, terms, approval, waits=True
    )


def _sites(answer: Mapping[str, Any]) -> dict[str, str]:
    return {edge: fog for fog, edges in answer["fogs"].items() for edge in edges}


def name_of(project: str, what: int | str, now: float) -> str:
    """A name for a rollout of a version, or ``back``, that is begun ``now`` (epoch s)."""
    slug = _SLUG.sub("-", project.lower()).strip("-")[:30] or "project"
    return f"{slug}-{what}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}"


def spec_of(
    settings: ProjectSettings,
    answer: Mapping[str, Any],
    wanted: int | Version | None,
    waves: Sequence[str],
    name: str,
    now: float,
) -> RolloutSpec:
    """What is asked for. ``answer``: as `Operator.releases`; ``wanted``: a version that is listed, None:
    the newest one, or a release that may be listed later.

    Raises `RolloutProblem` for a version that no node may take.
    """
    asked = named_waves(waves or settings.rollout.waves, settings.machines, _sites(answer))
    found = wanted if isinstance(wanted, Version) else _listed(settings.name, answer, wanted)
    called = name or name_of(settings.name, found.version, now)
    terms, approval, waits = settings.rollout.terms, settings.approval, found is wanted
    return RolloutSpec(
        called, settings.name, found.version, found.sha256, asked, terms, approval=approval, waits=waits
    )


def _listed(project: str, answer: Mapping[str, Any], version: int | None) -> Version:
    listed = {each["version"]: each["digest"] for each in answer["releases"] if each["project"] == project}
    wanted = max(listed, default=0) if version is None else version
    if wanted not in listed:
        there = ", ".join(map(str, sorted(listed))) or "none"
        raise RolloutProblem(
            f"of {project} {version or 'a release'} is not listed for nodes; listed: {there}",
            "Sign and publish it first: `reuna trust add FILE --kind release`.",
        )
    return Version(wanted, listed[wanted])


def version_of(release: Release, project: str) -> Version:
    """The version that a file holds. Raises `RolloutProblem` for one of another project."""
    about = release.manifest.about
    if about.project != project:
        raise RolloutProblem(
            f"the release is of {about.project}, the project is {project}",
            "Name the project's own: --project.",
        )
    return Version(about.version, release.digest)


def follow(ask: Asks, name: str) -> Iterator[dict[str, Any]]:
    """Where a rollout is, again whenever that changes, until it is over.

    Raises `Unreachable`, `RunNotFound`.
    """
    mark, before, away_since = 0, None, None
    while True:
        try:
            found = ask.rollout(name, mark, WAIT_S if mark else 0)
        except Unreachable:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > PATIENCE_S:
                raise
            time.sleep(AWAY_S)
            continue
        away_since, mark = None, int(found.pop("mark"))
        if found != before:
            before = found
            yield found
        if found["phase"] in FINAL:
            return


def line(found: Mapping[str, Any]) -> str:
    """Where a rollout is, in a line."""
    waves, number, phase = found["waves"], found["wave"], found["phase"]
    why = f": {found['why']}" if found["why"] else ""
    if found.get("trouble"):
        return f"waits, for its stages cannot be signed: {found['trouble']}"
    if phase in FINAL:
        return f"{found['rollout']} is {phase}{why}"
    if phase == "shadow":
        beside = sum(each["said"] in ("shadow", "confirmed") for each in found["nodes"].values())
        return f"shadow   {_bar(beside, len(found['nodes']))} of the nodes run it beside{_until(found)}"
    if not number:
        return f"{phase}{why}{_until(found)}"
    wave = waves[number - 1]
    back = f", {wave['rolled_back']} went back" if wave["rolled_back"] else ""
    done = _bar(wave["confirmed"], len(wave["nodes"]))
    said = f"wave {number}/{len(waves)} {wave['name']}  {done} confirmed{back}"
    return f"{said}, paused{why}" if phase == "paused" else f"{said}{_until(found)}"


def _bar(done: int, of: int) -> str:
    filled = 10 * done // of if of else 0
    return f"{'█' * filled}{'░' * (10 - filled)} {done}/{of}"


def _until(found: Mapping[str, Any]) -> str:
    if found["next"] is None:
        return ""
    return time.strftime("; until %Y-%m-%d %H:%M:%S UTC", time.gmtime(found["next"]))
