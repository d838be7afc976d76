"""Stages: which release is to run where, as the cloud says it with its own key. Pure.

    {"reuna": {"stages": [{"project": "pumps", "version": 4, "sha256": …, "where": ["e1"]}, …]}}

They stand in the signed part of the role ``plans``, beside its list: nodes walk to that file anyway, a
node that knows nothing of stages reads past them, and they go back no more than the file does. The paths
that a role may name are signed offline, so that a new folder of targets would have asked every fleet for a
ceremony.

The key is online, so its word is small: a stage counts for a node only when the offline role ``targets``
lists that release, under that digest, for that node. Whoever holds the cloud can delay or advance signed
releases, and bring no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Literal

import msgspec
from tuf.api.metadata import Targets

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE
from reuna.trust.metadata import TrustState, targets_of
from reuna.trust.parse import field
from reuna.trust.releases import is_for, listed
from reuna.trust.targets import Target

MAX_STAGES = 1000
MAX_NAMES = 10_000  #: nodes and sites that one stage names
FIELD = "stages"

Mode = Literal["shadow", "live"]
Place = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]


class Stage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A release of a project is to run at some places. ``sha256``: of its file.

    ``mode``: ``shadow`` beside what is live there, or ``live``; ``where``: names of nodes and sites, empty:
    all; ``rollout``: what the stage belongs to. A node that gave a release up tries it again when a stage of
    another rollout says so.
    """

    project: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    mode: Mode = "live"
    where: Annotated[tuple[Place, ...], msgspec.Meta(max_length=MAX_NAMES)] = ()
    rollout: Annotated[str, msgspec.Meta(max_length=100)] = ""


class Staged(msgspec.Struct, frozen=True):
    """What a node is to do with one project: what is live, and what runs beside it; None: not said."""

    live: Stage | None = None
    shadow: Stage | None = None


def read(state: TrustState) -> tuple[Stage, ...]:
    """All stages in what was accepted last, also when its time is over. Raises `Untrusted` (malformed)."""
    if "plans" not in state.files:
        return ()
    return stages_of(targets_of(state, "plans"))


def stages_of(plans: Targets) -> tuple[Stage, ...]:
    """All stages in a file of the role ``plans``. Raises `Untrusted` (malformed)."""
    return decode(field(plans.unrecognized_fields, FIELD))


def decode(value: object) -> tuple[Stage, ...]:
    """Stages out of decoded JSON; None has none. Raises `Untrusted` (malformed)."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_STAGES:
        raise Untrusted("malformed", f"stages are a list of at most {MAX_STAGES}")
    try:
        return tuple(msgspec.convert(each, Stage) for each in value)
    except UNREADABLE as error:
        raise Untrusted("malformed", f"a stage cannot be read: {error}") from error


def encode(stages: Iterable[Stage]) -> list[object]:
    """What `decode` reads. Raises `Untrusted` for what no node would read."""
    value = [msgspec.to_builtins(each) for each in stages]
    decode(value)
    return value


def stages_for(
    stages: Iterable[Stage], releases: Iterable[Target], names: Collection[str]
) -> tuple[Stage, ...]:
    """Those that count for a node, in their order. ``releases``: what ``targets`` lists; ``names``: its own
    and its site's. What the list does not have for this node is passed over as if nobody had said it.
    """
    own = frozenset(names)
    signed = {(each.project, each.number, each.sha256) for each in releases if is_for(each, own)}
    return tuple(
        each
        for each in stages
        if (each.project, each.version, each.sha256) in signed and (not each.where or own & {*each.where})
    )


def staged(own: Iterable[Stage], project: str) -> Staged:
    """Of a node's own stages: the first live one of a project, and the first shadow unless that is live."""
    of = [each for each in own if each.project == project]
    live = next((each for each in of if each.mode == "live"), None)
    shadow = next((each for each in of if each.mode == "shadow"), None)
    if live is not None and shadow is not None and live.sha256 == shadow.sha256:
        shadow = None
    return Staged(live, shadow)


def stage_of(state: TrustState, names: Collection[str], project: str) -> Stage | None:
    """The first stage of a project that counts for a node. Raises `Untrusted` (malformed)."""
    own = stages_for(read(state), listed(state), names)
    return next((each for each in own if each.project == project), None)
