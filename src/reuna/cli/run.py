"""``reuna run`` and ``reuna demo``: a fleet on this machine, one training run, a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json, until_done

if TYPE_CHECKING:
    from reuna.core.project import ProjectSettings
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
    build: Annotated[
        Path | None,
        typer.Option(
            "--build", help="Run this build instead of a folder: its code and its settings, exactly."
        ),
    ] = None,
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
    from reuna.fleet.session import Job, nodes_of

    flags = [*(sets or []), *([] if rounds is None else [f"strategy.rounds={rounds}"])]
    opened = open_at(fleet) if fleet is not None else None
    with _to_run(project, build, flags) as (folder, told, source):
        settings = told if mlflow is None else replace(told, mlflow="always" if mlflow else "never")
        nodes = nodes_of(opened[0]) if opened is not None else find_nodes(data or project / "data")
        check_all(folder, settings, nodes if opened is None else [], fogs, settings.quorum)
        _carry_out(
            Job(
                folder,
                settings,
                nodes,
                runs,
                fogs,
                {"source": source},
                named=str(build or project),
                build=build,
            ),
            json,
            opened,
        )


@contextmanager
def _to_run(
    project: Path, build: Path | None, flags: list[str]
) -> Iterator[tuple[Path, ProjectSettings, dict[str, Any]]]:
    """The project's folder, its settings and where its code comes from; a build is unpacked for the while."""
    import msgspec

    from reuna.core.errors import SettingsError
    from reuna.fleet.built import claimed, read, source_of, source_of_build, unpack
    from reuna.fleet.open_project import open_settings

    if build is None:
        settings = open_settings(project, flags)
        yield project, settings, msgspec.to_builtins(source_of(project))
        return
    if flags:
        raise SettingsError(f"{flags[0]}: a build is run as it is", "Change reuna.toml, and build again.")
    found = read(build)
    with TemporaryDirectory(prefix="reuna-") as scratch:
        folder = Path(scratch) / "project"
        settings = unpack(found, folder)
        yield folder, settings, msgspec.to_builtins(source_of_build(found, claimed(build)))


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
