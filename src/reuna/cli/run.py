"""``reuna run`` and ``reuna demo``: a fleet on this machine, one training run, a comparison."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.fleet.ending import until_done

if TYPE_CHECKING:
    from reuna.core.project import ProjectSettings
    from reuna.fleet.client import Operator
    from reuna.fleet.layout import Fleet
    from reuna.fleet.session import Finished, Job, Watch

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
At = Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")]
Folder = Annotated[
    Path,
    typer.Option("--project", help="Folder with the code of the run; of a run from a build none is needed."),
]


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
        str | None,
        typer.Option(
            "--build",
            metavar="FILE|sha256:DIGEST|PROJECT",
            help="Run this build instead of a folder, its code and its settings, exactly: a file, or with "
            "--fleet one that its cloud keeps, by its digest or as the newest of a project.",
        ),
    ] = None,
    fleet: Running = None,
    again: Annotated[
        bool, typer.Option("--again", help="Train also when an earlier run had the same of everything.")
    ] = False,
    mlflow: Annotated[
        bool | None,
        typer.Option("--mlflow/--no-mlflow", help="Show the run in MLflow, instead of tracking.mlflow."),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Train the project's model over the nodes of a data folder, on this machine, and compare."""
    from reuna.cli.unchanged import taken
    from reuna.fleet.check import check_all
    from reuna.fleet.data import find_nodes
    from reuna.fleet.session import Job, nodes_of

    flags = [*(sets or []), *([] if rounds is None else [f"strategy.rounds={rounds}"])]
    opened = open_at(fleet) if fleet is not None else None
    with _to_run(project, build, flags, opened) as (folder, told, source, file):
        settings = told if mlflow is None else replace(told, mlflow="always" if mlflow else "never")
        nodes = nodes_of(opened[0]) if opened is not None else find_nodes(data or project / "data")
        check_all(folder, settings, nodes if opened is None else [], fogs, settings.quorum)
        job = Job(
            folder, settings, nodes, runs, fogs, {"source": source}, named=str(build or project), build=file
        )
        job = replace(job, kept=source.get("build", "") if opened is not None else "")
        inputs, before = taken(job, opened, again)
        if before is not None:
            _show(*before, json)
            return
        _carry_out(replace(job, inputs=inputs), json, opened, fleet)


@contextmanager
def _to_run(
    project: Path, build: str | None, flags: list[str], opened: tuple[Fleet, Operator] | None
) -> Iterator[tuple[Path, ProjectSettings, dict[str, Any], Path | None]]:
    """The project's folder, its settings, where its code comes from; a build is unpacked for the while."""
    import msgspec

    from reuna.core.errors import SettingsError
    from reuna.fleet.built import claimed, read, source_of, source_of_build, unpack
    from reuna.fleet.open_project import open_settings

    if build is None:
        settings = open_settings(project, flags)
        yield project, settings, msgspec.to_builtins(source_of(project)), None
        return
    if flags:
        raise SettingsError(f"{flags[0]}: a build is run as it is", "Change reuna.toml, and build again.")
    with TemporaryDirectory(prefix="reuna-") as scratch:
        file = _file_of(build, Path(scratch), None if opened is None else opened[1])
        found, folder = read(file), Path(scratch) / "project"
        settings = unpack(found, folder)
        yield folder, settings, msgspec.to_builtins(source_of_build(found, claimed(file))), file


def _file_of(build: str, scratch: Path, operator: Operator | None) -> Path:
    """A build as a file: the one named, which the cloud keeps from now on, or one that it keeps already."""
    from reuna.fleet.kept import fetch, named, push

    file = Path(build)
    if operator is None:
        return file
    if file.exists():
        push(operator, file)
        return file
    return fetch(operator, named(operator.builds(), build).digest, scratch)


def stop(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    fleet: At,
) -> None:
    """Stop a run, as one that waits for approvals that will not come; it can be resumed."""
    if number := open_at(fleet)[1].stop(run):
        typer.echo(f"waits for a second person: reuna proposals approve {number}")
    else:
        typer.echo(f"{run} is stopped")


