"""``reuna storage``: where a cloud keeps its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reuna.cli.output import as_json

app = typer.Typer(help="Where a cloud keeps its tables.", no_args_is_help=True)


@app.callback()
def _nouns() -> None:
    """One command so far; it keeps its name."""


@app.command()
def move(
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS", help="cloud.toml, with `database` set.")],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Take the tables of a stopped cloud from its folder to the PostgreSQL server that its settings name."""
    from reuna.cloud.settings import CLOUD
    from reuna.fleet.move import move as take
    from reuna.fleet.place import read_settings
    from reuna.fleet.trail import Trail

    values = read_settings(CLOUD, "REUNA_CLOUD_", settings, None)
    with Trail.of_place(values).doing("storage.move", "postgresql"):
        done = take(values)
    if json:
        as_json(done)
        return
    typer.echo(f"{sum(done.values())} rows in {len(done)} tables; the files are named *.moved now.")
    typer.echo("Back up the database from now on: see docs/how-to/storage.md.")
