"""JSON pointers: where in a document a value stands. RFC 6901.

>>> at({"a/b": [1, {"~": 2}]}, parsed("/a~1b/1/~0"))
2
>>> at({"a": 1}, parsed("/b")) is NOTHING, at(5, parsed(""))
(True, 5)
"""

from __future__ import annotations

import re
from typing import Any

NOTHING = object()  #: there is no such place
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


def wrong_pointer(text: str) -> str:
    """What is wrong with a pointer, or ''."""
    if text and not text.startswith("/"):
        return 'must be empty for the whole message, or begin with "/" (RFC 6901)'
    return 'has a ~ that is not ~0 (for ~) or ~1 (for "/")' if re.search(r"~(?![01])", text) else ""


def parsed(text: str) -> tuple[str, ...]:
    """The steps of a pointer that is not wrong."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:])


def at(document: Any, steps: tuple[str, ...]) -> Any:
    """What stands there, `NOTHING` where the document has no such place."""
    for step in steps:
        if isinstance(document, dict):
            document = document.get(step, NOTHING)
        elif isinstance(document, list) and _INDEX.fullmatch(step) and int(step) < len(document):
            document = document[int(step)]
        else:
            return NOTHING
    return document
