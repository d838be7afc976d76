"""Which node holds which signed release: what the cloud was told, against what each node should hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from reuna.core.errors import NotHeld, SettingsError, Unreachable
from reuna.core.foreign import UNREADABLE
from reuna.core.operating import Operating
from reuna.core.records import Holding
from reuna.fleet.layout import Fleet
from reuna.trust.releases import missing
from reuna.trust.targets import Target

WAIT_S = 20  #: one question to the cloud lasts so long at most
AWAY_S = 1.0  #: until it is asked again when it did not answer
NAMED = 5  #: nodes in a message


class Asks(Protocol):
    """What the cloud is asked (`reuna.fleet.client.Operator`)."""

    def releases(self, after: int = 0, wait_s: int = 0) -> dict[str, Any]: ...


class Release(msgspec.Struct, frozen=True):
    """A release that nodes may take, as the operator's API tells of it."""

    path: str
    project: str
    version: int
    digest: str
    size: int
    where: tuple[str, ...] = ()


class Said(msgspec.Struct, frozen=True):
    """What a node said last of its releases, and when the cloud heard it (epoch s).

    ``operates``: what it runs of them, one entry a project.
    """

    at: float
    held: list[Holding]
    operates: list[Operating] = []


class Answer(msgspec.Struct, frozen=True):
    """What the cloud answers; see docs/reference/api.md."""

    mark: int
    fleet: str
    fogs: dict[str, tuple[str, ...]]
    releases: list[Release]
    nodes: dict[str, Said]


@dataclass(frozen=True)
class Held:
    """One moment: releases, edge -> its site, what each said, what each lacks."""

    releases: list[Release]
    sites: Mapping[str, str]
    said: Mapping[str, Said]
    lacking: list[tuple[str, Release]]

    @property
    def complete(self) -> bool:
        """Whether there is something to hold, and every edge holds the newest of what is for it."""
        return bool(self.releases and self.sites) and not self.lacking

    def holds(self, wanted: Wanted | None) -> bool:
        """The same; of a ``wanted`` project, and not before that version of it or a newer one is listed."""
        if wanted is None:
            return self.complete
        project, version = wanted
        listed = any(each.project == project and each.version >= version for each in self.releases)
        return listed and bool(self.sites) and all(each.project != project for _, each in self.lacking)


Wanted = tuple[str, int]  #: a project, and the version of its release that somebody waits for


def wanted_of(text: str) -> Wanted:
    """A project, or a version of its release, as people write it. Raises `SettingsError`.

    >>> wanted_of("pumps@3"), wanted_of("Pumps, hall 2")
    (('pumps', 3), ('Pumps, hall 2', 1))
    """
    project, at, version = text.rpartition("@")
    if not at:
        return text, 1
    if not (project and version.isascii() and version.isdigit() and int(version)):
        raise SettingsError(f"{text!r} is no version of a release", "Name it as PROJECT@VERSION.")
    return project, int(version)


def sites_of(fleet: Fleet) -> dict[str, str]:
    """Edge -> its fog, as far as the fleet's own files say; edges that were never heard stand in it."""
    here = {place.name: str(fleet.setting("parent.name", place.name)) for place in fleet.of("edge")}
    return here | {edge: fog for fog, edges in fleet.joined.items() for edge in edges}


def look(answer: Mapping[str, Any], known: Mapping[str, str]) -> Held:
    """What an answer of the cloud says about the edges that it or ``known`` names.

    Raises `Unreachable` for an answer that is none of ours.
    """
    try:
        found = msgspec.convert(answer, Answer)
    except UNREADABLE as error:
        raise Unreachable(f"the cloud answers in another way than this command expects: {error}") from error
    sites = {**known, **{edge: fog for fog, edges in found.fogs.items() for edge in edges}}
    by_digest = {each.digest: each for each in found.releases}
    lacking = missing(
        [_target(each) for each in found.releases],
        {edge: (edge, site) for edge, site in sites.items()},
        {node: said.held for node, said in found.nodes.items()},
    )
    return Held(
        found.releases, sites, found.nodes, [(node, by_digest[each.sha256]) for node, each in lacking]
    )