def resume(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    fleet: At,
    project: Folder = Path(),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Go on with a run that was stopped or failed, at its last finished round, and follow it to its end."""
    with _job_of(run, fleet, project, runs) as (job, opened):
        _follow(job, opened, fleet, run, lambda: opened[1].resume(run), json)


def retry(
    run: Annotated[str, typer.Argument(help="Name of a run that has ended.")],
    fleet: At,
    project: Folder = Path(),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Begin a new run with the inputs of one that has ended; it names the one before."""
    import secrets
    import time

    from reuna.loop.plan import run_id

    with _job_of(run, fleet, project, runs) as (job, opened):
        name = run_id(time.time(), secrets.token_hex(2))
        _follow(job, opened, fleet, name, lambda: opened[1].retry(run, name), json)


def fetch(
    fleet: At,
    run: Annotated[
        str | None,
        typer.Argument(help="Name of the run; without it the newest that the cloud began by itself."),
    ] = None,
    project: Folder = Path(),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Fetch the result of a run at a fleet, whoever began it; one that goes on is followed to its end."""
    from reuna.fleet.fetched import fetch as carry_out

    wanted = run or begun_by_the_cloud(open_at(fleet)[1])
    with _job_of(wanted, fleet, project, runs) as (job, opened):
        _watched(job, json, lambda watch: carry_out(*opened, job, wanted, watch), fleet)


def begun_by_the_cloud(operator: Operator) -> str:
    """The newest run that the cloud began by itself. Raises `RunNotFound`."""
    from reuna.core.errors import RunNotFound

    for each in operator.runs():
        if each.get("why"):
            return str(each["run"])
    raise RunNotFound("the cloud has begun no run by itself", "Name one: `reuna runs --fleet` lists them.")


@contextmanager
def _job_of(run: str, fleet: str, project: Path, runs: Path) -> Iterator[tuple[Job, tuple[Fleet, Operator]]]:
    """What is needed for the result of a run that the cloud knows; its build comes from there."""
    from reuna.fleet.again import settings_as_asked
    from reuna.fleet.session import Job, nodes_of

    opened = open_at(fleet)
    spec = opened[1].asked(run)
    build = f"sha256:{spec.build}" if spec.build else None
    with _to_run(project, build, [], opened) as (folder, told, source, file):
        settings = settings_as_asked(spec, folder, told)
        nodes = [
            node for node in nodes_of(opened[0]) if any(node.name in names for names in spec.fogs.values())
        ]
        named = build or str(project)
        yield Job(folder, settings, nodes, runs, notes={"source": source}, named=named, build=file), opened


def _follow(
    job: Job, opened: tuple[Fleet, Operator], at: str, run: str, begin: Callable[[], str], json: bool
) -> None:
    from reuna.fleet.again import take_up

    _watched(job, json, lambda watch: take_up(*opened, job, run, begin, watch), at)


def open_at(where: str) -> tuple[Fleet, Operator]:
    """A fleet by its own file, its cloud's, or its cloud's address. Raises `SettingsError`."""
    from reuna.adapters.toml_file import read_toml
    from reuna.cli.people import session_file
    from reuna.cloud.settings import CLOUD
    from reuna.fleet.client import Operator
    from reuna.fleet.joined import at, of_cloud
    from reuna.fleet.layout import open_fleet
    from reuna.fleet.place import read_settings

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
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="TCP port of the plants; 0: one that is free."),
    ] = 0,
    training: Annotated[
        bool, typer.Option("--training", help="Train and compare alone: no plants, release or drift.")
    ] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Six plants, one fault classifier: trained, released, watched, trained again when the plants drift."""
    from reuna.cli.story import tell
    from reuna.demo.job import demo_job

    with demo_job(split, rounds, runs) as job:
        if training:
            _carry_out(job, json)
        else:
            tell(job, port, json)


def _carry_out(
    job: Job, json: bool, opened: tuple[Fleet, Operator] | None = None, at: str | None = None
) -> None:
    from reuna.fleet.session import carry_out, carry_out_on

    _watched(
        job,
        json,
        lambda watch: carry_out(job, watch) if opened is None else carry_out_on(*opened, job, watch),
        at,
    )


def _watched(
    job: Job, json: bool, work: Callable[[Watch], Coroutine[Any, Any, Finished]], at: str | None = None
) -> None:
    """Carry out a run, and show it. ``at``: the fleet that goes on with it when whoever watches ends."""
    from reuna.cli.mlflow import shown_live
    from reuna.cli.view import Progress, goes_on

    progress = Progress(job, quiet=json)
    try:
        with progress, shown_live(job, progress) as (watch, done):
            finished: Finished = until_done(work(watch), stopping=progress.stopping)
            done(finished)
    except KeyboardInterrupt:
        if at is not None and progress.run:
            typer.echo(goes_on(progress.run, at, job), err=True)
        raise
    _show(finished.folder, finished.result, json)


def _show(folder: Path, result: dict[str, Any], json: bool) -> None:
    from reuna.cli.view import print_result

    if json:
        as_json(result)
    else:
        print_result(result, folder)
