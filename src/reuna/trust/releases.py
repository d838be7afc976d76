"""Which releases a node takes and keeps, of what its fleet has signed, and which nodes lack one. Pure.

Of each project a node takes the newest two that are for it, so that there is one to go back to, and those
that stages name; what it holds and the list does not name any more stays until two newer ones are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from reuna.core.records import Holding
from reuna.trust.metadata import TrustState
from reuna.trust.targets import Target, accepted

KEPT = 2  #: releases of one project on a node's disk
MOST = 16  #: releases of all projects on a node's disk


def listed(state: TrustState) -> tuple[Target, ...]:
    """The releases in what was accepted last, also when its time is over. Raises `Untrusted` (malformed)."""
    if "targets" not in state.files:
        return ()
    return tuple(each for each in accepted(state, "targets") if each.kind == "release" and each.project)


def is_for(each: Target, names: Collection[str]) -> bool:
    """Whether a release is for a node: ``names`` are its own and its site's."""
    return not each.where or not frozenset(names).isdisjoint(each.where)


def wanted(
    releases: Iterable[Target], names: Collection[str], staged: Collection[str] = ()
) -> tuple[Target, ...]:
    """Those that a node takes: the newest `KEPT` of each project, at most `MOST`, the newest first.

    ``staged``: digests of those that are to run here, which are taken too, and before others.
    """
    own = [each for each in releases if is_for(each, names)]
    ranked = sorted(own, key=lambda each: (-each.number, each.project, each.path))
    taken = [each for each in ranked if each.sha256 in staged or _rank(each, own) < KEPT]
    most = sorted(taken, key=lambda each: each.sha256 not in staged)[:MOST]
    return tuple(each for each in ranked if each in most)


def _rank(each: Target, among: Iterable[Target]) -> int:
    """How many of the same project are newer."""
    numbers = {other.number for other in among if other.project == each.project}
    return sum(number > each.number for number in numbers)


def offered(releases: Iterable[Target], staged: Collection[str] = ()) -> frozenset[str]:
    """Digests of the blobs that any node may still ask for; what a fog keeps for its edges."""
    found = tuple(releases)
    places = {each.where for each in found}
    groups = [[each for each in found if each.where == where] for where in places]
    return frozenset(
        each.digest
        for group in groups
        for each in group
        if each.sha256 in staged or _rank(each, group) < KEPT
    )


def kept(held: Iterable[Holding], asked: Collection[str]) -> tuple[Holding, ...]:
    """What stays on the disk: ``asked`` digests, and the newest `KEPT` of each project; at most `MOST`."""
    found = tuple(held)
    numbers = {of: sorted({each.version for each in found if each.project == of}) for of in _projects(found)}
    newest = [each for each in found if each.digest in asked or each.version in numbers[each.project][-KEPT:]]
    return tuple(sorted(newest, key=lambda each: (each.digest not in asked, -each.at))[:MOST])


def _projects(found: Iterable[Holding]) -> frozenset[str]:
    return frozenset(each.project for each in found)


def newest(releases: Iterable[Target], names: Collection[str]) -> dict[str, Target]:
    """The newest release of each project that is for a node."""
    found: dict[str, Target] = {}
    for each in releases:
        if is_for(each, names) and (each.project not in found or each.number > found[each.project].number):
            found[each.project] = each
    return found


def missing(
    releases: Iterable[Target],
    nodes: Mapping[str, Collection[str]],
    held: Mapping[str, Iterable[Holding]],
) -> list[tuple[str, Target]]:
    """Node and release of each that a node should hold, and has not verified.

    ``nodes``: each node's names, its own and its site's; ``held``: what each node last said.
    """
    found, all_of = [], tuple(releases)
    for node, names in sorted(nodes.items()):
        has = {each.digest for each in held.get(node, ()) if not each.refused}  # of the files
        found += [(node, each) for _, each in sorted(newest(all_of, names).items()) if each.sha256 not in has]
    return found