def _target(each: Release) -> Target:
    kind, sha256 = "release", each.digest  # the digest of its blob is no matter here
    return Target(
        each.path, kind, 1, each.size, each.digest, sha256, "", {}, each.project, each.version, each.where
    )


def wait(
    ask: Asks,
    known: Mapping[str, str],
    seconds: float,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    wanted: Wanted | None = None,
) -> Held:
    """Until every edge holds the newest release that is for it. The cloud answers when something changes.

    ``wanted``: of that project alone, and not one that is older than that. Raises `NotHeld` when the time is
    over, `Unreachable` when the cloud is away then.
    """
    end, mark, found = now() + seconds, 0, None
    while True:
        left = max(0.0, end - now())
        try:
            answer = ask.releases(mark, min(WAIT_S, int(left)))
        except Unreachable:
            if left <= AWAY_S:
                raise
            pause(AWAY_S)
            continue
        found = look(answer, known)
        if found.holds(wanted):
            return found
        if left < 1.0:
            raise NotHeld(_why_not(found, seconds, wanted))
        mark = int(answer["mark"])


def _why_not(found: Held, seconds: float, wanted: Wanted | None) -> str:
    if not found.releases:
        return f"after {seconds:g} s no release is listed that nodes may take"
    if wanted and all(each.project != wanted[0] or each.version < wanted[1] for each in found.releases):
        return f"after {seconds:g} s {wanted[0]} {wanted[1]} is not listed among what nodes may take"
    if not found.sites:
        return f"after {seconds:g} s the cloud knows no edge"
    named = [f"{node} ({state_of(found, node, each)})" for node, each in found.lacking[:NAMED]]
    more = len(found.lacking) - len(named)
    return f"after {seconds:g} s not held: {', '.join(named)}" + (f" and {more} more" if more else "")


def state_of(found: Held, node: str, each: Release) -> str:
    """What is known of one release at one node: ``verified``, ``refused: WHY``, or ``waits``."""
    said = found.said.get(node)
    for one in said.held if said else ():
        if one.digest == each.digest:
            return f"refused: {one.refused}" if one.refused else "verified"
    return "waits" if said else "nothing heard"


def runs(said: Said, project: str, digest: str, version: int) -> str:
    """What a node does with one release that it holds, in words; empty: nothing."""
    for each in said.operates:
        if each.project != project:
            continue
        if each.digest == digest and each.muted:
            return f"runs, safe answer alone: {each.reason}"
        if each.digest == digest:
            return "runs, confirmed" if each.phase in ("shadow", "rolled_back") else f"runs, {each.phase}"
        if each.beside == version:
            return "shadow"
        if each.gave_up == version:
            return f"given up: {each.reason}"
    return ""


def as_dict(found: Held) -> dict[str, Any]:
    """Plain values, for JSON."""
    nodes = []
    for node, site in sorted(found.sites.items()):
        said = found.said.get(node)
        held = [msgspec.to_builtins(each) for each in (said.held if said else ()) if not each.refused]
        refused = [msgspec.to_builtins(each) for each in (said.held if said else ()) if each.refused]
        lacks = [
            {"project": each.project, "version": each.version, "digest": each.digest}
            for name, each in found.lacking
            if name == node
        ]
        said_at = said.at if said else None
        operates = [msgspec.to_builtins(each) for each in (said.operates if said else ())]
        nodes.append(
            {
                "node": node,
                "site": site,
                "said": said_at,
                "held": held,
                "refused": refused,
                "missing": lacks,
                "operates": operates,
            }
        )
    releases = [msgspec.to_builtins(each) for each in found.releases]
    return {"complete": found.complete, "releases": releases, "nodes": nodes}
