"""What the cloud trained by itself, from the side of whoever may release it.

The cloud holds no release key and runs no project's code. So its runs are judged and released where the
catalogue and the keys are, from the code and the gates that git has there, whatever the cloud says of both.

    found = look(...)     # one run of each project, what becomes of it
    release(...)          # those that are ready
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from reuna.core.desired import Trained
from reuna.core.errors import BlobNotFound, RunProblem, UserError
from reuna.core.project import ProjectSettings
from reuna.core.records import ReleaseAsked
from reuna.fleet.again import settings_as_asked
from reuna.fleet.approval import MAKE, approve_release, is_about, is_yes, verdict
from reuna.fleet.built import source_of
from reuna.fleet.client import Operator
from reuna.fleet.fetched import collect
from reuna.fleet.gates import sentence
from reuna.fleet.layout import Fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.release import Catalogue, lineage, make
from reuna.fleet.result import read_result
from reuna.fleet.session import Finished, Job, nodes_of
from reuna.loop.deploy import next_trained
from reuna.loop.release import judge_run
from reuna.wire import digest_bytes
from reuna.wire.release import CODE


@dataclass(frozen=True)
class Workplace:
    """Where releases are made: the fleet, who asks its cloud, and the folders of results and releases.

    ``sources``: project -> folder with its code and its gates.
    """

    fleet: Fleet
    operator: Operator
    runs: Path
    releases: Path
    sources: Mapping[str, Path]


def look(at: Workplace) -> tuple[Trained, ...]:
    """Of each project the newest run that the cloud began by itself and nobody has released since.

    What is done at the cloud is fetched once. Raises `Unreachable`, `Corrupted`, `DiskFull`.
    """
    runs = at.operator.runs() if at.sources else []
    found = []
    for project, folder in sorted(at.sources.items()):
        catalogue = Catalogue.of(at.releases, project)
        catalogue.finish()
        run = next_trained(runs, project, catalogue.runs())
        if run is not None:
            found.append(_judged(at, folder, catalogue, Trained(project, run["run"], run["why"], "ready")))
    return tuple(found)


def release(at: Workplace, ready: Sequence[Trained]) -> tuple[list[str], list[str]]:
    """Make the challengers of those that are ready or wait for a second person; what is done, what is left.

    Where a second person is asked for, they are asked, and nobody waits here. What cannot be released is
    among what is left, with what to do.
    """
    asked = partial(_ask, at.operator)
    done, left = [], []
    for each in ready:
        try:
            run = _fetched(at, each, at.sources[each.project])
            made = make(run.folder, run.result, at.sources[each.project], at.releases, approve=asked)
        except UserError as error:
            left.append(f"{each.run}: {error.message} {error.next_step}")
            continue
        version = made.release.manifest.about.version
        done.append(f"release {each.project} {version} of {each.run}, the challenger: {made.file}")
    return done, left


def _ask(operator: Operator, words: ReleaseAsked) -> dict[str, Any]:
    return approve_release(operator, words, 0.0, lambda _id: None)


def _judged(at: Workplace, project: Path, catalogue: Catalogue, each: Trained) -> Trained:
    """What becomes of it; what stands against it is said, and stops nothing else."""
    try:
        settings = open_settings(project, [])
        result = _fetched(at, each, project).result
        _check_settings(project, settings, result)
        champion = catalogue.champion()
        before = lineage(champion) if champion else None
        judged = judge_run(settings.gates, result, before, settings.machines, settings.offline).as_dict()
    except (UserError, BlobNotFound) as error:
        return replace(each, state="stopped", said=error.message)
    if judged["decision"] != "pass":
        return replace(each, state="stopped", said=_closest(judged))
    if _same(catalogue, result):
        return replace(each, state="same", said=f"it is the model of release {catalogue.versions()[-1]}")
    found = replace(each, said=_closest(judged))
    return _agreed(at.operator, found) if settings.approval else found


def _check_settings(project: Path, settings: ProjectSettings, result: Mapping[str, Any]) -> None:
    """A release says with which settings and contract it was trained. Raises `RunProblem` for others."""
    here, there = dict(settings.settings), result["asked"]["settings"]
    other = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
    if other:
        raise RunProblem(
            f"{', '.join(other)} in {project} is not what {result['run']} had",
            "Begin a run with what is there now, and let the schedule repeat that one.",
        )


def _closest(judged: Mapping[str, Any]) -> str:
    """The gate that decides, without the decision."""
    said = sentence(judged)
    return said.partition("; ")[2] or said


def _same(catalogue: Catalogue, result: Mapping[str, Any]) -> bool:
    """Whether the newest release has this model and this code, as of data that have not changed."""
    if not catalogue.versions():
        return False
    newest = catalogue.read(catalogue.versions()[-1])
    model, code = newest.manifest.about.model, digest_bytes(newest.parts[CODE])
    return (model, code) == (result["model_digest"], result["asked"]["bundle"])


def _agreed(operator: Operator, each: Trained) -> Trained:
    """With what a second person said, once they were asked."""
    asked = [
        found
        for found in operator.proposals()
        if found["action"] == MAKE and is_about(found["summary"], each.project, each.run)
    ]
    for found in asked:
        if found["waiting"]:
            return replace(each, state="waits", said=f"reuna proposals approve {found['id']}")
        if found["decided"] and not is_yes(found):
            return replace(each, state="refused", said=verdict(found))
    return each


def _fetched(at: Workplace, each: Trained, project: Path) -> Finished:
    """The run's result: as it was fetched, so that what people agreed to stays so, or fetched now."""
    folder = at.runs / each.run
    if (folder / "result.json").is_file():
        return Finished(folder, read_result(folder))
    spec = at.operator.asked(each.run)
    settings = settings_as_asked(spec, project, open_settings(project, []))
    edges = {edge for edges in spec.fogs.values() for edge in edges}
    nodes = [node for node in nodes_of(at.fleet) if node.name in edges]
    notes = {"source": msgspec.to_builtins(source_of(project))}
    outcome = at.operator.status(each.run)["result"]
    return collect(
        at.fleet, at.operator, Job(project, settings, nodes, at.runs, notes=notes), each.run, outcome
    )
