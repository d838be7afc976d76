"""Numbers from a command line, refused with the bound in the message."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """A whole number from ``least`` on."""
    return between(least, sys.maxsize)


def between(least: int, most: int) -> Callable[[str], int]:
    """A whole number from ``least`` to ``most``."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if not least <= value <= most:
            bound = f"at least {least}" if most == sys.maxsize else f"between {least} and {most}"
            raise argparse.ArgumentTypeError(f"{value} is not {bound}")
        return value

    return number
