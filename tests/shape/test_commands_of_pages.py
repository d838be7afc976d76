"""Every command that a page shows is one: of `reuna` with its options, of `make`, of `python -m`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from reuna.cli import app

ROOT = Path(__file__).parents[2]
ALONE = {"build": "make"}  #: groups that are also a command, and which of theirs that is
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
SHELL = ("", "console", "sh", "bash", "text")  #: languages of blocks in which commands are typed
INLINE = re.compile(r"`((?:reuna|make|python -m) [^`\n]+)`")
OPTION = re.compile(r"\[?(--?[a-z][a-z-]*)")


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def shown(page: str) -> Iterator[list[str]]:
    """The words of each command in a page's text and blocks, without what follows it on its line."""
    for language, block in BLOCK.findall(page):
        for line in () if language not in SHELL else block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\||;", line.strip().removeprefix("$ ").split(" # ")[0]):
                yield part.split()
    for text in INLINE.findall(page):
        yield text.split(" # ")[0].split()


def wrong(words: list[str]) -> str:
    """What of a command there is not; '' for none, and for what is no command of ours."""
    match words:
        case ["reuna", *more]:
            return wrong_of_ours(more)
        case ["make", target, *_] if re.fullmatch(r"[a-z][a-z-]*", target):
            return "" if re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) else target
        case ["python", "-m", module, *_] if re.match(r"(benchmarks|drills|fuzz|reuna)\b", module):
            return "" if is_there(module) else module
    return ""


def is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@cache
def ours() -> Any:
    return get_command(app)


def wrong_of_ours(words: list[str]) -> str:
    command = ours()
    while hasattr(command, "commands"):
        if words and words[0] in command.commands:
            command, words = command.commands[words[0]], words[1:]
        elif command.name in ALONE:
            command = command.commands[ALONE[command.name]]
        elif words and re.fullmatch(r"[a-z][a-z-]+", words[0]):
            return words[0]
        else:
            break
    known = {"--help", *(name for each in command.params for name in (*each.opts, *each.secondary_opts))}
    asked = (found[1] for word in words if (found := OPTION.match(word)))
    return next((option for option in asked if option not in known), "")


def test_every_command_that_a_page_shows_is_there() -> None:
    lost, count = [], 0
    for page in pages():
        for words in shown(page.read_text(encoding="utf-8")):
            count += words[:1] == ["reuna"]
            if missing := wrong(words):
                lost.append(f"{page.relative_to(ROOT)}: no {missing} in {' '.join(words)}")
    assert not lost
    assert count > 500, "they are found"


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("reuna runn --data DIR", "runn"),
        ("reuna run --date DIR", "--date"),
        ("reuna release mak", "mak"),
        ("reuna build --jsn", "--jsn"),
        ("make demoo", "demoo"),
        ("python -m benchmarks.rounds", "benchmarks.rounds"),
        ("python -m benchmarks.nothing.round", "benchmarks.nothing.round"),
        ("reuna run --data DIR", ""),
        ("reuna build --json --output x", ""),
    ],
)
def test_a_command_that_is_not_there_is_named(line: str, missing: str) -> None:
    (words,) = shown(f"```\n{line}\n```")
    assert wrong(words) == missing
