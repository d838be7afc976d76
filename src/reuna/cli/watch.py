"""``reuna watch``: what nodes say of their inputs and answers, and the alarms."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(no_args_is_help=True, help="What nodes see of drift, and the alarms.")
LOCAL = {
    "inputs": "inputs are not what they were",
    "answers": "answers are not what they were",
    "safe": "nothing but the safe answer",
}
FleetOption = Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")]


@app.command()
def show(fleet: FleetOption, json: Json = False) -> None:
    """Show how each project's inputs have moved, and the alarms that go on; 1 while one is not seen."""
    from reuna.cli.run import open_at

    _, operator = open_at(fleet)
    found = operator.watch()
    going_on = [each for each in found["alarms"] if not each["ended"]]
    if json:
        as_json(found)
    else:
        _print(found, going_on)
    raise typer.Exit(1 if any(not each["by"] for each in going_on) else 0)


@app.command()
def acknowledge(
    alarm: Annotated[str, typer.Argument(metavar="ALARM", help="Its number, see `reuna watch show`.")],
    fleet: FleetOption,
    note: Annotated[str, typer.Option("--note", help="What you say of it.")] = "",
    json: Json = False,
) -> None:
    """Say that you have seen an alarm. It goes on until what it is about is over."""
    from reuna.cli.run import open_at

    _, operator = open_at(fleet)
    found = operator.acknowledge(alarm, note)
    if json:
        as_json(found)
    else:
        typer.echo(f"alarm {found['id']} was seen by {found['by']}: {found['sentence']}")


@app.command()
def local(
    state: Annotated[Path, typer.Argument(metavar="STATE", help="The edge's state folder.")],
    json: Json = False,
) -> None:
    """Show at an edge the alarms that it found itself, with no line to anybody; 1 while one goes on."""
    from msgspec import to_builtins

    from reuna.core.errors import NotUsable
    from reuna.core.foreign import readable
    from reuna.edge.notices import notices_file

    if not state.is_dir():
        raise NotUsable(f"there is no folder {state}", "Name the edge's state folder.")
    book = notices_file(state).read()
    going = list(book.going.values()) if book is not None else []
    if json:
        notices = [each.notice for each in book.kept] if book is not None else []
        as_json({"going": to_builtins(going), "notices": to_builtins(notices)})
    else:
        for each in going:
            regime = f" in regime {each.regime}" if each.regime else ""
            signals = f": {', '.join(each.signals)}" if each.signals else ""
            since = _when(each.since_ns / 10**9)
            typer.echo(readable(f"since {since} {each.project}: {LOCAL[each.kind]}{regime}{signals}"))
        typer.echo(f"alarms that go on: {len(going)}")
    raise typer.Exit(1 if going else 0)


def _print(found: Mapping[str, Any], going_on: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for project, nodes in sorted(found["projects"].items()):
        heads = ("node", "site", "drift", "moved most", "answers", "windows", "safe", "p99", "errors", "told")
        table = Table(*heads, title=project or "projects that are not named", title_justify="left")
        for node, each in sorted(nodes.items()):
            table.add_row(node, *_cells(each))
        Console().print(table)
    for alarm in going_on:
        seen = f", seen by {alarm['by']}" if alarm["by"] else ""
        of = f" of {alarm['project']}" if alarm["project"] else ""
        typer.echo(f"alarm {alarm['id']}{of} since {_when(alarm['since'])}{seen}: {alarm['sentence']}")
    if not found["projects"]:
        typer.echo("no node has said anything yet: nodes watch once a release is live on them", err=True)


def _cells(each: Mapping[str, Any]) -> tuple[str, ...]:
    moved = sorted(each.get("moved", {}).items(), key=lambda one: -one[1])
    stay = "few, stay" if each.get("windows_withheld") else ""
    return (
        each["site"],
        _level(each, "level", "alarm"),
        ", ".join(f"{signal} {distance:.1f}x" for signal, distance in moved[:3]),
        _level(each, "answers_level", "answers_alarm"),
        stay or str(each.get("windows", 0)),
        stay or str(each.get("safe", 0)),
        f"{each['p99_ms']:.1f} ms" if "p99_ms" in each else "",
        _errors(each),
        _when(each["at"]),
    )


def _errors(each: Mapping[str, Any]) -> str:
    """Of labels that came later: how many, how far the answers were from them, and the alarm."""
    if each.get("labels_withheld"):
        return "few, stay"
    if not each.get("labels"):
        return ""
    alarm = "ALARM " if each.get("errors_alarm") else ""
    error = f"{each['error']:.0%}" if each.get("wrong") else f"{each.get('error', 0.0):.3g}"
    return f"{alarm}{error} of {each['labels']}"


def _level(each: Mapping[str, Any], level: str, alarm: str) -> str:
    if each.get("withheld"):
        return "stays at the site"
    if level == "level" and not each.get("reference"):
        return "learns what is usual"
    return "ALARM" if each.get(alarm) else f"{min(each.get(level, 0.0), 1):.0%}"


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
