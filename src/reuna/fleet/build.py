"""Makes a build of a commit of a project; docs/reference/build.md has its bytes.

Who builds, when and where has no part in it: the same commit, packages and Reuna give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from reuna import __version__
from reuna.adapters import git
from reuna.adapters.installed import find_installed
from reuna.adapters.lock_files import read_lock
from reuna.adapters.project import (
    CODE,
    CONFIGURATION,
    MAX_FILE,
    check_sizes,
    is_code,
    is_looked_at,
    links,
    pack_code,
    read_code,
)
from reuna.adapters.toml_file import parse_toml
from reuna.core.environment import Environment
from reuna.core.errors import ProjectError, SettingsError
from reuna.core.foreign import readable
from reuna.core.project import ProjectSettings, project_settings
from reuna.learn.strategies import TAKES
from reuna.trust.provenance import LOCAL, Claim
from reuna.wire import build as wire
from reuna.wire import digest_bytes
from reuna.wire.build import LOCKS, MAX_NAME, Build
from reuna.wire.sbom import sbom

HEAD = "HEAD"
MAX_LOCK = 8 << 20  #: bytes
_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,500}")


@dataclass(frozen=True)
class Made:
    """A build's bytes, what is in them, and what is claimed about them."""

    data: bytes
    build: Build
    claim: Claim


def make(project: Path, revision: str = HEAD, *, dirty: bool = False, builder: str = LOCAL) -> Made:
    """Build a commit of the project; with ``dirty`` its folder as it is, on top of the commit.

    Raises `ProjectError`: no commit, a change that is not in it, something that no build may hold.
    Raises `SettingsError`, `ExtraMissing`.
    """
    if dirty and revision != HEAD:
        raise SettingsError("--dirty builds the folder, --commit a commit", "Give one of them.")
    if not _URI.fullmatch(builder):
        raise SettingsError(
            f"the builder {builder!r} is no URI", "Name it as in https://ci.example.org/line-4."
        )
    checkout = git.open_checkout(project, revision)
    changed = changes(checkout) if revision == HEAD else []
    if changed and not dirty:
        some = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise ProjectError(
            f"not as in commit {checkout.commit[:12]}: {some}",
            "Commit it, or build it as it is with --dirty.",
        )
    data = assemble(_in_folder_without_links(project) if dirty else committed(checkout))
    build = wire.decode(data)
    claim = Claim(
        name=file_name(build),
        digest=build.digest,
        commit=checkout.commit,
        remote=git.remote(checkout),
        path=checkout.path,
        dirty=bool(changed),
        builder=builder,
        version=__version__,
    )
    return Made(data, build, claim)


def assemble(files: Mapping[str, bytes]) -> bytes:
    """The build of a project's files by their path in it: a function of their bytes, and of what is installed
    when there is no lock among them. Raises `ProjectError`, `SettingsError`, `ExtraMissing`.
    """
    if CONFIGURATION not in files:
        raise ProjectError(
            f"the project has no {CONFIGURATION} there", "Commit it, or name the project's folder."
        )
    settings = settings_in(files[CONFIGURATION])
    if not 1 <= len(settings.name) <= MAX_NAME:
        raise SettingsError(f"project.name has {len(settings.name)} characters, not 1 to {MAX_NAME}")
    bundle = pack_code({name: data for name, data in files.items() if is_code(name)})
    environment, lock = environment_of(files)
    parts = {
        wire.CODE: bundle,
        wire.SETTINGS: files[CONFIGURATION],
        wire.PLAN: plan_of(settings),
        wire.ENVIRONMENT: wire.canonical(msgspec.to_builtins(environment)),
        wire.SBOM: bill(settings.name, bundle, environment),
    }
    return wire.encode(settings.name, parts if lock is None else {**parts, lock: files[lock]})


def environment_of(files: Mapping[str, bytes]) -> tuple[Environment, str | None]:
    """The packages that a project's files need, and the lock among them that says so; without one what is
    installed here. Raises `ProjectError`, `ExtraMissing`.
    """
    lock = next((name for name in LOCKS if name in files), None)
    if lock is not None:
        return read_lock(lock, files[lock]), lock
    return find_installed({name: data for name, data in files.items() if is_code(name)}), None


def bill(project: str, bundle: bytes, environment: Environment) -> bytes:
    """The bill of materials of a bundle of code with its packages."""
    return sbom(project, digest_bytes(bundle), wire.sha256(bundle), environment)


def settings_in(data: bytes) -> ProjectSettings:
    """What a ``reuna.toml`` says, without environment and flags. Raises `SettingsError`."""
    return project_settings([parse_toml(CONFIGURATION, data)], TAKES)


def plan_of(settings: ProjectSettings) -> bytes:
    """The checked settings of a project, every default written out. Raises `SettingsError`."""
    try:
        return wire.canonical(msgspec.to_builtins(settings))
    except ValueError as error:
        raise SettingsError(f"{CONFIGURATION} has a number that no plan can hold: {error}") from error


def file_name(build: Build) -> str:
    """What a build's file is called: its project and the beginning of its digest."""
    name = _NAME.sub("-", build.manifest.project).strip("-.")[:80] or "project"
    return f"{name}-{build.digest[:12]}.build.tar"


def committed(checkout: git.Checkout) -> dict[str, bytes]:
    """The files of a commit that a build is made of. Raises `ProjectError`."""
    listed = [each for each in git.listing(checkout) if is_looked_at(each.name)]
    for each in listed:
        if each.mode == git.SUBMODULE or (each.mode == git.SYMLINK and _may_lead_to_code(each.name)):
            raise _no_plain_file(each.name, "submodule" if each.mode == git.SUBMODULE else "symbolic link")
    wanted = [each for each in listed if _is_part(each.name)]
    _check_sizes({each.name: each.size for each in wanted})
    return git.contents(checkout, wanted)


def in_folder(project: Path) -> dict[str, bytes]:
    """The same of a folder as it is, as `pack_bundle` reads it. Raises `ProjectError`."""
    files = {name: project / name for name in (CONFIGURATION, *LOCKS) if (project / name).is_file()}
    _check_sizes({name: path.stat().st_size for name, path in files.items()})
    return {**read_code(project), **{name: path.read_bytes() for name, path in files.items()}}


def _in_folder_without_links(project: Path) -> dict[str, bytes]:
    for name in links(project):
        if _may_lead_to_code(name):
            raise _no_plain_file(name, "symbolic link")
    return in_folder(project)


def _no_plain_file(name: str, what: str) -> ProjectError:
    said = f"{readable(name)} is a {what}: a build holds plain files"
    return ProjectError(said, "Put a copy in its place.")


def changes(checkout: git.Checkout) -> list[str]:
    """Paths of what a build is made of and is not as committed, for a person to read."""
    return [readable(name) for name in git.changes(checkout) if _is_part(name)]


def _is_part(name: str) -> bool:
    return name == CONFIGURATION or name in LOCKS or is_code(name)


def _may_lead_to_code(name: str) -> bool:
    """Whether the link's name may be that of a folder or of a file that a build holds."""
    return PurePosixPath(name).suffix in {"", *CODE} or _is_part(name)


def _check_sizes(sizes: Mapping[str, int]) -> None:
    check_sizes({name: size for name, size in sizes.items() if is_code(name)})
    for name, limit in ((CONFIGURATION, MAX_FILE), *((lock, MAX_LOCK) for lock in LOCKS)):
        if sizes.get(name, 0) > limit:
            raise ProjectError(
                f"{name} has {sizes[name]} bytes, over the limit of {limit}", "Make it smaller."
            )
