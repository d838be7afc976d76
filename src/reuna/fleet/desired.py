"""A directory of TOML against a fleet: reads both, and makes the one of the other.

What is read: the directory, the catalogue of releases, and what the cloud says is published and held.
What is written: the catalogue's aliases, and the signed list of releases in the fleet's trust folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from reuna.adapters.files import replace_file, storage_error
from reuna.adapters.toml_file import read_toml
from reuna.core.desired import Desired, Has, Listed, Reality, Rolled, desired
from reuna.core.errors import KeyProblem, SettingsError, Untrusted
from reuna.core.settings import located
from reuna.core.trigger import Trigger
from reuna.fleet.holdings import Held
from reuna.fleet.release import Catalogue
from reuna.fleet.release import read as read_release
from reuna.fleet.rollout import FINAL
from reuna.fleet.signing import target_name
from reuna.fleet.trust import Ceremony
from reuna.loop import deploy
from reuna.trust import publish
from reuna.trust.roles import KINDS
from reuna.trust.targets import Target
from reuna.wire import digest_bytes
from reuna.wire.build import sha256
from reuna.wire.release import MAX_RELEASE

ROLE = KINDS["release"].role


def read_directory(folder: Path) -> Desired:
    """What the TOML files below a folder say together. Raises `SettingsError` with every mistake."""
    if not folder.is_dir():
        raise SettingsError(
            f"{folder} is no directory", "Name the one with the desired state; docs/how-to/gitops.md."
        )
    files = sorted(path for path in folder.rglob("*.toml") if not _hidden(path.relative_to(folder)))
    if not files:
        raise SettingsError(
            f"there is no TOML file in {folder}", "Write one; docs/how-to/gitops.md has an example."
        )
    sources, mistakes = [], []
    for file in files:
        try:
            found = read_toml(file)
        except SettingsError as error:
            mistakes.append(error.message)
            continue
        name = str(file.relative_to(folder))  # two files may have one name
        places = {key: f"{name}{place.removeprefix(file.name)}" for key, place in found.places.items()}
        sources.append(replace(found, origin=name, places=places))
    if mistakes:
        raise SettingsError("\n".join(mistakes), "Correct the lines named above.")
    return desired(sources)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def look(
    wanted: Desired,
    held: Held,
    fleet: str,
    releases: Path,
    triggered: Sequence[Mapping[str, Any]] = (),
    rollouts: Sequence[Mapping[str, Any]] = (),
) -> Reality:
    """What is there, as far as ``wanted`` is about it. Raises `Corrupted`, `NotUsable`.

    ``triggered``, ``rollouts``: as the operator's API tells of what begins runs by itself, and of rollouts.
    """
    rolled = rolled_of(rollouts)
    catalogues = {project: Catalogue.of(releases, project) for project in sorted(wanted.projects)}
    aliases = {project: found.aliases() for project, found in catalogues.items()}
    named = {(each.project, each.version) for each in wanted.placements} | set(wanted.champions.items())
    named |= {(project, version) for project, names in aliases.items() for version in names.values()}
    named |= {(project, n) for project, each in rolled.items() for n in (each.before, each.live, each.going)}
    catalogue = {
        project: {
            version: _digest(found.file(version)) if (project, version) in named else ""
            for version in found.versions()
        }
        for project, found in catalogues.items()
    }
    return Reality(
        fleet=fleet,
        nodes=held.sites,
        catalogue=catalogue,
        champions={project: names["champion"] for project, names in aliases.items() if "champion" in names},
        challengers={
            project: names["challenger"] for project, names in aliases.items() if "challenger" in names
        },
        listed=tuple(
            Listed(each.project, each.version, each.digest, tuple(sorted(each.where)), each.path)
            for each in held.releases
        ),
        held={
            node: {each.digest: Has(said.at, each.refused) for each in said.held}
            for node, said in held.said.items()
        },
        triggers={each["name"]: as_trigger(each) for each in triggered},
        rolled=rolled,
    )


def rolled_of(rollouts: Sequence[Mapping[str, Any]]) -> dict[str, Rolled]:
    """What rollouts have come to, by project; the newest are the first."""
    found: dict[str, Rolled] = {}
    for each in rollouts:
        before, version = found.get(each["project"], Rolled()), each["version"]
        going = version if each["phase"] not in FINAL else before.going
        done = [each for each in (before.live, before.before) if each]
        if each["phase"] == "done" and version not in done:
            done.append(version)
        live, earlier, *_ = (*done, 0, 0)
        last = before.last or version
        found[each["project"]] = Rolled(max(before.newest, version), live, earlier, going, last)
    return found


def as_trigger(told: Mapping[str, Any]) -> Trigger:
    """One as the operator's API tells of it, without how it stands."""
    return msgspec.convert({name: told[name] for name in Trigger.__struct_fields__ if name in told}, Trigger)


def _digest(file: Path) -> str:
    return sha256(_bytes(file))


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_RELEASE + 1)
    except OSError as error:
        raise storage_error(error, file) from error


def check(wanted: Desired, reality: Reality) -> None:
    """Raises `SettingsError` for what this fleet and catalogue cannot be, every line at its place."""
    found = deploy.mistakes(wanted, reality)
    if found:
        raise SettingsError(
            "\n".join(located(line, wanted.places) for line in found),
            "Correct each line named above, or bring what it names: a release, a node, the other fleet.",
        )


class Clockwork(Protocol):
    """What begins runs by itself (`reuna.fleet.client.Operator`)."""

    def put_trigger(self, trigger: Trigger) -> None: ...
    def drop_trigger(self, name: str) -> None: ...


