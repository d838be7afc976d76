"""Which releases are listed where, and which rollout begins: what is wanted against what is there. Pure.

`plan` says what has to change and what goes on; `carried_out` is what is there afterwards. A release that
is rolled out is listed once its rollout is there, which holds every node at what it has: waves, soak and the
way back are its own (`reuna.loop.rollout`).

    desired, reality, now -> plan;  carried_out(reality, plan.changes) -> reality
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from reuna.core.desired import ALL, TRAINED, Desired, Listed, Placement, Reality, Rolled, Trained
from reuna.core.trigger import Trigger, as_plain, when

Sign = Literal["+", "~", "-"]
MOST = 2**31  #: a version
Thing = int | Listed | Trigger


@dataclass(frozen=True)
class Change:
    """One difference, of a project or of the schedule or trigger called so.

    ``before`` and ``after``: the champion's version, a listed release or a trigger; None: none. Of a rollout
    the versions that are live and that it begins with.
    """

    what: Literal["champion", "release", "schedule", "trigger", "rollout"]
    name: str
    before: Thing | None
    after: Thing | None

    @property
    def sign(self) -> Sign:
        """As a build plan shows it."""
        return "+" if self.before is None else "-" if self.after is None else "~"


@dataclass(frozen=True)
class Drift:
    """A node that does not hold what it should and may: ``why`` is a refusal, or '' for not yet."""

    node: str
    site: str
    project: str
    version: int
    why: str = ""


@dataclass(frozen=True)
class Going:
    """A rollout that goes on."""

    project: str
    version: int


@dataclass(frozen=True)
class Plan:
    """What is different, which rollouts go on, what nodes do not hold although they may, what was trained.

    A run that will not be released leaves the fleet as it is wanted.
    """

    changes: tuple[Change, ...] = ()
    going: tuple[Going, ...] = ()
    drift: tuple[Drift, ...] = ()
    trained: tuple[Trained, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the fleet is as it is wanted."""
        under_way = any(each.state in ("ready", "waits") for each in self.trained)
        return not (self.changes or self.going or self.drift or under_way)


def mistakes(desired: Desired, reality: Reality) -> list[str]:
    """What of the desired state this fleet and catalogue cannot be; each begins with a setting's name."""
    desired = resolved(desired, reality)
    if desired.fleet != reality.fleet:
        return [f"fleet.name is {desired.fleet!r}, the fleet that answers is {reality.fleet!r}"]
    found = []
    for project, version in desired.champions.items():
        if version not in reality.catalogue.get(project, {}):
            found.append(f"projects.{project}.champion is {version}: {_there(project, reality)}")
    for name, members in desired.cohorts.items():
        found += [
            f"cohorts.{name}.members names {each!r}, which is no site and no node of this fleet"
            for each in members
            if not _of(each, reality)
        ]
    for each in desired.placements:
        if not each.version:
            found.append(f"placements.{each.name} follows the {each.follows}, and {each.project} has none")
        elif _digest(each.project, each.version, reality) is None:
            found.append(
                f"placements.{each.name} is of version {each.version}: {_there(each.project, reality)}"
            )
        found += [
            f"placements.{each.name}.waves names {wave!r}, which is no cohort, site or node of this fleet"
            for wave in each.waves
            if wave != ALL and wave not in desired.cohorts and not _of(wave, reality)
        ]
    return found or list(_overlaps(desired, reality))


def _there(project: str, reality: Reality) -> str:
    versions = ", ".join(map(str, sorted(reality.catalogue.get(project, {})))) or "none"
    return f"the catalogue of {project} has {versions}"


def _overlaps(desired: Desired, reality: Reality) -> Iterable[str]:
    """Two placements of one project for one node: nobody could say which it should have."""
    for number, one in enumerate(desired.placements):
        for other in desired.placements[number + 1 :]:
            both = _reach(one, desired, reality) & _reach(other, desired, reality)
            open_ended = ALL in one.waves and ALL in other.waves
            if one.project == other.project and (both or open_ended):
                named = ", ".join(sorted(both)[:3]) or "every node"
                yield f"placements.{other.name} is for {named} too, as placements.{one.name} is"


