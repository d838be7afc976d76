r"""A build: one file with all that one commit of a project trains with. Pure: bytes in, bytes out.

The file is a plain POSIX tar (ustar) that any tar opens: ``manifest.json``, then the parts, sorted.
Nothing in it depends on when, where or by whom it was made, and there is one way to write it: whatever
differs in a single byte from what `encode` writes is refused. Its digest is the SHA-256 of the file.
The bytes are described in docs/reference/build.md.

>>> parts = {name: b"{}\n" for name in NEEDED}
>>> build = decode(encode("pump", parts))
>>> build.manifest.project, sorted(build.parts) == sorted(parts)
('pump', True)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE, shown
from reuna.wire.archive import MAX_PART, pack, unpack
from reuna.wire.digest import digest_bytes

FORMAT = "reuna/build/v1"
MANIFEST = "manifest.json"
CODE = "code.zip"
SETTINGS = "reuna.toml"
PLAN = "plan.json"
ENVIRONMENT = "environment.json"
SBOM = "sbom.cdx.json"
NEEDED = (CODE, ENVIRONMENT, PLAN, SETTINGS, SBOM)
LOCKS = ("pylock.toml", "uv.lock", "requirements.lock")  #: at most one of these, the first that is there
MAX_BUILD = 64 << 20  #: bytes
MAX_MANIFEST = 16 << 10  #: bytes
MAX_NAME = 200  #: characters of a project's name

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part's SHA-256, 64 hexadecimal digits, and its bytes."""

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_PART)]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``code`` is the digest of the bundle of code in ``code.zip``: what sites approve."""

    format: str
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    code: Sha256
    parts: dict[str, Part]


class WithFormat(Protocol):
    """A manifest that names its format."""

    @property
    def format(self) -> str: ...


M = TypeVar("M", bound=WithFormat)


class Build(msgspec.Struct, frozen=True):
    """A build that was read whole. ``digest``: the SHA-256 of the file."""

    digest: str
    manifest: Manifest
    parts: dict[str, bytes]


def canonical(value: Any) -> bytes:
    """JSON as every part of a build has it: keys sorted, no spaces, UTF-8, one line break at the end.

    Raises `ValueError` for numbers that JSON cannot hold.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"{text}\n".encode()


def sha256(data: bytes) -> str:
    """SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def encode(project: str, parts: Mapping[str, bytes]) -> bytes:
    """The file. ``parts`` are all of `NEEDED` and at most one of `LOCKS`."""
    listed = {name: Part(sha256(data), len(data)) for name, data in parts.items()}
    manifest = Manifest(FORMAT, project, digest_bytes(parts[CODE]), listed)
    entries = {MANIFEST: canonical(msgspec.to_builtins(manifest)), **dict(sorted(parts.items()))}
    return pack(entries)


def decode(data: bytes) -> Build:
    """Read a build and check every digest in it. Raises `Untrusted`, which names what is wrong."""
    if len(data) > MAX_BUILD:
        raise Untrusted("oversized", f"a build has at most {MAX_BUILD} bytes")
    members = dict(unpack(data, "build"))
    names = list(members)
    if not names or names[0] != MANIFEST:
        raise Untrusted("malformed", f"this is no build: it does not begin with {MANIFEST}")
    manifest = read_manifest(members.pop(MANIFEST), Manifest, FORMAT, "build")
    _check_names(manifest, names[1:])
    for name, part in manifest.parts.items():
        if (sha256(members[name]), len(members[name])) != (part.sha256, part.size):
            raise Untrusted(
                "mismatch", f"{name} is not the one that the build's manifest names: it was changed"
            )
    if digest_bytes(members[CODE]) != manifest.code:
        raise Untrusted("mismatch", f"{CODE} has not the digest of code that the build's manifest names")
    return Build(sha256(data), manifest, members)


def _check_names(manifest: Manifest, names: list[str]) -> None:
    lacks = [name for name in NEEDED if name not in manifest.parts]
    if lacks:
        raise Untrusted("missing", f"the build has no {lacks[0]}")
    strange = [name for name in manifest.parts if name not in {*NEEDED, *LOCKS}]
    if strange or len(manifest.parts) > len(NEEDED) + 1:
        named = shown(strange[0], 80) if strange else "two locks"
        raise Untrusted("malformed", f"the build's manifest names {named}, which no build of ours holds")
    if names != sorted(manifest.parts):
        raise Untrusted(
            "mismatch", "the build holds other parts than its manifest names, or in another order"
        )


def read_manifest(data: bytes, kind: type[M], form: str, what: str) -> M:
    """The manifest of a build or a release, written in the one way there is. Raises `Untrusted`.

    ``what`` is the word for the file in errors; ``form`` the format that the manifest must name.
    """
    if len(data) > MAX_MANIFEST:
        raise Untrusted("oversized", f"the {what}'s manifest has {len(data)} bytes, over {MAX_MANIFEST}")
    try:
        manifest = msgspec.json.decode(data, type=kind)
        again = canonical(msgspec.to_builtins(manifest))
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise Untrusted("malformed", f"the {what}'s manifest cannot be read: {shown(str(error))}") from error
    if manifest.format != form:
        raise Untrusted("kind", f"this {what} is of format {shown(manifest.format, 80)}, not {form}")
    if again != data:
        raise Untrusted("malformed", f"the {what}'s manifest is not written as Reuna writes it")
    return manifest
