r"""A release: one file with all that a machine needs to run a model, and why it may. Pure: bytes in and out.

``manifest.json``, then the parts, sorted, in the form of `reuna.wire.archive`. Its digest is the SHA-256
of the file. The bytes are described in docs/reference/release.md.

>>> parts = {name: b"{}\n" for name in NEEDED}
>>> found = decode(encode(About("pump", 3, "r-1", "0" * 64), parts))
>>> found.manifest.about.version, sorted(found.parts) == sorted(parts)
(3, True)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from reuna.core.errors import Corrupted, Untrusted
from reuna.core.foreign import UNREADABLE
from reuna.core.records import Setting
from reuna.wire.archive import pack, unpack
from reuna.wire.build import SBOM, Part, Sha256, canonical, read_manifest, sha256

FORMAT = "reuna/release/v1"
MANIFEST = "manifest.json"
MODEL = "model.onnx"
CODE = "code.zip"
CONTRACT = "contract.json"
GATES = "gates.json"
LINEAGE = "lineage.json"
CARD = "card.md"
BINS = "bins.json"
PROVENANCE = "build.intoto.json"
NEEDED = (BINS, CARD, CODE, CONTRACT, GATES, LINEAGE, MODEL, SBOM)
MAYBE = (PROVENANCE,)  #: of the build that the run ran, if it ran one
MAX_RELEASE = 64 << 20  #: bytes
HEAD = 32 << 10  #: bytes from the start of a file that hold its manifest

AGAIN = "Take it from where it was made again."
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]


class _Site(msgspec.Struct, frozen=True):
    nodes: tuple[str, ...]
    federated: dict[str, float] = {}
    by_node: dict[str, dict[str, float]] | None = None


class _Lineage(msgspec.Struct, frozen=True):
    settings: dict[str, Setting] = {}
    sites: tuple[_Site, ...] = ()


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which release: project, version from 1 on, the run that trained it, the digest of the run's model.

    ``replaces``: digest of the release that was champion when this one was made, '' for none.
    """

    project: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    run: Name
    model: Sha256
    replaces: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `About` says, and digest and size of each part."""

    format: str
    about: About
    parts: dict[str, Part]


class Release(msgspec.Struct, frozen=True):
    """A release that was read whole. ``digest``: the SHA-256 of the file."""

    digest: str
    manifest: Manifest
    parts: dict[str, bytes]


def encode(about: About, parts: Mapping[str, bytes]) -> bytes:
    """The file; ``parts`` are all of `NEEDED`, and some of `MAYBE`.

    Raises `Untrusted` for what `decode` would not read again.
    """
    listed = {name: Part(sha256(data), len(data)) for name, data in sorted(parts.items())}
    manifest = canonical(msgspec.to_builtins(Manifest(FORMAT, about, listed)))
    data = pack({MANIFEST: manifest, **dict(sorted(parts.items()))})
    decode(data)
    return data


def decode(data: bytes) -> Release:
    """Read a release and check every digest in it. Raises `Untrusted`, which names what is wrong."""
    if len(data) > MAX_RELEASE:
        raise Untrusted("oversized", f"a release has at most {MAX_RELEASE} bytes")
    members = dict(unpack(data, "release"))
    names = list(members)
    if not names or names[0] != MANIFEST:
        raise Untrusted("malformed", f"this is no release: it does not begin with {MANIFEST}")
    manifest = read_manifest(members.pop(MANIFEST), Manifest, FORMAT, "release")
    listed = sorted(manifest.parts)
    if [name for name in listed if name not in MAYBE] != sorted(NEEDED) or names[1:] != listed:
        raise Untrusted("mismatch", f"a release holds {', '.join(NEEDED)}, this one {', '.join(names[1:])}")
    for name, part in manifest.parts.items():
        if (sha256(members[name]), len(members[name])) != (part.sha256, part.size):
            raise Untrusted("mismatch", f"{name} is not the one that the release's manifest names")
    return Release(sha256(data), manifest, members)


def settings(found: Release) -> dict[str, Setting]:
    """What the run was set to, by the release's lineage. Raises `Corrupted`."""
    try:
        said = msgspec.json.decode(found.parts[LINEAGE], type=_Lineage).settings
    except UNREADABLE as error:
        raise Corrupted(f"the lineage of release {_named(found)} cannot be read: {error}", AGAIN) from error
    if "entry" not in said:
        raise Corrupted(f"the lineage of release {_named(found)} names no entry of its project", AGAIN)
    return said


def is_measured(found: Release, node: str) -> bool:
    """Whether a node has measured the release's model with its own data. Raises `Corrupted`.

    Not when it was away, or came later. A lineage that tells of no site says nothing against it.
    """
    try:
        sites = msgspec.json.decode(found.parts[LINEAGE], type=_Lineage).sites
    except UNREADABLE as error:
        raise Corrupted(f"the lineage of release {_named(found)} cannot be read: {error}", AGAIN) from error
    return not sites or any(node in each.nodes and _told(each, node) for each in sites)


def _told(site: _Site, node: str) -> bool:
    return bool(site.federated) and (site.by_node is None or node in site.by_node)


def _named(found: Release) -> str:
    return f"{found.manifest.about.project} {found.manifest.about.version}"


def about(head: bytes) -> About:
    """Which release a file says it is, by its first `HEAD` bytes; no digest is judged. Raises `Untrusted`."""
    name, data = next(unpack(head, "release"), ("", b""))
    if name != MANIFEST:
        raise Untrusted("malformed", f"this is no release: it does not begin with {MANIFEST}")
    return read_manifest(data, Manifest, FORMAT, "release").about