def resolved(desired: Desired, reality: Reality) -> Desired:
    """With the version of each placement that follows an alias; 0 where there is none.

    Where releases come from what the cloud trains, such a placement waits for the first one, left out.
    """
    champions = {**reality.champions, **desired.champions}
    challengers = {**champions, **reality.challengers}
    follows = {"champion": champions, "challenger": challengers}
    found = (
        each if each.version else replace(each, version=follows[each.follows].get(each.project, 0))
        for each in desired.placements
    )
    there = (each for each in found if each.version or each.project not in desired.sources)
    return replace(desired, placements=tuple(there))


def plan(desired: Desired, reality: Reality) -> Plan:
    """What has to change. The desired state has no `mistakes` here."""
    desired = resolved(desired, reality)
    changes: list[Change] = []
    for project in sorted(desired.projects):
        wanted = desired.champions.get(project)
        if wanted is not None and wanted != reality.champions.get(project):
            changes.append(Change("champion", project, reality.champions.get(project), wanted))
        changes += _rollout(project, desired, reality) or _differences(project, desired, reality)
    changes += [
        _trigger(name, reality.triggers.get(name), desired.triggers.get(name))
        for name in sorted({*desired.triggers, *reality.triggers})
        if desired.triggers.get(name) != reality.triggers.get(name)
    ]
    going = (Going(name, reality.rolled.get(name, Rolled()).going) for name in sorted(desired.rollouts))
    return Plan(
        tuple(changes),
        tuple(each for each in going if each.version),
        tuple(_drift(desired, reality)),
        reality.trained,
    )


def placement_of(desired: Desired, project: str) -> Placement | None:
    """Where a project that is rolled out leads."""
    return next((each for each in desired.placements if each.project == project), None)


def _rollout(project: str, desired: Desired, reality: Reality) -> list[Change]:
    """The rollout that is to begin: of the version that is wanted, once, and while none goes on.

    One that is newer than all before, or older than what is live: what was given up, or left by a person
    who went back, is not begun again by itself.
    """
    rolled, placed = reality.rolled.get(project, Rolled()), placement_of(desired, project)
    if project not in desired.rollouts or placed is None or rolled.going:
        return []
    version = placed.version
    back = version < rolled.live and version != rolled.last
    return (
        [Change("rollout", project, rolled.live or None, version)] if version > rolled.newest or back else []
    )


def _kept(project: str, desired: Desired, reality: Reality) -> frozenset[int]:
    """Versions that rollouts still need in the list: the ways back, and what goes out."""
    rolled = reality.rolled.get(project, Rolled())
    needed = frozenset({rolled.before, rolled.live, rolled.going} - {0})
    return needed if project in desired.rollouts else frozenset()


def _trigger(name: str, before: Trigger | None, after: Trigger | None) -> Change:
    either = after or before
    return Change("schedule" if either and either.on == "clock" else "trigger", name, before, after)


def carried_out(reality: Reality, changes: Iterable[Change]) -> Reality:
    """What is there when the changes were made."""
    champions, listed, triggers = dict(reality.champions), list(reality.listed), dict(reality.triggers)
    rolled = dict(reality.rolled)
    for change in changes:
        if change.what == "rollout" and isinstance(change.after, int):
            begun = rolled.get(change.name, Rolled())
            most = max(begun.newest, change.after)
            rolled[change.name] = replace(begun, newest=most, going=change.after, last=change.after)
            continue
        if isinstance(change.before, Trigger):
            triggers.pop(change.name, None)
        if isinstance(change.after, Trigger):
            triggers[change.name] = change.after
        if isinstance(change.after, int):
            champions[change.name] = change.after
        if isinstance(change.before, Listed):
            listed.remove(change.before)
        if isinstance(change.after, Listed):
            listed.append(change.after)
    return replace(reality, champions=champions, listed=tuple(listed), triggers=triggers, rolled=rolled)


