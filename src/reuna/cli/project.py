"""``reuna init`` and ``reuna check``: a project's beginning and its health."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reuna.cli.output import as_json

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new project.")],
    sample: Annotated[bool, typer.Option("--sample/--no-sample", help="Also make sample data.")] = True,
) -> None:
    """Make a project that trains at once: settings, features, model, a test, sample data."""
    from reuna.template import make_project

    files = make_project(folder, sample)
    for path in files:
        typer.echo(f"  {path}")
    typer.echo(f"next: cd {folder} && reuna run")


def check(
    folder: Annotated[Path, typer.Argument(help="Project folder, with reuna.toml.")] = Path(),
    data: Annotated[Path | None, typer.Option("--data", help="Also check this folder of nodes.")] = None,
    json: Json = False,
) -> None:
    """Check a project without training: settings, code, and every node's data."""
    from reuna.fleet.check import check_project

    report = check_project(folder, data)
    if json:
        as_json(report)
    else:
        for node, rows in report["nodes"].items():
            typer.echo(f"{node}: {rows}")
        typer.echo(f"{report['project']}: {report['params']} parameters, {report['rounds']} rounds: fine")
