"""What an edge's egress tells its agent about releases: what the fleet wants of them, and which are here.

The egress alone has the fleet's metadata. It writes one file, the agent reads that, with a line or without:

STATE/choices.state     for each project: what stages say, and which releases are held, the newest first
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from reuna.adapters.checked_file import CheckedFile
from reuna.loop.operate import Choice, Which

if TYPE_CHECKING:  # the agent, which reads the file, knows nothing of the fleet's metadata
    from reuna.trust.stages import Stage
    from reuna.trust.targets import Target

STATE = "choices.state"
FOLDER = "releases"  #: of those that are held, in a node's state folder
MAX_BYTES = 1 << 20


class ProjectChoice(msgspec.Struct, frozen=True):
    """One project. ``blobs``: digest of a release -> its file in the folder of releases."""

    project: str
    choice: Choice
    blobs: dict[str, str]


def choices_file(state: Path) -> CheckedFile[list[ProjectChoice]]:
    """The file in a node's state folder."""
    return CheckedFile(state / STATE, list[ProjectChoice], MAX_BYTES)


def choices(own: Iterable[Stage], asked: Collection[Target], blobs: Mapping[str, str]) -> list[ProjectChoice]:
    """By project. ``own``: the stages that count for this node; ``asked``: releases that it takes by the
    fleet's list; ``blobs``: file of each that it holds, by digest.
    """
    stages = tuple(own)
    projects = sorted({each.project for each in asked} | {each.project for each in stages})
    return [_choice(project, stages, asked, blobs) for project in projects]


def _choice(
    project: str, own: tuple[Stage, ...], asked: Collection[Target], blobs: Mapping[str, str]
) -> ProjectChoice:
    from reuna.trust.stages import staged

    here = [each for each in asked if each.project == project and each.sha256 in blobs]
    held = tuple(Which(each.number, each.sha256) for each in sorted(here, key=lambda each: -each.number))
    said = staged(own, project)
    choice = Choice(held, _which(said.live), _which(said.shadow))
    return ProjectChoice(project, choice, {each.digest: blobs[each.digest] for each in held})


def _which(stage: Stage | None) -> Which | None:
    return None if stage is None else Which(stage.version, stage.sha256, stage.rollout)
