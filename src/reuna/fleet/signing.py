"""Releases as signed targets of a fleet: signed where its keys are, and what those keys say of a release.

    releases/PROJECT-0001      the target of version 1; every version has its own, so that an older one
                               stays signed until somebody withdraws it

A release is signed whole or not at all: what fails leaves the trust folder as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reuna.core.errors import KeyProblem, ReunaError, StorageError, Untrusted
from reuna.core.foreign import told
from reuna.fleet.trust import ORDER, SETS, Ceremony, add_bytes
from reuna.trust import publish
from reuna.trust.metadata import TrustState, targets_of
from reuna.trust.parse import when
from reuna.trust.roles import KINDS
from reuna.trust.targets import Target, read_all, target
from reuna.wire import digest_bytes
from reuna.wire.release import Release

KIND = "release"
ROLE = KINDS[KIND].role
_KEY_SET = next(name for name, roles in SETS.items() if ROLE in roles)
TO_PUBLISH = "it is signed; `reuna trust publish` where the online keys are"
_SLUG = re.compile(r"[^a-z0-9._-]+")
#: What may be said of a release's signature.
STATES = {
    "signed": "the fleet's keys have signed it",
    "waits": "it is staged, and lacks a signature or its publication",
    "expired": "it was signed, and the time of that is over",
    "unsigned": "the fleet's keys say nothing of it",
    "unknown": "no trust folder was looked into",
}


@dataclass(frozen=True)
class Mark:
    """``state`` is one of `STATES`; ``path`` of the target, '' without one; ``why`` in words, or ''."""

    state: str
    path: str = ""
    why: str = ""


def target_name(project: str, version: int) -> str:
    """The name of a release's target, within its kind's folder.

    >>> target_name("Pumps, hall 2", 3)
    'pumps-hall-2-0003'
    """
    slug = _SLUG.sub("-", project.lower()).strip(".-_") or "project"
    return f"{slug[:80]}-{version:04d}"


def has_keys(ceremony: Ceremony) -> bool:
    """Whether one of the keys that sign releases lies in the trust folder. Opens none."""
    return any(ceremony.folder.glob(f"*/{_KEY_SET}-*.key"))


def sign(
    ceremony: Ceremony, found: Release, data: bytes, where: Sequence[str] | None = None
) -> dict[str, str]:
    """List a release among what nodes may accept; what still lacks a signature, by role.

    ``data`` is the file; ``where`` names the nodes and sites that it is for, none: all, or those that it
    is for already. Signed already so, nothing changes. Raises `KeyProblem`, `Untrusted`, `DiskFull`,
    and then the trust folder is as it was.
    """
    name = target_name(found.manifest.about.project, found.manifest.about.version)
    path = f"{KINDS[KIND].folder}/{name}"
    there = {each.path: each for each in ceremony.listed(ROLE)}.get(path)
    if there is not None and there.sha256 != found.digest:
        raise KeyProblem(
            f"{path} is signed with other bytes, {there.sha256[:16]} and not {found.digest[:16]}",
            f"A signed version never changes. If that one must go: `reuna trust withdraw {path}`.",
        )
    same = there is not None and (where is None or tuple(sorted(set(where))) == there.where)
    if same and ceremony.staged(ROLE) is None:
        return {}
    with _whole(ceremony, data):
        if same:
            return _settle(ceremony, ceremony.settle)
        return _settle(ceremony, lambda: add_bytes(ceremony, data, KIND, name, where=where or ()))


def _settle(ceremony: Ceremony, act: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Where no online key is, a list that is signed waits to be carried to them; that is no failure."""
    try:
        return act()
    except KeyProblem:
        staged = ceremony.staged(ROLE)
        if any((ceremony.folder / "online").glob("*.key")) or staged is None:
            raise
        return {ROLE: ceremony.lacking(ROLE, staged) or TO_PUBLISH}


@contextmanager
def _whole(ceremony: Ceremony, data: bytes) -> Iterator[None]:
    """When something fails, what was staged before is staged again, and no bytes are left."""
    staged = {role: ceremony.staged(role) for role in ORDER}
    kept = ceremony.folder / "targets" / digest_bytes(data)
    had = kept.exists()
    try:
        yield
    except BaseException:
        with suppress(OSError, StorageError):
            _restore(ceremony, staged)
            if not had:
                kept.unlink(missing_ok=True)
        raise


def _restore(ceremony: Ceremony, staged: Mapping[str, bytes | None]) -> None:
    for role, data in staged.items():
        if data is None:
            (ceremony.folder / "staged" / f"{role}.json").unlink(missing_ok=True)
        elif ceremony.staged(role) != data:
            ceremony.stage(role, data)


def unsigned_after(error: ReunaError, version: int, file: Path) -> ReunaError:
    """The same error, which says first what is there nevertheless."""
    said = f"release {version} is in {file}, the challenger, but it is not signed: {error.message}"
    step = f"{error.next_step} Then `reuna release sign {version}`."
    again = told(error.code, said, step, getattr(error, "reason", "")) or error
    again.next_step = step
    return again


def mark_at(folder: Path, digest: str, now: float) -> Mark:
    """What a trust folder says of a release's SHA-256, staged or published. Raises `Untrusted`.

    The folder is believed: this is for whoever keeps it. What a node would say is `mark`.
    """
    if not any((folder / "public").glob("*.root.json")):
        return Mark("unknown")
    ceremony = Ceremony(folder, now, _nobody)
    root = publish.read("root", ceremony.repository.newest("root")).signed
    published = publish.read(ROLE, ceremony.repository.newest(ROLE)).signed
    each = _named(read_all(published), digest)
    if each is not None:
        over = next((what.type for what in (root, published) if what.expires <= when(now)), "")
        return Mark("expired", each.path, f"{over} is over its time") if over else Mark("signed", each.path)
    waiting = ceremony.staged(ROLE)
    each = _named(read_all(publish.read(ROLE, waiting).signed), digest) if waiting else None
    if each is not None:
        return Mark("waits", each.path, ceremony.lacking(ROLE, waiting or b"") or TO_PUBLISH)
    return Mark("unsigned")


def mark(state: TrustState, digest: str, now: float) -> Mark:
    """What accepted metadata says of a release's SHA-256: what a node that accepted it would say."""
    try:
        each = _named(read_all(targets_of(state, ROLE)), digest)
        if each is None:
            return Mark("unsigned")
        return Mark("signed", target(state, each.path, now).path)
    except Untrusted as error:
        return Mark("expired" if error.reason == "expired" else "unsigned", "", error.message)


def demand(found: Mark, file: Path) -> None:
    """Raises `Untrusted` unless it is signed."""
    if found.state != "signed":
        reason = "expired" if found.state == "expired" else "unknown"
        raise Untrusted(reason, f"{file} is not signed by the fleet: {found.why or STATES[found.state]}")


def _named(listed: list[Target], digest: str) -> Target | None:
    return next((each for each in listed if each.kind == KIND and each.sha256 == digest), None)


def _nobody(path: Path) -> bytes:
    raise KeyProblem(f"{path} is not to be opened to look at a signature")
