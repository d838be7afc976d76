"""Who is below a node, told as changes: each has a number, and a digest of the whole that it leads to.

The digest of a set of names is the sum of theirs, so that a change costs as much as it has names, however
many there are. It notices what was lost; it proves nothing against who made the names up.

>>> digest_of(["press-1", "press-2"]) == changed(digest_of(["press-1", "oven-7"]), ["press-2"], ["oven-7"])
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

import msgspec

MOST = 8_192  #: names in one message
PAGES = 128  #: messages of one whole: a million names below one node
Name = Annotated[str, msgspec.Meta(max_length=63, pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MOST)]
Life = Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
Serial = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Digest = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Stand(msgspec.Struct, frozen=True, array_like=True):
    """How far a node has told: its egress' life, the number of its last change, the digest of all names."""

    life: Life
    serial: Serial
    digest: Digest


class Roster(msgspec.Struct, frozen=True, array_like=True):
    """Who joined and who is gone since the number before; with ``pages`` a part of the whole, in ``joined``.

    It says not whose it is: the subject does, which nobody else may publish to.
    """

    stand: Stand
    joined: Names = ()
    gone: Names = ()
    page: Annotated[int, msgspec.Meta(ge=0, lt=PAGES)] = 0
    pages: Annotated[int, msgspec.Meta(ge=0, le=PAGES)] = 0


class RosterAsked(msgspec.Struct, frozen=True, array_like=True):
    """A parent asks for the whole. ``serial``: of what it holds, for the log; -1 when that is nothing."""

    serial: Annotated[int, msgspec.Meta(ge=-1, le=2**53)] = -1


def digest_of(names: Iterable[str]) -> int:
    """Of a set of names; they stand once each."""
    return changed(0, names, ())


def changed(digest: int, joined: Iterable[str], gone: Iterable[str]) -> int:
    """The digest when names that were not there have come and names that were are gone."""
    total = digest + sum(map(_digest, joined)) - sum(map(_digest, gone))
    return total % 2**63


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
