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
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE, shown
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
MAX_PART = 20 << 20  #: bytes
MAX_BUILD = 64 << 20  #: bytes
MAX_MANIFEST = 16 << 10  #: bytes
_BLOCK = 512
_END = bytes(2 * _BLOCK)

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part's SHA-256, 64 hexadecimal digits, and its bytes."""

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_PART)]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``code`` is the digest of the bundle of code in ``code.zip``: what sites approve."""

    format: str
    project: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    code: Sha256
    parts: dict[str, Part]


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
    return b"".join(_member(name, data) for name, data in entries.items()) + _END


def decode(data: bytes) -> Build:
    """Read a build and check every digest in it. Raises `Untrusted`, which names what is wrong."""
    if len(data) > MAX_BUILD:
        raise Untrusted("oversized", f"a build has at most {MAX_BUILD} bytes")
    members = dict(_members(data))
    names = list(members)
    if not names or names[0] != MANIFEST:
        raise Untrusted("malformed", f"this is no build: it does not begin with {MANIFEST}")
    manifest = _manifest(members.pop(MANIFEST))
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
        raise Untrusted("unknown", f"the build's manifest names {named}, which no build of ours holds")
    if names != sorted(manifest.parts):
        raise Untrusted(
            "mismatch", "the build holds other parts than its manifest names, or in another order"
        )


def _manifest(data: bytes) -> Manifest:
    if len(data) > MAX_MANIFEST:
        raise Untrusted("oversized", f"the build's manifest has {len(data)} bytes, over {MAX_MANIFEST}")
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
        again = canonical(msgspec.to_builtins(manifest))
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise Untrusted("malformed", f"the build's manifest cannot be read: {shown(str(error))}") from error
    if manifest.format != FORMAT:
        raise Untrusted("kind", f"this build is of format {shown(manifest.format, 80)}, not {FORMAT}")
    if again != data:
        raise Untrusted("malformed", "the build's manifest is not written as Reuna writes it")
    return manifest


# --- tar: a header of 512 bytes, the content, zeros up to the next 512 (POSIX.1-1988, ustar) ---------


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, one after the other. Raises `Untrusted`."""
    at, seen = 0, set[str]()
    while data[at : at + len(_END)] != _END:
        name, size = _read_header(data[at : at + _BLOCK], at)
        content = data[at + _BLOCK : at + _BLOCK + size]
        after = at + _BLOCK + size + -size % _BLOCK
        if name in seen:
            raise Untrusted("malformed", f"the build holds {shown(name, 80)} twice")
        if len(content) < size or data[after - -size % _BLOCK : after] != bytes(-size % _BLOCK):
            raise Untrusted("malformed", f"the build is cut short or changed within {shown(name, 80)}")
        seen.add(name)
        yield name, content
        at = after
    if len(data) != at + len(_END):
        raise Untrusted("malformed", "something follows the end of the build")


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    """A plain file of nobody's (uid and gid 0), readable by all, of 1970."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0",  # mode
        b"0000000\0",  # uid
        b"0000000\0",  # gid
        b"%011o\0" % size,
        b"00000000000\0",  # time
        b"        ",  # the checksum counts as spaces
        b"0".ljust(101, b"\0"),  # a plain file, which is no link
        b"ustar\0",
        b"00".ljust(66, b"\0"),  # version, no names of user and group
        b"0000000\0",  # major
        b"0000000\0",  # and minor number of no device
        bytes(167),
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _read_header(header: bytes, at: int) -> tuple[str, int]:
    """Name and size. Raises `Untrusted` for any header that `_header` does not write."""
    try:
        name, size = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
        good = 0 <= size <= MAX_PART and header == _header(name, size)
    except ValueError:
        good = False
    if not good:
        raise Untrusted("malformed", f"at byte {at} of the build stands no header as Reuna writes it")
    return name, size
