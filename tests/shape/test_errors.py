"""The catalogue of errors: drawn, numbered once, explained."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

import reuna
from reuna.cli import app
from reuna.core import errors
from reuna.core.errors import ReunaError

DRAWN = re.compile(
    r"^ {4}[│├└─ ]*(?P<name>[A-Z]\w+)(?: +(?P<code>R\d{3}))?(?: +(?P<said>.*?))?(?: +exit (?P<exit>\d))?$"
)
#: Codes of errors that are gone. A code never comes back for another error.
RETIRED: frozenset[str] = frozenset()


def below(kind: type[ReunaError]) -> Iterator[type[ReunaError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def catalogue() -> dict[str, type[ReunaError]]:
    """Every error class of the package by name."""
    return {kind.__name__: kind for kind in below(ReunaError) if kind.__module__.startswith("reuna.")}


def drawn() -> dict[str, tuple[str | None, int | None]]:
    """What the picture at the top of the module says: name -> (code, exit status)."""
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := DRAWN.match("    " + line.strip() if line.startswith("ReunaError") else line):
            found[match["name"]] = (match["code"], int(match["exit"]) if match["exit"] else None)
    return found


def test_every_error_lives_in_one_file() -> None:
    for module in pkgutil.walk_packages(reuna.__path__, "reuna."):
        if module.name.split(".")[1] in {"core", "loop", "learn", "wire", "exchange"}:
            importlib.import_module(module.name)
    assert {kind.__module__ for kind in catalogue().values()} == {"reuna.core.errors"}


def test_the_picture_names_every_error_with_its_code_and_exit_status() -> None:
    picture = drawn()
    assert set(picture) == {"ReunaError", *catalogue()}
    for name, kind in catalogue().items():
        code, status = picture[name]
        if kind.__base__ is ReunaError:
            assert (code, status) == (None, kind.exit_status), name
        else:
            assert (code, status) == (kind.code, None), name


def test_codes_are_given_once_and_leave_no_gap() -> None:
    codes = [kind.code for kind in catalogue().values() if "code" in vars(kind)]
    assert len(codes) == len(set(codes)), "a code is used twice"
    assert not RETIRED & set(codes), "a retired code came back"
    for hundred in sorted({code[1] for code in codes}):
        used = sorted(int(code[2:]) for code in {*codes, *RETIRED} if code[1] == hundred)
        assert used == list(range(1, len(used) + 1)), f"gap in R{hundred}xx: name retired codes in RETIRED"


def test_an_error_belongs_to_the_fault_of_its_code_and_ends_with_that_status() -> None:
    for kind in catalogue().values():
        if kind.__base__ is ReunaError:
            assert "code" not in vars(kind), f"{kind.__name__} is a kind of fault and has no code"
        else:
            assert "code" in vars(kind), f"{kind.__name__} has no code of its own"
            assert kind.exit_status == int(kind.code[1]) + 1, f"{kind.__name__}: status and code disagree"


def test_every_error_says_what_to_do_next() -> None:
    for kind in catalogue().values():
        assert inspect.getdoc(kind), kind.__name__
        assert kind.default_next_step.endswith("."), kind.__name__


def test_every_absence_is_of_an_error_that_there_is_and_holds_nothing_of_it() -> None:
    codes = {kind.code for kind in catalogue().values()}
    assert set(errors.ABSENCES) <= codes
    assert all(re.fullmatch(r"[a-z' ]+", words) for words in errors.ABSENCES.values())


def test_every_reason_of_a_refusal_is_a_word_with_a_meaning() -> None:
    for reason, meaning in {**errors.REFUSALS, **errors.ADMISSION}.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reason)
        assert meaning


def test_what_is_raised_has_a_code_of_its_own() -> None:
    """A kind of fault, as `UserError`, has none: whoever reads it could look nothing up."""
    faults = {"ReunaError", *(kind.__name__ for kind in ReunaError.__subclasses__())}
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                raised = ast.unparse(node.exc.func)
                assert raised not in faults, f"{path}:{node.lineno} raises {raised}"


def sources() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the package."""
    for path in sorted(Path(next(iter(reuna.__path__))).rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def advised() -> Iterator[tuple[str, str]]:
    """Every command line of ours that stands in backticks in a text of the package, and where."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for line in re.findall(r"`(reuna(?: [^`\n]+)?)`", node.value):
                    yield line, f"{path.name}:{node.lineno}"


@cache
def whole() -> Any:
    """All commands."""
    return typer.main.get_command(app)


def unknown(line: str) -> str:
    """The first word of a command line that is no command or option of ours; empty when all are known."""
    command = whole()
    for word in line.split()[1:]:
        if word.startswith("--") and len(word) > 2:
            options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            if word.partition("=")[0] not in {*options, "--help"}:
                return word
        elif (below := getattr(command, "commands", None)) and re.fullmatch(r"[a-z-]+", word):
            if word not in below:
                return word
            command = below[word]
    return ""


def test_every_command_and_option_that_a_text_advises_exists() -> None:
    lines = list(advised())
    assert len(lines) > 50
    assert not [f"{where}: {line}" for line, where in lines if unknown(line)]


@pytest.mark.parametrize(
    "line", ["reuna show --html", "reuna republish", "reuna site invent X", "reuna --trace run"]
)
def test_advice_that_leads_nowhere_is_found(line: str) -> None:
    assert unknown(line)
