"""Which builds and releases contain a component, by their bills of materials: what is asked at a CVE.

>>> wanted = Component.parse("pkg:pypi/NumPy@2.1.0")
>>> wanted.name, wanted.version
('numpy', '2.1.0')
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reuna.core.environment import normalised
from reuna.core.errors import Corrupted, ReunaError, SettingsError
from reuna.fleet import built
from reuna.fleet.bill import KEPT
from reuna.fleet.lineage import Reports, holders
from reuna.fleet.release import ENDING, Catalogue, read
from reuna.wire.build import SBOM

PURL = "pkg:pypi/"
BUILDS = "*.build.tar"
Left = Callable[[Path, ReunaError], None]  #: told of each file that could not be read


@dataclass(frozen=True)
class Component:
    """A package by its normalised name (PEP 503), of one version or of any ('')."""

    name: str
    version: str = ""

    @classmethod
    def parse(cls, text: str) -> Component:
        """``NAME``, ``NAME@VERSION`` or a package URL of PyPI. Raises `SettingsError`."""
        name, _, version = text.removeprefix(PURL).partition("@")
        if not name or (text.partition("@")[1] and not version):
            raise SettingsError(f"{text!r} names no component", "Give NAME or NAME@VERSION, as numpy@2.1.0.")
        return cls(normalised(name), version.replace("%2B", "+").replace("%21", "!"))

    def versions_in(self, bill: bytes) -> list[str]:
        """The versions of it in a CycloneDX bill, sorted. Raises `Corrupted` for anything else."""
        try:
            listed = [(each["name"], each["version"]) for each in json.loads(bill)["components"]]
            found = {version for name, version in listed if normalised(name) == self.name}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Corrupted(f"{SBOM} cannot be read: {error!r}", "Make it again.") from error
        return sorted(found if not self.version else found & {self.version})


def find(
    wanted: Component, releases: Path, builds: Iterable[Path], reports: Reports | None, left: Left
) -> list[dict[str, Any]]:
    """Every release below the folder ``releases`` and every build below ``builds`` that has it.

    A file that cannot be read is told to ``left``. Whoever is told of none and gets nothing may be sure.
    """
    rows: list[dict[str, Any]] = []
    for look, file in _files(releases, builds):
        try:
            rows += look(wanted, file, reports)
        except ReunaError as error:
            left(file, error)
    return rows


def _files(releases: Path, builds: Iterable[Path]) -> Iterator[tuple[Callable[..., Any], Path]]:
    for file in sorted(releases.glob(f"*/*{ENDING}")):
        yield _of_release, file
    seen = {file.resolve(): file for folder in builds for file in sorted(_builds(folder))}
    for file in seen.values():
        yield _of_build, file


def _builds(folder: Path) -> Iterator[Path]:
    """Builds in a folder of builds, or kept by the runs in a folder of runs."""
    yield from folder.glob(BUILDS)
    yield from folder.glob(f"*/{KEPT}")


def _of_release(wanted: Component, file: Path, reports: Reports | None) -> list[dict[str, Any]]:
    found = read(file)
    about = found.manifest.about
    names = Catalogue(file.parent).aliases()
    row: dict[str, Any] = {
        "what": "release",
        "project": about.project,
        "release": about.version,
        "aliases": sorted(alias for alias, number in names.items() if number == about.version),
        "held_by": holders(found, reports),
        "digest": found.digest,
        "file": str(file),
    }
    return _rows(wanted, found.parts, row)


def _of_build(wanted: Component, file: Path, _reports: Reports | None) -> list[dict[str, Any]]:
    found = built.read(file)
    row = {
        "what": "build",
        "project": found.manifest.project,
        "digest": found.digest,
        "file": str(file),
    }
    return _rows(wanted, found.parts, row)


def _rows(wanted: Component, parts: Mapping[str, bytes], row: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"component": wanted.name, "version": version, **row} for version in wanted.versions_in(parts[SBOM])
    ]
