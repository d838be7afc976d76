"""``reuna cloud``, ``fog``, ``edge``: one place as a long-running process. ``reuna up``: a small fleet."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import until_done
from reuna.core.errors import ReunaError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reuna.core.settings import Look, Option, Source

log = logging.getLogger("reuna")
SettingsFile = Annotated[Path, typer.Option("--settings", help="The place's settings file (TOML).")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, NAME=VALUE; wins over file and environment.")
]


def cloud(settings: SettingsFile, sets: Sets = None) -> None:
    """Run the coordinator."""
    _one_thread()
    from reuna.cloud import coordinator
    from reuna.cloud.settings import CLOUD

    _serve(coordinator.run, CLOUD, lambda: read_settings(CLOUD, "REUNA_CLOUD_", settings, sets, there))


def fog(settings: SettingsFile, sets: Sets = None) -> None:
    """Run a site's gateway."""
    _one_thread()
    from reuna.fog import gateway
    from reuna.fog.settings import FOG

    _serve(gateway.run, FOG, lambda: read_settings(FOG, "REUNA_FOG_", settings, sets, there))


def edge(settings: SettingsFile, sets: Sets = None) -> None:
    """Run an edge node's agent."""
    _one_thread()
    from reuna.edge import agent
    from reuna.edge.settings import EDGE

    _serve(agent.run, EDGE, lambda: read_settings(EDGE, "REUNA_EDGE_", settings, sets, there))


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
    _say_what_happens("up")
    typer.echo(f"fleet {opened.name}: {len(opened.places)} places; Ctrl-C stops them all", err=True)
    until_done(keep_up(opened))


def read_settings(
    table: tuple[Option, ...], prefix: str, file: Path, sets: list[str] | None, look: Look | None = None
) -> dict[str, Any]:
    """A place's settings from its file, the environment and flags. Raises `SettingsError`.

    A place that starts also looks whether the files they name are `there`.
    """
    from reuna.adapters.toml_file import read_toml
    from reuna.core.settings import environment, parse

    return parse(table, [read_toml(file), environment(table, prefix, os.environ), _flags(sets)], look=look)


def there(option: Option, values: Mapping[str, Any]) -> str:
    """What is wrong with the file or folder that a setting names, for a place that starts now."""
    path = Path(values[option.name])
    if option.there == "later":
        return ""
    if option.there == "pin" and (Path(values["folder"]) / "trust" / "state").is_file():
        return ""  # read once, when the node was new
    if not path.exists():
        return "which is not there"
    if path.is_dir() != (option.there == "folder"):
        return "which is no folder" if option.there == "folder" else "which is no file"
    return "" if os.access(path, os.R_OK) else "which this user may not read"


def _one_thread() -> None:
    """Here and in all that this place starts. Before numpy is loaded."""
    from reuna.adapters.processes import ONE_THREAD

    os.environ.update(ONE_THREAD)


def _flags(sets: list[str] | None) -> Source:
    from reuna.core.settings import flags

    return flags(sets or [])


def _serve(run: Callable[..., Any], table: tuple[Option, ...], read: Callable[[], dict[str, Any]]) -> None:
    """Run a place; on SIGHUP it gets its settings read again. A mistake in them changes nothing."""
    from reuna.adapters.processes import no_core_files

    no_core_files()
    settings = read()
    _say_what_happens(settings["name"])
    waiting_for(table, settings)
    changes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def reread() -> None:
        try:
            changes.put_nowait(read())
        except ReunaError as error:
            log.error("settings stay as they were: %s", error)

    until_done(run(settings, changes), reread)


def waiting_for(table: tuple[Option, ...], settings: Mapping[str, Any]) -> None:
    """Say which files a place goes without until they come."""
    for option in table:
        if option.there == "later" and not Path(settings[option.name]).exists():
            log.warning("waits for %s, %s: it is not there yet", option.name, settings[option.name])


def _say_what_happens(name: str) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(name)s %(message)s"
    )
