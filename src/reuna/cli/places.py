"""``reuna cloud``, ``fog``, ``edge``: one place as a long-running process. ``reuna up``: a small fleet."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from reuna.core.errors import SettingsError
from reuna.fleet.ending import until_done

SettingsFile = Annotated[Path, typer.Option("--settings", help="The place's settings file (TOML).")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, NAME=VALUE; wins over file and environment.")
]


def cloud(settings: SettingsFile, sets: Sets = None) -> None:
    """Run the coordinator."""
    _become("cloud", settings, sets)


def fog(settings: SettingsFile, sets: Sets = None) -> None:
    """Run a site's gateway."""
    _become("fog", settings, sets)


def edge(settings: SettingsFile, sets: Sets = None) -> None:
    """Run an edge node's agent."""
    _become("edge", settings, sets)


def up(
    fleet: Annotated[Path, typer.Argument(help="fleet.toml of a fleet on this machine.")] = Path(
        "fleet.toml"
    ),
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Make the fleet first: one edge per sub-folder of this folder."),
    ] = None,
    under: Annotated[
        list[str] | None,
        typer.Option(
            "--under",
            metavar="FOG=OVER",
            help="Place a fog of the new fleet under another one, or a new one.",
        ),
    ] = None,
) -> None:
    """Run every place of a small fleet and keep them running until Ctrl-C."""
    from reuna.adapters.logs import say_what_happens
    from reuna.fleet.data import find_nodes, spread
    from reuna.fleet.layout import make_fleet, open_fleet, placed
    from reuna.fleet.supervise import keep_up

    if under and (data is None or fleet.exists()):
        raise SettingsError(
            "--under is for a fleet that is made now", "Give --data, and a fleet.toml that is not there yet."
        )
    if data is not None and not fleet.exists():
        fogs, above = placed(spread(find_nodes(data)), under or [])
        make_fleet(fleet.absolute().parent, "local", fogs, above=above)
    opened = open_fleet(fleet)
    say_what_happens("up")
    said = f"fleet {opened.name}: {len(opened.places)} places; Ctrl-C stops them all"
    until_done(keep_up(opened, partial(typer.echo, said, err=True)))


def _become(kind: str, settings: Path, sets: list[str] | None) -> None:
    """Be that place from now on, in this very process, without what the command line has loaded."""
    from reuna.fleet.place import command

    words = command(kind, settings, sets or [], logging.getLogger().level == logging.DEBUG)
    os.execv(words[0], words)  # noqa: S606 - our own Python, no shell
