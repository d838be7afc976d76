"""Plain files in one file, in the only way there is to write them: a POSIX tar (ustar) of known bytes.

Any tar opens it. Nothing in it depends on when, where or by whom it was made; whatever differs in a
single byte from what `pack` writes is refused. POSIX.1-1988, ustar: a header of 512 bytes, the content,
zeros up to the next 512.

>>> dict(unpack(pack({"a.json": b"{}"}), "archive"))
{'a.json': b'{}'}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reuna.core.errors import Untrusted
from reuna.core.foreign import shown

MAX_PART = 20 << 20  #: bytes
_BLOCK = 512
_END = bytes(2 * _BLOCK)


def pack(files: Mapping[str, bytes]) -> bytes:
    """The bytes of files, in their order. Names are ASCII of at most 100 characters."""
    return b"".join(_member(name, data) for name, data in files.items()) + _END


def unpack(data: bytes, what: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, one after the other; ``what`` is the word for it in errors.

    Raises `Untrusted`.
    """
    at, seen = 0, set[str]()
    while data[at : at + len(_END)] != _END:
        name, size = _read_header(data[at : at + _BLOCK], at, what)
        content = data[at + _BLOCK : at + _BLOCK + size]
        after = at + _BLOCK + size + -size % _BLOCK
        if name in seen:
            raise Untrusted("malformed", f"the {what} holds {shown(name, 80)} twice")
        if len(content) < size or data[after - -size % _BLOCK : after] != bytes(-size % _BLOCK):
            raise Untrusted("malformed", f"the {what} is cut short or changed within {shown(name, 80)}")
        seen.add(name)
        yield name, content
        at = after
    if len(data) != at + len(_END):
        raise Untrusted("malformed", f"something follows the end of the {what}")


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


def _read_header(header: bytes, at: int, what: str) -> tuple[str, int]:
    """Name and size. Raises `Untrusted` for any header that `_header` does not write."""
    try:
        name, size = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
        good = 0 <= size <= MAX_PART and header == _header(name, size)
    except ValueError:
        good = False
    if not good:
        raise Untrusted("malformed", f"at byte {at} of the {what} stands no header as Reuna writes it")
    return name, size
