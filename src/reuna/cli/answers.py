"""``reuna answers``: what releases answered on an edge, and how fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json
from reuna.fleet.ending import until_done

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from reuna.adapters.answer_store import Kept, StoredAnswers

LOOK_S = 0.5  #: between two looks for new answers
SHOWN = 20
TOGETHER = 1000  #: answers that are read at once


def answers(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="The edge's state folder, or its `answers`."),
    ],
    last: Annotated[int, typer.Option("--last", min=1, help="How many of the newest answers.")] = SHOWN,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show what a release answers live: windows with answer and state, counts, and latency.

    With --follow --json there is one line of JSON for each answer.
    """
    from reuna.adapters.answer_store import NAME, StoredAnswers

    there = folder if (folder / NAME).is_file() else folder / "answers"
    store = StoredAnswers(there)
    try:
        if not follow:
            _print(store, store.newest(last), json)
        elif json or not sys.stdout.isatty():
            until_done(_lines(store, last, json))
        else:
            _table_while(store, last)
    finally:
        store.close()


def _print(store: StoredAnswers, kept: Sequence[Kept], json: bool) -> None:
    if json:
        lines = [as_dict(each) for each in kept]
        as_json({"answers": lines, "counts": _counts(kept), "projects": _projects(store)})
        return
    from rich.console import Console

    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(_table(kept))
    for line in _said(store, kept):
        typer.echo(line)


async def _lines(store: StoredAnswers, last: int, json: bool) -> None:
    """A line for each answer, as it comes."""
    import asyncio
    from json import dumps

    kept, number = store.newest(last), 0
    while True:
        for each in kept:
            typer.echo(dumps(as_dict(each)) if json else "  ".join(filter(None, _cells(each))))
        sys.stdout.flush()
        number = kept[-1].number if kept else number
        await asyncio.sleep(LOOK_S)
        kept = store.after(number, TOGETHER)


def _table_while(store: StoredAnswers, last: int) -> None:
    """The newest answers, as they come, where a person looks on."""
    import asyncio

    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    def shown() -> Group:
        kept = store.newest(last)
        return Group(_table(kept), *map(Text, _said(store, kept)))

    async def for_ever() -> None:
        await asyncio.Event().wait()

    with Live(get_renderable=shown, console=Console(), refresh_per_second=1 / LOOK_S, transient=True):
        until_done(for_ever())


def _table(kept: Sequence[Kept]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    for title in ("window ends", "release", "answer", "confidence", "state", "at", "took", "why"):
        right = title in {"answer", "confidence", "took"}
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "why")
    for each in kept:
        table.add_row(*map(Text, _cells(each)), style="bold" if each.outcome.state == "safe" else "")
    return table


def _cells(each: Kept) -> tuple[str, ...]:
    from reuna.cli.source import moment
    from reuna.core.foreign import readable

    said = each.outcome
    by = said.fog if said.fog is not None and said.place == "fog" else said
    release = f"{readable(by.project)} {by.version}"
    return (
        moment(said.last_ns),
        release if each.role == "live" else f"{release} ({each.role})",
        "none" if said.answer is None else f"{said.answer:.6g}",
        "" if said.confidence is None else f"{said.confidence:.3f}",
        said.state,
        said.place,
        f"{said.took_ms:.1f} ms" if said.output else "",
        readable(said.why),
    )


def _said(store: StoredAnswers, kept: Sequence[Kept]) -> list[str]:
    """Counts and latency of the answers that count, for people."""
    found = _counts(kept)
    states = ", ".join(f"{number} {state}" for state, number in found["states"].items())
    lines = [f"of the last {len(kept)}: {states or 'none'}"]
    if found["fog"]:
        words = ", ".join(f"{number} {word}" for word, number in found["fog"].items())
        lines.append(f"asked the fog: {words}")
    for name in ("took_ms", "features_ms", "graph_ms"):
        if found[name]:
            spread = ", ".join(f"{part} {value:.2f} ms" for part, value in found[name].items())
            lines.append(f"{name.removesuffix('_ms')}: {spread}")
    return lines + [
        f"{project}: {each['passed']} windows had no reading and no answer"
        for project, each in _projects(store).items()
        if each["passed"]
    ]


def _counts(kept: Sequence[Kept]) -> dict[str, Any]:
    from reuna.core.outcomes import counted

    return dict(vars(counted(each.outcome for each in kept if each.role == "live")))


def _projects(store: StoredAnswers) -> dict[str, dict[str, Any]]:
    """By project, up to when its windows are done with, and how many of them nobody answered."""
    return {
        name: {"next_ns": mark.grid.moment(mark.next), "passed": mark.passed} for name, mark in store.marks()
    }


def as_dict(each: Kept) -> dict[str, Any]:
    """An answer as a line of JSON: what is no finite number is null."""
    import math

    from msgspec import to_builtins

    said: dict[str, Any] = to_builtins(each.outcome)
    output = [value if math.isfinite(value) else None for value in each.outcome.output]
    known = {"number": each.number, "role": each.role, "kept_ns": each.kept_ns}
    place, confidence = each.outcome.place, each.outcome.confidence
    return {**known, **said, "output": output, "confidence": confidence, "place": place}
