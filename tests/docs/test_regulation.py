"""Pointers into regulation name commands that there are, and say that they are no advice."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from reuna.cli import app

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "regulation.md"
TEXT = PAGE.read_text(encoding="utf-8")


def words_of(command: object, before: tuple[str, ...] = ()) -> set[str]:
    """Every command there is, as it is typed."""
    found = {" ".join(("reuna", *before))}
    for name, child in getattr(command, "commands", {}).items():
        found |= words_of(child, (*before, name))
    return found


def test_every_command_that_a_pointer_names_is_there() -> None:
    known = words_of(typer.main.get_command(app))
    named = {re.split(r" --", each)[0] for each in re.findall(r"`(reuna [^`]+)`", TEXT)}
    named.discard("reuna release promote previous")
    assert len(named) > 30
    assert named <= known, named - known


def test_the_page_says_first_that_it_is_no_advice() -> None:
    assert "a list of pointers, not advice" in TEXT.split("## ")[0]
