"""``reuna run`` and ``reuna demo``: a fleet on this machine, one training run, a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuna.cli.output import as_json, until_done

if TYPE_CHECKING:
    from reuna.fleet.client import Operator
    from reuna.fleet.layout import Fleet
    from reuna.fleet.session import Finished, Job

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Running = Annotated[
    str | None,
    typer.Option(
        "--fleet",
        help="A fleet that runs and goes on: fleet.toml as `reuna up` has it, the cloud.toml of one "
        "whose machines joined, or https://HOST:PORT of the cloud where you are signed in.",
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder where results go.")]


def run(
    project: Annotated[Path, typer.Argument(help="Project folder, with reuna.toml.")] = Path(),
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with one sub-folder per node (default: PROJECT/data)."),
    ] = None,
    fogs: Annotated[
        int | None, typer.Option("--fogs", min=1, help="How many fogs to spread the nodes over.")
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=0, help="Instead of strategy.rounds.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="One setting, NAME=VALUE.")] = None,
    fleet: Running = None,
    mlflow: Annotated[
        bool | None,
        typer.Option("--mlflow/--no-mlflow", help="Show the run in MLflow, instead of tracking.mlflow."),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Train the project's model over the nodes of a data folder, on this machine, and compare."""
    from reuna.fleet.check import check_all
    from reuna.fleet.data import find_nodes
    from reuna.fleet.open_project import open_settings
    from reuna.fleet.session import Job, nodes_of

    flags = [*(sets or []), *([] if rounds is None else [f"strategy.rounds={rounds}"])]
    flags += [] if mlflow is None else [f"tracking.mlflow={'always' if mlflow else 'never'}"]
    settings = open_settings(project, flags)
    opened = open_at(fleet) if fleet is not None else None
    nodes = nodes_of(opened[0]) if opened is not None else find_nodes(data or project / "data")
    check_all(project, settings, nodes if opened is None else [], fogs, settings.quorum)
    _carry_out(Job(project, settings, nodes, runs, fogs), json, opened)


def stop(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    fleet: Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")],
) -> None:
    """End a run for good, as one that waits for approvals that will not come."""
    if number := open_at(fleet)[1].stop(run):
        typer.echo(f"waits for a second person: reuna proposals approve {number}")
    else:
        typer.echo(f"{run} is stopped")


def open_at(where: str) -> tuple[Fleet, Operator]:
    """A fleet by its own file, its cloud's, or its cloud's address. Raises `SettingsError`."""
    from reuna.adapters.toml_file import read_toml
    from reuna.cli.people import session_file
    from reuna.cli.places import read_settings
    from reuna.cloud.settings import CLOUD
    from reuna.fleet.client import Operator
    from reuna.fleet.joined import at, of_cloud
    from reuna.fleet.layout import open_fleet

    if where.startswith("https://"):
        return at(where, session_file())
    file = Path(where)
    if "cloud" in read_toml(file).values:
        fleet = open_fleet(file)
        return fleet, Operator.of(fleet)
    return of_cloud(read_settings(CLOUD, "REUNA_CLOUD_", file, None), file)


def demo(
    split: Annotated[
        int, typer.Option("--split", min=1, max=3, help="Which of the three committed splits.")
    ] = 1,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Fewer rounds, for a quick look.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Six plants of the Tennessee Eastman process train one fault classifier; two minutes, no data leaves."""
    from reuna.demo.job import demo_job

    with demo_job(split, rounds, runs) as job:
        _carry_out(job, json)


def _carry_out(job: Job, json: bool, opened: tuple[Fleet, Operator] | None = None) -> None:
    from reuna.cli.mlflow import shown_live
    from reuna.cli.view import Progress, print_result
    from reuna.fleet.session import carry_out, carry_out_on

    with Progress(job, quiet=json) as progress, shown_live(job, progress) as (watch, done):
        work = carry_out(job, watch) if opened is None else carry_out_on(*opened, job, watch)
        finished: Finished = until_done(work, stopping=progress.stopping)
        done(finished)
    if json:
        as_json(finished.result)
    else:
        print_result(finished.result, finished.folder)
