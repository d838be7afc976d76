"""``reuna gate``: whether a finished run's model may be released, judged at every site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json, Runs, find, read

STATUS = {"pass": 0, "fail": 1, "open": 2}  #: exit status by what was decided


def gate(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, or the start of its name; the newest without.")
    ] = None,
    champion: Annotated[
        str | None,
        typer.Option("--champion", help="The run that `max_drop` compares with (default: the champion's)."),
    ] = None,
    project: Annotated[
        Path, typer.Option("--project", help="Folder with the reuna.toml that has [gates].")
    ] = Path(),
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="Another setting for this time, NAME=VALUE.")
    ] = None,
    runs: Runs = Path("runs"),
    releases: Annotated[Path, typer.Option("--releases", help="Folder of the catalogue.")] = Path("releases"),
    json: Json = False,
) -> None:
    """Judge a run's model by the project's [gates] at every site; the worst site decides.

    Exit status 0: every gate holds at every site; 1: one fails; 2: one cannot be judged.
    """
    from reuna.fleet.open_project import open_settings
    from reuna.loop.release import judge_run

    settings = open_settings(project, sets or [])
    result = read(find(runs, name))
    before = read(find(runs, champion)) if champion else _champion(releases, result["project"])
    judged = judge_run(settings.gates, result, before, settings.machines, settings.offline).as_dict()
    if json:
        as_json(judged)
    else:
        from reuna.cli.view import print_gates

        print_gates(judged)
    raise typer.Exit(STATUS[judged["decision"]])


def _champion(releases: Path, project: str) -> dict[str, Any] | None:
    """Where the champion of the catalogue comes from, if there is one."""
    from reuna.fleet.release import Catalogue, lineage

    found = Catalogue.of(releases, project).champion()
    return lineage(found) if found else None
