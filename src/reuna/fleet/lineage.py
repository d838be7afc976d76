"""Where a model comes from, in one record: sites, data, code, approvals, who holds it, what it replaced.

Read from a release, or from the ``result.json`` of a run that was not released. What nobody told is None,
which people read as *unknown*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from reuna.core.errors import Corrupted
from reuna.fleet.release import Catalogue, lineage
from reuna.fleet.result import Approvals, DataLine, Site, SourceLine
from reuna.wire import digest_bytes
from reuna.wire.release import Release, encode

#: What nodes report: each with ``node`` and the ``digest`` (`reuna.wire.digest`) of a release that it holds.
Reports = Sequence[Mapping[str, Any]]


class _Said(msgspec.Struct):
    """What is read of a release's lineage or of a run's result, which have it alike."""

    project: str
    run: str
    model_digest: str
    rounds: int
    strategy: str
    sites: list[Site]
    source: SourceLine | None = None
    data: list[DataLine] = []
    approvals: Approvals | None = None


def of_release(catalogue: Catalogue, wanted: str | int, reports: Reports | None = None) -> dict[str, Any]:
    """The lineage of a release by its version or alias. ``reports``: what nodes say that they hold.

    Raises `ReleaseNotFound`, `Untrusted`, `Corrupted`.
    """
    found = catalogue.read(wanted)
    try:
        said = msgspec.convert(lineage(found), _Said)
    except msgspec.ValidationError as error:
        raise Corrupted(
            f"the lineage of release {found.manifest.about.version} cannot be read: {error}",
            "Take it from where it was made again.",
        ) from error
    return _record(catalogue, said, found, reports)


def of_run(catalogue: Catalogue, result: Mapping[str, Any], reports: Reports | None = None) -> dict[str, Any]:
    """The same of a run; what was released of it is named. Raises `Untrusted`, `Corrupted`."""
    released = next((each for each in _all(catalogue) if each.manifest.about.run == result["run"]), None)
    return _record(catalogue, msgspec.convert(result, _Said), released, reports)


def holders(found: Release, reports: Reports | None) -> list[dict[str, Any]] | None:
    """The nodes that report to hold a release, by name; None when nobody was asked."""
    if reports is None:
        return None
    digest = digest_bytes(encode(found.manifest.about, found.parts))  # as nodes fetch it, block by block
    held = [dict(each) for each in reports if each["digest"] == digest]
    return sorted(held, key=lambda each: str(each["node"]))


def _record(
    catalogue: Catalogue, said: _Said, released: Release | None, reports: Reports | None
) -> dict[str, Any]:
    return {
        "project": said.project,
        "release": None if released is None else _named(catalogue, released),
        "run": said.run,
        "model": said.model_digest,
        "rounds": said.rounds,
        "strategy": said.strategy,
        "sites": _sites(said),
        "source": msgspec.to_builtins(said.source),
        "approvals": msgspec.to_builtins(said.approvals),
        "released": None if released is None else catalogue.approval(released.manifest.about.version),
        "held_by": None if released is None else holders(released, reports),
        "replaces": [] if released is None else list(_before(catalogue, released)),
    }


def _sites(said: _Said) -> list[dict[str, Any]]:
    """Each site and what each of its nodes gave; ``data`` is None for a node of which nothing was told."""
    told = {each.node: {**msgspec.structs.asdict(each)} for each in said.data}
    for each in told.values():
        del each["node"]
    return [
        {
            "site": site.site,
            "nodes": [{"node": node, "data": told.get(node)} for node in site.nodes],
            "absent": site.absent,
        }
        for site in said.sites
    ]


def _named(catalogue: Catalogue, found: Release) -> dict[str, Any]:
    about = found.manifest.about
    aliases = sorted(alias for alias, number in catalogue.aliases().items() if number == about.version)
    return {"version": about.version, "digest": found.digest, "run": about.run, "aliases": aliases}


def _before(catalogue: Catalogue, found: Release) -> Iterator[dict[str, Any]]:
    """What it replaced, what that replaced, back to the first, or to one that is not in the catalogue.

    Digests name one another, so the chain cannot come round.
    """
    known = {each.digest: each for each in _all(catalogue)}
    digest = found.manifest.about.replaces
    while digest:
        before = known.get(digest)
        if before is None:
            yield {"digest": digest, "version": None}
            return
        yield _named(catalogue, before)
        digest = before.manifest.about.replaces


def _all(catalogue: Catalogue) -> Iterator[Release]:
    return (catalogue.read(version) for version in catalogue.versions())
