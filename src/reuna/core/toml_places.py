"""Where in a TOML text each key stands; the standard library's reader does not say.

The text is TOML already (`tomllib` took it), so only keys are looked for and values are passed over.
Lines and columns count from 1, columns in characters.

>>> places('[strategy]\\nname = "fedavg"\\nsignals.flow = { min = 0 }\\n')["strategy.signals.flow.min"]
(3, 18)
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Place = tuple[int, int]  #: line and column

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_PART = re.compile(r"""[ \t]*(?P<word>[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*""")
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_PLAIN = re.compile(r"[^,\]}\n#]*")


def places(text: str) -> dict[str, Place]:
    """Dotted name of every key and table -> where it is first said. Raises `RecursionError`."""
    scan = _Scan(text)
    scan.document()
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    lines = {name: bisect_right(starts, at) for name, at in scan.found.items()}
    return {name: (lines[name], at - starts[lines[name] - 1] + 1) for name, at in scan.found.items()}


class _Scan:
    """A walk over the text; ``at`` is the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[str, int] = {}

    def document(self) -> None:
        table: tuple[str, ...] = ()
        while self._next():
            if self.text[self.at] == "[":
                brackets = 2 if self.text.startswith("[[", self.at) else 1
                self.at += brackets
                table = self._key(())
                self.at += brackets
            else:
                self._pair(table)

    def _next(self) -> str:
        """The next character that says something; '' at the end."""
        self.at = _after(_BLANK, self.text, self.at)
        return self.text[self.at : self.at + 1]

    def _pair(self, table: tuple[str, ...]) -> None:
        name = self._key(table)
        self.at += 1  # the sign =
        self._value(name)

    def _key(self, table: tuple[str, ...]) -> tuple[str, ...]:
        """A key with dots; each of its parts is noted where the whole begins."""
        name, begin = table, 0
        while match := _PART.match(self.text, self.at):
            begin = begin or match.start("word") + 1  # from 1, so that 0 says: not yet
            name = (*name, _plain(match["word"]))
            self.found.setdefault(".".join(name), begin - 1)
            self.at = match.end()
            if self.text[self.at] != ".":
                break
            self.at += 1
        return name

    def _value(self, name: tuple[str, ...] | None) -> None:
        """Pass over a value; ``name``: note the keys of its inline tables below it."""
        sign = self._next()
        if sign == "{":
            self._items("}", name)
        elif sign == "[":
            self._items("]", None)
        elif sign in {'"', "'"}:
            self.at = _after(_TEXT, self.text, self.at)
        else:
            self.at = _after(_PLAIN, self.text, self.at)

    def _items(self, end: str, name: tuple[str, ...] | None) -> None:
        """What stands between brackets: pairs of an inline table, or values of a list."""
        self.at += 1
        while self._next() != end:
            if self.text[self.at] == ",":
                self.at += 1
            elif end == "]":
                self._value(None)
            else:
                self._inner_pair(name)
        self.at += 1

    def _inner_pair(self, name: tuple[str, ...] | None) -> None:
        if name is not None:
            self._pair(name)
            return
        noted = self.found
        self.found = {}  # a table in a list has no name of its own
        self._pair(())
        self.found = noted


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None  # the text is TOML
    return match.end()


def _plain(word: str) -> str:
    return str(tomllib.loads(f"x = {word}")["x"]) if word[0] in "\"'" else word
