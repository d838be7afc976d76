"""Bytes, values and errors that others wrote: what reading them may raise, how they are shown."""

from __future__ import annotations

import msgspec

from reuna.core import errors
from reuna.core.errors import NotAdmitted, Refused, ReunaError, Untrusted

#: What msgspec raises for bytes that are no record of ours; text that is not UTF-8 and too many
#: levels are no `msgspec.DecodeError`. Wherever foreign bytes are decoded all of these are caught.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def shown(value: object, limit: int = 200) -> str:
    """A value for a complaint, at most ``limit`` characters.

    Python writes no number of more than 4300 digits, which TOML's hexadecimal numbers can have.
    """
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def readable(text: str) -> str:
    r"""Foreign text for a terminal or a page, character by character as it is.

    What a terminal obeys rather than shows (control characters), what turns the direction of writing
    or has no width, and what no font has is written out; a tab stays.

    >>> print(readable("x = 1\x1b[2K\u202e# harmless"))
    x = 1\x1b[2K\u202e# harmless
    """
    return "".join(each if each.isprintable() or each == "\t" else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def told(code: str, message: str, next_step: str | None = None, reason: str = "") -> ReunaError | None:
    """The error that another process of ours names by its code; None when we know no such code."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ReunaError) and kind.code == code:
            if issubclass(kind, Refused | Untrusted | NotAdmitted):
                return kind(reason, message)
            return kind(message, next_step)
    return None
