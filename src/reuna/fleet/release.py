"""Makes a release of a finished run whose gates hold, and keeps the catalogue of releases.

releases/PROJECT/0001.release     docs/reference/release.md
releases/PROJECT/0001.approval.json   who allowed it, where the project asks for a second person
releases/PROJECT/aliases.json     {"champion": 1, "challenger": 2, "previous": …}
releases/PROJECT/adding           the version that is being added, only while it is
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import replace_file, storage_error
from reuna.adapters.onnx_export import with_golden
from reuna.adapters.project import pack_bundle
from reuna.core.bins import merged
from reuna.core.contract import contract
from reuna.core.errors import Corrupted, NotReleased, ReleaseNotFound
from reuna.core.project import ProjectSettings
from reuna.core.records import ReleaseAsked
from reuna.fleet.bill import papers
from reuna.fleet.card import card
from reuna.fleet.export import graph_of
from reuna.fleet.gates import sentence
from reuna.fleet.open_project import open_settings
from reuna.loop.release import Judged, judge_run
from reuna.wire import digest_bytes, release
from reuna.wire.build import canonical
from reuna.wire.release import About, Release

ALIASES = ("champion", "challenger", "previous")
ENDING = ".release"
_SLUG = re.compile(r"[^A-Za-z0-9._-]+")
#: what of a result stands in a lineage
KEPT = ("run", "project", "task", "metric", "rounds", "strategy", "model_digest", "worst_site", "sites")
#: and what else, if it was told
TOLD = ("data", "approvals", "heads")


#: A second person's word on a release: the proposal that was approved. Raises `NotReleased`.
Approve = Callable[[ReleaseAsked], dict[str, Any]]


@dataclass(frozen=True)
class Catalogue:
    """The releases of one project in a folder."""

    folder: Path

    @classmethod
    def of(cls, releases: Path, project: str) -> Catalogue:
        """The catalogue of a project below the folder of all releases."""
        return cls(releases / (_SLUG.sub("-", project).strip(".-") or "project"))

    def versions(self) -> list[int]:
        """Versions there are, oldest first."""
        files = self.folder.glob(f"*{ENDING}")
        return sorted(int(file.stem) for file in files if file.stem.isascii() and file.stem.isdigit())

    def file(self, version: int) -> Path:
        """Where a version lies."""
        return self.folder / f"{version:04d}{ENDING}"

    def aliases(self) -> dict[str, int]:
        """Alias -> version. Raises `Corrupted`, `NotUsable`."""
        file = self.folder / "aliases.json"
        try:
            found = json.loads(file.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise storage_error(error, file) from error
        except (ValueError, RecursionError) as error:
            raise Corrupted(
                f"{file} cannot be read: {error}", f"Remove {file}, and promote again."
            ) from error
        if not isinstance(found, dict) or not all(
            name in ALIASES and type(version) is int for name, version in found.items()
        ):
            raise Corrupted(f"{file} is no list of aliases", f"Remove {file}, and promote again.")
        return found

    def read(self, wanted: str | int) -> Release:
        """The release of that version or alias. Raises `ReleaseNotFound`, `Untrusted`, `NotUsable`."""
        return read(self.file(self.version(wanted)))

    def runs(self) -> set[str]:
        """Runs that were released, as each file says at its start. Raises `Untrusted`, `NotUsable`."""
        return {release.about(_read(self.file(version), release.HEAD)).run for version in self.versions()}

    def version(self, wanted: str | int) -> int:
        """The number behind an alias or a number. Raises `ReleaseNotFound`."""
        known, aliases = self.versions(), self.aliases()
        number = aliases.get(
            str(wanted), int(wanted) if str(wanted).isascii() and str(wanted).isdigit() else 0
        )
        if number not in known:
            there = ", ".join([*map(str, known), *sorted(aliases)]) or "none yet"
            raise ReleaseNotFound(f"there is no release {wanted!r} in {self.folder}; there are: {there}")
        return number

    def champion(self) -> Release | None:
        """The release that is champion."""
        return self.read("champion") if "champion" in self.aliases() else None

    def add(self, found: Release, data: bytes, approval: Mapping[str, Any] | None = None) -> Path:
        """Keep a release under its version, as the challenger. Raises `NotUsable`, `DiskFull`, `Corrupted`.

        What is killed half-way is either not there, or named by `finish`.
        """
        version = found.manifest.about.version
        self.folder.mkdir(parents=True, exist_ok=True)
        self.finish()
        if approval is not None:
            replace_file(self._approval(version), canonical(dict(approval)), 0o644)
        replace_file(self._adding, b"%d" % version, 0o644)
        replace_file(self.file(version), data, 0o644)
        self.finish()
        return self.file(version)

    def finish(self) -> None:
        """Name the release that was being added last, if it is here and has no name yet."""
        try:
            version = int(self._adding.read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(error, self._adding) from error
        except ValueError as error:
            raise Corrupted(f"{self._adding} names no version", f"Remove {self._adding}.") from error
        names = self.aliases()
        if version in self.versions() and version not in names.values():
            self._name({**names, "challenger": version})
        self._adding.unlink(missing_ok=True)

    @property
    def _adding(self) -> Path:
        return self.folder / "adding"

    def promote(self, wanted: str | int) -> dict[str, int]:
        """Make a release the champion; the one before is previous. Returns the aliases.

        The release is read and checked first. Raises `ReleaseNotFound`, `Untrusted`.
        """
        self.read(wanted)
        number, before = self.version(wanted), self.aliases()
        after = {"champion": number}
        if before.get("champion", number) != number:
            after["previous"] = before["champion"]
        elif "previous" in before:
            after["previous"] = before["previous"]
        if before.get("challenger", number) != number:
            after["challenger"] = before["challenger"]
        self._name(after)
        return after

    def approval(self, version: int) -> dict[str, Any] | None:
        """The proposal by which a second person allowed that release; None when nobody was asked."""
        file = self._approval(version)
        try:
            found: dict[str, Any] = json.loads(file.read_bytes())
            return {name: found[name] for name in ("id", "by", "decided_by", "decided_at", "summary")}
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, file) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Corrupted(
                f"{file} cannot be read: {error}", "Take it from where it was made again."
            ) from error

    def _approval(self, version: int) -> Path:
        return self.folder / f"{version:04d}.approval.json"

    def _name(self, aliases: Mapping[str, int]) -> None:
        replace_file(self.folder / "aliases.json", canonical(dict(aliases)), 0o644)


@dataclass(frozen=True)
class Made:
    """A release that was made: its file, what is in it, what its gates said."""

    file: Path
    release: Release
    gates: dict[str, Any]


def make(
    run: Path,
    result: Mapping[str, Any],
    project: Path,
    releases: Path,
    sets: list[str] | None = None,
    approve: Approve | None = None,
) -> Made:
    """Release a run's model, once every gate holds at every site against the champion.

    ``approve`` brings a second person's word where the project asks for one. Raises `NotReleased` when a gate
    does not hold, the code has changed since the run, or nobody agreed; else as `graph_of`.
    """
    settings = open_settings(project, sets or [])
    catalogue = Catalogue.of(releases, result["project"])
    champion = catalogue.champion()
    before = lineage(champion) if champion else None
    judged = judge_run(settings.gates, result, before, settings.machines, settings.offline)
    _check_gates(judged)
    code = pack_bundle(project)
    if (result.get("asked") or {}).get("bundle") != digest_bytes(code):
        raise NotReleased(
            f"the code in {project.absolute()} is not the code of {result['run']}",
            "Check out the commit of the run, or run the new code first.",
        )
    graph, difference = graph_of(run, result, project, settings)
    version = max(catalogue.versions(), default=0) + 1
    about = About(
        result["project"], version, result["run"], result["model_digest"], champion.digest if champion else ""
    )
    parts = _parts(about, result, settings, judged, code, graph, difference)
    data = release.encode(about, {**parts, **papers(run, project, settings.name, code)})
    found = release.decode(data)
    approval = _approval(found, judged, approve) if settings.approval else None
    return Made(catalogue.add(found, data, approval), found, judged.as_dict())


def _approval(found: Release, judged: Judged, approve: Approve | None) -> dict[str, Any]:
    about = found.manifest.about
    if approve is None:
        raise NotReleased(
            f"{about.project} {about.version} needs a second person's word", "Sign in: `reuna login`."
        )
    return approve(
        ReleaseAsked(about.project, about.version, about.run, found.digest, sentence(judged.as_dict())[:400])
    )


def _check_gates(judged: Judged) -> None:
    if judged.decision != "pass":
        raise NotReleased(
            f"{judged.run} is {sentence(judged.as_dict())}", f"Look at every site: `reuna gate {judged.run}`."
        )


def _parts(
    about: About,
    result: Mapping[str, Any],
    settings: ProjectSettings,
    judged: Judged,
    code: bytes,
    graph: bytes,
    difference: float | None,
) -> dict[str, bytes]:
    history = _history(about, result, settings)
    agreed = msgspec.json.decode(msgspec.json.encode(contract(settings.settings)))
    gates = judged.as_dict()
    spread = result.get("bins") or merged(contract(settings.settings), [])
    texts = {release.BINS: spread, release.CONTRACT: agreed, release.GATES: gates, release.LINEAGE: history}
    return {
        **{name: canonical(value) for name, value in texts.items()},
        release.CARD: card(about, history, agreed, gates, difference).encode(),
        release.CODE: code,
        release.MODEL: with_golden(graph),
    }


def _history(about: About, result: Mapping[str, Any], settings: ProjectSettings) -> dict[str, Any]:
    """Which sites trained it, from which code, under which settings, and what it replaces."""
    kept = {name: result[name] for name in KEPT}
    return {
        **kept,
        "version": about.version,
        "replaces": about.replaces,
        "source": result.get("source") or {"code": result["asked"]["bundle"]},
        **{name: result[name] for name in TOLD if name in result},
        "seed": settings.seed,
        "settings": dict(settings.settings),
        "contract": result.get("contract", []),
        "left_by_rule": result.get("left_by_rule", []),
        "refused_by_policy": result.get("refused_by_policy", []),
    }


def lineage(found: Release) -> dict[str, Any]:
    """What a release says of where it comes from. Raises `Corrupted`."""
    try:
        said: dict[str, Any] = json.loads(found.parts[release.LINEAGE])
        if not {*KEPT, "source"} <= said.keys():
            raise ValueError("a field is missing")
    except (ValueError, RecursionError, AttributeError) as error:
        raise Corrupted(
            f"the lineage of release {found.manifest.about.version} cannot be read: {error}",
            "Take it from where it was made again.",
        ) from error
    return said


def read(file: Path) -> Release:
    """A release from a file, every digest checked. Raises `NotUsable`, `Untrusted`."""
    return release.decode(_read(file, release.MAX_RELEASE + 1))


def _read(file: Path, size: int) -> bytes:
    """So many bytes from the start, or as many as there are."""
    try:
        with file.open("rb") as opened:
            return opened.read(size)
    except OSError as error:
        raise storage_error(error, file) from error
