"""``reuna export``: a finished run's model as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json, Runs, find, read


def export(
    file: Annotated[Path, typer.Argument(help="File to write, as model.onnx.")],
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, or the start of its name; the newest without.")
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option("--project", help="The run's project (default: here; the demo's has its own)."),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting that the run had, NAME=VALUE.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Write a run's model as ONNX, once it answers what the project's learner answers."""
    from reuna.demo.job import PROJECT
    from reuna.fleet.export import export_run

    folder = find(runs, name)
    result = read(folder)
    default = PROJECT if result.get("split") is not None else Path()
    done = export_run(folder, result, project or default, file, sets or [])
    if json:
        about = {"run": result["run"], "file": str(done.file), "bytes": done.size}
        as_json({**about, "rows": done.rows, "largest_difference": done.difference})
        return
    checked = (
        f"the learner's answers on {done.rows} rows, to within {done.difference:.1e}"
        if done.difference is not None
        else "not compared: the learner has no predict(model, x)"
    )
    typer.echo(f"{done.file}: {done.size} bytes, model of {result['run']}; {checked}")