def newest(listed: Iterable[Listed], project: str, node: str, site: str) -> Listed | None:
    """What a node is to hold of a project."""
    own = [each for each in listed if each.project == project and covers(each, node, site)]
    return max(own, key=lambda each: each.version, default=None)


def covers(each: Listed, node: str, site: str) -> bool:
    """Whether a listed release is for a node."""
    return not each.where or node in each.where or site in each.where


# --- where each release is listed next ----------------------------------------------------------------


def _listing(project: str, desired: Desired, reality: Reality) -> list[Listed]:
    """How a project is to be listed: as its placements say, and what its rollouts need."""
    begun = reality.rolled.get(project, Rolled()).newest if project in desired.rollouts else MOST
    placed = [each for each in desired.placements if each.project == project and each.version <= begun]
    found = _final(placed, desired, reality)
    kept = sorted(_kept(project, desired, reality) - {each.version for each in found})
    before = [_as_listed(project, each, (), reality) for each in kept if _digest(project, each, reality)]
    return [*before, *found]


def _final(placements: Iterable[Placement], desired: Desired, reality: Reality) -> list[Listed]:
    """The names as they are written, so that later nodes of a site count too."""
    found = list(placements)
    names: dict[int, set[str]] = {}
    for each in found:
        older = any(other.version < each.version for other in found)
        if ALL not in each.waves:
            written = {name for wave in each.waves for name in desired.cohorts.get(wave, (wave,))}
        elif older:  # the newest that is for a node counts, so this one must not be for those
            written = set(_reach(each, desired, reality))
        else:
            written = {ALL}
        names.setdefault(each.version, set()).update(written)
    return [
        _as_listed(found[0].project, version, () if ALL in of else tuple(sorted(of)), reality)
        for version, of in sorted(names.items())
        if of
    ]


def _as_listed(project: str, version: int, where: tuple[str, ...], reality: Reality) -> Listed:
    digest = _digest(project, version, reality)
    assert digest is not None  # what has no digest is one of the mistakes
    same = next((old for old in reality.listed if (old.project, old.version) == (project, version)), None)
    return Listed(project, version, digest, where, same.path if same else "")


def _differences(project: str, desired: Desired, reality: Reality) -> list[Change]:
    wanted = _listing(project, desired, reality)
    before = [each for each in reality.listed if each.project == project]
    found = []
    for each in wanted:
        old = next((old for old in before if old.version == each.version), None)
        if old is not None:
            before.remove(old)
        if old != each:
            found.append(Change("release", project, old, each))
    return found + [Change("release", project, old, None) for old in before]


def _reach(each: Placement, desired: Desired, reality: Reality) -> frozenset[str]:
    """Nodes that a placement is for: one for all is for those that no other of the project names."""
    own = frozenset().union(*(_nodes(wave, desired, reality) for wave in each.waves))
    if ALL not in each.waves:
        return own
    others = (
        _nodes(wave, desired, reality)
        for other in desired.placements
        if other.project == each.project and ALL not in other.waves
        for wave in other.waves
    )
    return own.difference(*others)


def _drift(desired: Desired, reality: Reality) -> Iterable[Drift]:
    for each in desired.placements:
        digest = _digest(each.project, each.version, reality)
        for node in sorted(_reach(each, desired, reality)):
            site = reality.nodes[node]
            may = newest(reality.listed, each.project, node, site)
            if may is None or (may.version, may.digest) != (each.version, digest):
                continue  # that is one of the changes
            has = reality.held.get(node, {}).get(may.digest)
            if has is None or has.refused:
                yield Drift(node, site, each.project, each.version, has.refused if has else "")


