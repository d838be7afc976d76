"""Any name as a key that MLflow takes, and back.

MLflow allows letters, digits and ``_ - . :`` space and ``/``, no empty or dotted part, and 250
characters. A part keeps its letters and digits, of any language; a point is doubled, and any other
character becomes its number between two points.

>>> key(("site", "plant-1", "federated", "all"))
'site/plant-1/federated/all'
>>> key(("site", "hall 2/b", "federated", "f1.macro"))
'site/hall 2.2f.b/federated/f1..macro'
>>> parts('site/hall 2.2f.b/federated/f1..macro')
('site', 'hall 2/b', 'federated', 'f1.macro')
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

LONGEST = 250  #: characters of a key
_EMPTY = ".-."
_PLAIN = re.compile(r"[\w\- ]")  # a colon is refused by servers on Windows
_TOKEN = re.compile(r"\.\.|\.-\.|\.([0-9a-f]+)\.")
_CUT = re.compile(r"\.-([0-9a-f]{16})\.$")


def key(name: Sequence[str]) -> str:
    """The key of a name in parts. Too long, it is cut and ends in a digest; see `whole`."""
    full = "/".join(_part(each) for each in name)
    return full if len(full) <= LONGEST else f"{full[: LONGEST - 19]}.-{digest(name)}."


def digest(name: Sequence[str]) -> str:
    """16 hexadecimal digits for a name."""
    return hashlib.sha256(whole(name).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def whole(name: Sequence[str]) -> str:
    """A name as one text, for the tag that keeps what a cut key lost."""
    return json.dumps(list(name))


def cut(text: str) -> str:
    """The digest at the end of a key that was cut, else ''."""
    found = _CUT.search(text) if len(text) == LONGEST else None
    return found[1] if found else ""


def parts(text: str) -> tuple[str, ...]:
    """The name whose key this is; of one that was not cut."""
    return tuple(_TOKEN.sub(_plain, part) for part in text.split("/"))


def _part(text: str) -> str:
    if not text:
        return _EMPTY
    last = len(text) - 1
    return "".join(_sign(each, first=at == 0, last=at == last) for at, each in enumerate(text))


def _sign(sign: str, first: bool, last: bool) -> str:
    if sign == "." and not first:  # MLflow takes no key that begins with two points
        return ".."
    edge = sign == " " and (first or last)  # databases forget spaces there
    return sign if _PLAIN.fullmatch(sign) and not edge else f".{ord(sign):x}."


def _plain(token: re.Match[str]) -> str:
    if token[0] == _EMPTY:
        return ""
    return chr(int(token[1], 16)) if token[1] else "."
