"""``reuna triggers``: what begins runs at a cloud by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json


def list_triggers(
    fleet: Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")], json: Json = False
) -> None:
    """List what begins runs by itself: schedules, drift, nodes that join; how each stands, and why."""
    from reuna.cli.run import open_at

    found = open_at(fleet)[1].triggers()
    if json:
        as_json(found)
        return
    for each in found:
        for line in _lines(each):
            typer.echo(line)
    if not found:
        typer.echo("nothing begins runs by itself; docs/how-to/continuous-training.md", err=True)


def _lines(each: Mapping[str, Any]) -> list[str]:
    from reuna.core.trigger import when
    from reuna.fleet.desired import as_trigger

    said = f": {each['why']}" if each["why"] else ""
    lines = [f"{each['name']}  {each['state']}{said}", f"    {each['again']} again, {when(as_trigger(each))}"]
    if each["next"] is not None:
        lines.append(f"    due next at {_utc(each['next'])}")
    if each["last"] is not None:
        asked = f", proposal {each['proposal']}" if each["proposal"] else ""
        lines.append(f"    last: {each['run']} at {_utc(each['last'])}{asked}")
    if each["wrong"]:
        lines.append(f"    went wrong: {each['wrong']}")
    return lines


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
