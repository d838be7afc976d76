r"""Files as an OCI image layout with one artifact in it, for registries and their tools. Pure.

    oci-layout           {"imageLayoutVersion":"1.0.0"}
    index.json           one manifest, under a tag
    blobs/sha256/…       the manifest, the empty config, and a layer for each file, named in its title

OCI image specification 1.1: an artifact has an ``artifactType`` and the empty config. Nothing depends on when
or by whom it was made. Described in docs/reference/release.md.

>>> files = layout("application/vnd.example.v1", "1", {"a.json": b"{}"}, {})
>>> read(files.get, "application/vnd.example.v1").files
{'a.json': b'{}'}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE, shown
from reuna.wire.build import canonical, sha256

LAYOUT = "oci-layout"
INDEX = "index.json"
BLOBS = "blobs/sha256/"
TITLE = "org.opencontainers.image.title"
REF = "org.opencontainers.image.ref.name"
EMPTY = b"{}"
MAX_FILES = 64
MAX_DOCUMENT = 256 << 10  #: bytes of the index or the manifest
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_VERSION = canonical({"imageLayoutVersion": "1.0.0"})
#: Media type of a file, by its ending.
TYPES = {
    "json": "application/json",
    "md": "text/markdown",
    "onnx": "application/vnd.onnx.model",
    "zip": "application/zip",
}

#: Content of a file in the layout, None when it is not there.
Get = Callable[[str], bytes | None]


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0)]
    annotations: dict[str, str] = {}


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    config: _Descriptor
    layers: Annotated[tuple[_Descriptor, ...], msgspec.Meta(max_length=MAX_FILES)]
    artifact_type: str = ""
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct, frozen=True, rename="camel"):
    manifests: tuple[_Descriptor, ...]


class Artifact(msgspec.Struct, frozen=True):
    """What a layout holds: files by name, and what is said of them. ``digest``: the manifest's SHA-256."""

    digest: str
    files: dict[str, bytes]
    annotations: dict[str, str]


def layout(
    kind: str, tag: str, files: Mapping[str, bytes], annotations: Mapping[str, str]
) -> dict[str, bytes]:
    """Every file of the layout, by its path. ``kind``: the artifact's type."""
    layers = [
        _describe(TYPES.get(name.rpartition(".")[2], "application/octet-stream"), data, {TITLE: name})
        for name, data in sorted(files.items())
    ]
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {**_describe(_EMPTY, EMPTY), "data": "e30="},
            "layers": layers,
            "annotations": dict(annotations),
        }
    )
    entry = {**_describe(MANIFEST, manifest, {REF: tag}), "artifactType": kind}
    index = canonical({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]})
    blobs = {f"{BLOBS}{sha256(data)}": data for data in (EMPTY, manifest, *files.values())}
    return {LAYOUT: _VERSION, INDEX: index, **dict(sorted(blobs.items()))}


def read(get: Get, kind: str) -> Artifact:
    """The one artifact of a layout, every digest checked. Raises `Untrusted`, which names what is wrong."""
    marker = get(LAYOUT)
    if marker is None:
        raise Untrusted("kind", f"this is no OCI image layout: it has no {LAYOUT}")
    _decode(marker, dict[str, str], LAYOUT)
    index = _decode(get(INDEX), _Index, INDEX)
    if len(index.manifests) != 1:
        raise Untrusted("malformed", f"{INDEX} names {len(index.manifests)} manifests, not one")
    entry = index.manifests[0]
    manifest = _decode(_blob(get, entry, "the manifest"), _Manifest, "the manifest")
    if manifest.artifact_type != kind:
        raise Untrusted("kind", f"the artifact is a {shown(manifest.artifact_type, 80)}, not a {kind}")
    _blob(get, manifest.config, "the config")
    files = {_title(each): _blob(get, each, _title(each)) for each in manifest.layers}
    if len(files) != len(manifest.layers):
        raise Untrusted("malformed", "the manifest names a file twice")
    return Artifact(entry.digest.partition(":")[2], files, manifest.annotations)


def _describe(kind: str, data: bytes, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    said = {"annotations": dict(annotations)} if annotations else {}
    return {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data), **said}


def _title(layer: _Descriptor) -> str:
    title = layer.annotations.get(TITLE, "")
    if not title or "/" in title or title in {".", ".."}:
        raise Untrusted("malformed", f"a layer is called {shown(title, 80)}, which is no name of a file")
    return title


def _blob(get: Get, of: _Descriptor, what: str) -> bytes:
    data = get(BLOBS + of.digest.partition(":")[2])
    if data is None:
        raise Untrusted("missing", f"the bytes of {shown(what, 80)} are not in the layout")
    if (f"sha256:{sha256(data)}", len(data)) != (of.digest, of.size):
        raise Untrusted("mismatch", f"the bytes of {shown(what, 80)} are not those that the layout names")
    return data


def _decode(data: bytes | None, kind: Any, what: str) -> Any:
    if data is None:
        raise Untrusted("missing", f"the layout has no {what}")
    if len(data) > MAX_DOCUMENT:
        raise Untrusted("oversized", f"{what} has more than {MAX_DOCUMENT} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise Untrusted("malformed", f"{what} cannot be read: {shown(str(error))}") from error
