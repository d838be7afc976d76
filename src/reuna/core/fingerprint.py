"""What a node tells of the data that it trains on: a keyed digest of its files, and how many there are.

The digest of data from a few sensors can be guessed: who knows all but one reading tries the values of
that one. So it is keyed (HMAC-SHA256, RFC 2104) with a secret that stays at the node. Equal data of one
node give equal fingerprints; those of two nodes say nothing of each other. Whoever is shown the files and
the key at the node can make it again, so it binds the site to the data that it used.

An event ``data`` has the ``fingerprint``, ``files`` and ``bytes``, and ``rows`` where they were counted. Its
``setup`` is another digest under the same key: of what else at the node its bits come from, the columns that
code may read and the packages that are installed. A site's policy lets it leave, or not, as a statistic
over those rows.

>>> digest = digest_of({"train/monday.csv": "00" * 32})
>>> fingerprint(bytes(32), digest) == fingerprint(bytes(32), digest) != fingerprint(b"1" * 32, digest)
True
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

import msgspec

from reuna.core.records import Event, Setting

WHAT = "data"  #: of the event
KEY_SIZE = 32  #: bytes
COUNTS = ("files", "bytes", "rows")
_DOMAIN = b"reuna/data-fingerprint/v1\n"
_SETUP_DOMAIN = b"reuna/data-setup/v1\n"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """The data of a node as it tells them: the keyed digest, and the files and bytes behind it.

    ``setup``: keyed digest of what else there the bits of its updates come from; '' where nobody made it.
    """

    fingerprint: str
    files: int
    bytes: int
    setup: str = ""


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over the files' paths and their SHA-256, whatever order they come in; it stays at the node."""
    listed = hashlib.sha256()
    for path, digest in sorted(files.items()):
        name = path.encode("utf-8", "surrogatepass")  # of any text, and of no two the same
        listed.update(b"%d %b %b\n" % (len(name), name, digest.encode()))
    return listed.hexdigest()


def fingerprint(key: bytes, digest: str) -> str:
    """What may be told of that digest by who holds the key, 64 hexadecimal digits."""
    return hmac.new(key, _DOMAIN + digest.encode(), hashlib.sha256).hexdigest()


def setup(key: bytes, digest: str) -> str:
    """What may be told of a digest of the node's columns and packages, 64 hexadecimal digits."""
    return hmac.new(key, _SETUP_DOMAIN + digest.encode(), hashlib.sha256).hexdigest()


def as_fields(window: Window, rows: int | None) -> dict[str, Setting]:
    """The event's; ``rows`` None: nobody has counted them."""
    fields: dict[str, Setting] = {
        name: value for name, value in msgspec.structs.asdict(window).items() if value != ""
    }
    return fields if rows is None else {**fields, "rows": rows}


def is_told(event: Event) -> bool:
    """Whether an event says of the data nothing but what `as_fields` does."""
    fields = dict(event.fields)
    marks = (fields.pop("fingerprint", None), fields.pop("setup", "0" * 64))
    counts = all(type(value) is int and value >= 0 for value in fields.values())
    sound = all(isinstance(mark, str) and _FINGERPRINT.fullmatch(mark) is not None for mark in marks)
    return event.what == WHAT and sound and counts and fields.keys() <= set(COUNTS)