def _nodes(name: str, desired: Desired, reality: Reality) -> frozenset[str]:
    """Nodes of a wave."""
    if name == ALL:
        return frozenset(reality.nodes)
    members = desired.cohorts.get(name, (name,))
    return frozenset().union(*(_of(each, reality) for each in members))


def _of(name: str, reality: Reality) -> frozenset[str]:
    """The node of that name, or those of the site."""
    return frozenset(node for node, site in reality.nodes.items() if name in (node, site))


def _digest(project: str, version: int, reality: Reality) -> str | None:
    """Of the catalogue, else of what is listed."""
    found = reality.catalogue.get(project, {}).get(version)
    listed = (each.digest for each in reality.listed if (each.project, each.version) == (project, version))
    return found if found is not None else next(listed, None)


# --- what the cloud trained by itself ------------------------------------------------------------------


def next_trained(
    runs: Iterable[Mapping[str, Any]], project: str, released: Container[str]
) -> Mapping[str, Any] | None:
    """The run of a project that may be released next, if any: the newest that the cloud began by itself.

    ``runs``: as the cloud lists them, the newest first. One that is older than a released run is over.
    """
    for run in runs:
        if run["project"] != project:
            continue
        if run["run"] in released:
            return None
        if run.get("why") and run["state"] == "done":
            return run
    return None


# --- for people and scripts ---------------------------------------------------------------------------


def lines(found: Plan) -> list[str]:
    """As a build plan shows it."""
    return [line(change) for change in found.changes]


def line(change: Change) -> str:
    """One change, its sign first."""
    if isinstance(change.after, int):
        was = f"{change.before} → " if change.before is not None else ""
        return f"{change.sign} {change.what} of {change.name}: {was}{change.after}"
    before, after = change.before, change.after
    if isinstance(before, Trigger) or isinstance(after, Trigger):
        was, now = _when(before), _when(after)
        return f"{change.sign} {change.what} {change.name}: {was}{' → ' if was and now else ''}{now}"
    either = after if isinstance(after, Listed) else before
    assert isinstance(either, Listed)
    said = f"{change.sign} release {change.name} {either.version}"
    if isinstance(before, Listed) and isinstance(after, Listed):
        other = f", {before.digest[:12]} → {after.digest[:12]}" if before.digest != after.digest else ""
        return f"{said}: {_places(before)} → {_places(after)}{other}"
    return f"{said}: {_places(either)}"


def _when(each: Thing | None) -> str:
    return f"{each.again} again, {when(each)}" if isinstance(each, Trigger) else ""


_SIGNS = {"ready": "+", "waits": "…", "same": "="}


def trained_line(each: Trained) -> str:
    """What becomes of a run that the cloud began by itself: + next, … waits, ✗ not released."""
    said = f": {each.said}" if each.said else ""
    return (
        f"{_SIGNS.get(each.state, '✗')} {each.run} of {each.project}, {each.why}, {TRAINED[each.state]}{said}"
    )


def _places(each: Listed) -> str:
    return ", ".join(each.where) or "every node"


def as_dict(found: Plan) -> dict[str, Any]:
    """Plain values, for JSON."""
    counts = {name: sum(each.sign == sign for each in found.changes) for name, sign in _COUNTED.items()}
    return {
        "changes": [
            {"sign": each.sign, "what": each.what, "name": each.name, "before": _plain(each.before),
             "after": _plain(each.after)}
            for each in found.changes
        ],
        "going": [vars(each) for each in found.going],
        "drift": [vars(each) for each in found.drift],
        "trained": [vars(each) for each in found.trained],
        "counts": {**counts, "going": len(found.going), "drift": len(found.drift)},
    }  # fmt: skip


_COUNTED: Mapping[str, Sign] = {"add": "+", "change": "~", "remove": "-"}


def _plain(value: Thing | None) -> Any:
    if isinstance(value, Trigger):
        return as_plain(value)
    return vars(value) if isinstance(value, Listed) else value