def apply(
    plan: deploy.Plan,
    reality: Reality,
    releases: Path,
    open_trust: Callable[[], Ceremony],
    clockwork: Clockwork,
) -> tuple[list[str], dict[str, str]]:
    """Carry the changes out. What was done, and role -> what is left to do until its list is published.

    Raises `KeyProblem` where no trust folder is, `ReleaseNotFound`, `Untrusted`, `DiskFull`.
    """
    done = []
    for change in plan.changes:
        if change.what == "champion" and isinstance(change.after, int):
            Catalogue.of(releases, change.name).promote(change.after)
            done.append(f"champion of {change.name} is {change.after}")
        elif isinstance(change.after, Trigger):
            clockwork.put_trigger(change.after)
            done.append(f"kept: {deploy.line(change)[2:]}")
        elif isinstance(change.before, Trigger):
            clockwork.drop_trigger(change.name)
            done.append(f"{change.what} {change.name} is over")
    projects = {change.name for change in plan.changes if change.what == "release"}
    if not projects:
        return done, {}
    wanted = [each for each in deploy.carried_out(reality, plan.changes).listed if each.project in projects]
    lacking = arrange(open_trust(), projects, wanted, lambda each: _release(releases, each))
    if not lacking:
        done += [f"published: {each.project} {each.version} for {_places(each)}" for each in wanted]
    return done, lacking


def _places(each: Listed) -> str:
    return ", ".join(each.where) or "every node"


def _release(releases: Path, each: Listed) -> bytes:
    """The bytes of a release of the catalogue, read whole. Raises `ReleaseNotFound`, `Untrusted`."""
    catalogue = Catalogue.of(releases, each.project)
    file = catalogue.file(catalogue.version(each.version))
    found = read_release(file)
    about = found.manifest.about
    if (about.project, about.version, found.digest) != (each.project, each.version, each.digest):
        raise Untrusted("mismatch", f"{file} is {about.project} {about.version}, {found.digest[:12]}")
    return _bytes(file)


def arrange(
    ceremony: Ceremony, projects: set[str], wanted: Sequence[Listed], content: Callable[[Listed], bytes]
) -> dict[str, str]:
    """List these releases of the projects and no others; role -> what is left to do for that.

    A list that waits for signatures and says the same already is not made anew: that would lose those
    that it has.
    """
    _check_folder(ceremony)
    now = ceremony.listed(ROLE)
    others = [each for each in now if not (each.kind == "release" and each.project in projects)]
    own = {(each.project, each.number): each for each in now if each not in others}
    new = [_target(each, own.get((each.project, each.version)), ceremony, content) for each in wanted]
    if _as_set([*others, *new]) != _as_set(now):
        ceremony.restage(ROLE, [*others, *new])
    return settle(ceremony)


def _as_set(listed: Sequence[Target]) -> set[bytes]:
    return {msgspec.json.encode(each) for each in listed}


def _check_folder(ceremony: Ceremony) -> None:
    if not any((ceremony.folder / "public").glob("*.root.json")):
        raise KeyProblem(
            f"{ceremony.folder} is no trust folder of a fleet, so nothing can be signed here",
            "Name it with --trust, or apply on the machine that has it.",
        )


def _target(
    each: Listed, before: Target | None, ceremony: Ceremony, content: Callable[[Listed], bytes]
) -> Target:
    """How it is listed: as before but for its places, or anew with its bytes."""
    if before is not None and before.sha256 == each.digest:
        same = before.where == each.where
        return (
            before if same else msgspec.structs.replace(before, where=each.where, version=before.version + 1)
        )
    data = content(each)
    digest = digest_bytes(data)
    (ceremony.folder / "targets").mkdir(parents=True, exist_ok=True)
    replace_file(ceremony.folder / "targets" / digest, data, 0o644)
    own = each.path or f"releases/{target_name(each.project, each.version)}"
    path = before.path if before is not None else own
    number = before.version + 1 if before is not None else 1
    return Target(
        path,
        "release",
        number,
        len(data),
        digest,
        each.digest,
        "",
        {},
        each.project,
        each.version,
        each.where,
    )


def settle(ceremony: Ceremony) -> dict[str, str]:
    """Sign with the keys at hand, and publish: role -> what is left to do, by whom; empty when nothing is."""
    try:
        if not ceremony.settle():
            return {}
    except KeyProblem:
        if any((ceremony.folder / "online").glob("*.key")) or not ceremony.waiting():
            raise  # else it waits to be carried to where the online keys are
    return staged(ceremony)


def staged(ceremony: Ceremony) -> dict[str, str]:
    """What waits in a trust folder, and for whom; nothing where there is no such folder."""
    if not any((ceremony.folder / "public").glob("*.root.json")):
        return {}
    found = {role: data for role in ceremony.waiting() if (data := ceremony.staged(role)) is not None}
    return {role: _left(ceremony, role, data) for role, data in found.items()}


def _left(ceremony: Ceremony, role: str, data: bytes) -> str:
    if not ceremony.lacking(role, data):
        return "is signed; reuna trust publish where the online keys are"
    if role != ROLE:
        return f"waits: {ceremony.lacking(role, data)}"
    ring = publish.rings("root", ceremony.newest("root"))[role]
    keys = {publish.key_of(key).keyid for key in ring.keys}
    signed = keys & publish.signatures(role, data)
    more, named = ring.threshold - len(signed), ", ".join(sorted(key[:8] for key in keys - signed))
    file = ceremony.folder / "staged" / f"{role}.json"
    ending = "s" if more > 1 else ""
    return f"waits for {more} more signature{ending}, of {named}: reuna trust sign {file} --key KEY"
