"""``reuna mlflow``, and what `reuna run` shows there while it goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json, Runs, finished, readable

if TYPE_CHECKING:
    from reuna.cli.view import Progress
    from reuna.core.ports import Tracker
    from reuna.fleet.release import Catalogue
    from reuna.fleet.session import Finished, Job

URI = "MLFLOW_TRACKING_URI"
DONE = {"sent": "sent", "unchanged": "there already", "deleted": "deleted in MLflow, left so"}
app = typer.Typer(help="Show runs in MLflow.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """One command is still a group."""


@app.command()
def sync(
    to: Annotated[
        str | None,
        typer.Option("--to", help=f"MLflow's address; else {URI}, else the database mlflow.db in --runs."),
    ] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", help="MLflow's experiment, instead of the project's name.")
    ] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: send each run when it ends, until Ctrl-C.")
    ] = False,
    every_s: Annotated[
        float, typer.Option("--every", min=0.1, help="With --watch: seconds between two looks.")
    ] = 10.0,
    runs: Runs = Path("runs"),
    releases: Annotated[Path, typer.Option("--releases", help="Folder of the catalogue.")] = Path("releases"),
    json: Json = False,
) -> None:
    """Send every finished run and every release that MLflow does not have yet, and nothing twice."""
    from reuna.fleet.tracking import open_store

    tracker = open_store(runs, to or os.environ.get(URI, ""))
    done: dict[str, str] = {}
    if watch:
        _for_ever(tracker, runs, releases, experiment, every_s)
    _once(tracker, runs, experiment, done)
    made = _releases(tracker, releases, experiment, {})
    if json:
        as_json({"to": tracker.uri, "runs": done, "releases": made})
        return
    for name, what in {**done, **made}.items():
        typer.echo(f"{name}: {DONE.get(what, what)}")
    typer.echo(
        f"{len(done)} runs and {len(made)} releases at {tracker.uri}"
        if done or made
        else f"no finished run in {runs}, no release in {releases}",
        err=True,
    )


def _releases(
    tracker: Tracker, releases: Path, experiment: str, seen: dict[Path, tuple[int, ...]]
) -> dict[str, str]:
    """Of every catalogue that is not as ``seen``, which gets what it is now."""
    from reuna.fleet.registry import catalogues, send_releases

    done: dict[str, str] = {}
    for catalogue in catalogues(releases):
        names = catalogue.folder / "aliases.json"
        now = (*catalogue.versions(), names.stat().st_mtime_ns if names.is_file() else 0)
        if seen.get(catalogue.folder) != now:
            done |= send_releases(tracker, catalogue, experiment)
            seen[catalogue.folder] = now
    return done


def _once(tracker: Tracker, runs: Path, experiment: str, done: dict[str, str]) -> None:
    """Oldest first; ``done`` gets what was done with each run."""
    from reuna.fleet.tracking import send

    for folder, result in readable(finished(runs)[::-1]):
        if done.get(result["run"]) != "deleted":
            done[result["run"]] = send(tracker, folder, result, experiment)


def _for_ever(tracker: Tracker, runs: Path, releases: Path, experiment: str, every_s: float) -> None:
    """Say each run once, releases when they change; what passes is tried again. Raises what does not."""
    from reuna.core.errors import ReunaError
    from reuna.fleet.tracking import passing, send

    done: set[Path] = set()
    seen: dict[Path, tuple[int, ...]] = {}
    away = False
    while True:
        try:
            for folder, result in readable([each for each in finished(runs)[::-1] if each not in done]):
                what = send(tracker, folder, result, experiment)
                done.add(folder)
                typer.echo(f"{result['run']}: {DONE[what]}")
            for name, what in _releases(tracker, releases, experiment, seen).items():
                typer.echo(f"{name}: {DONE.get(what, what)}")
            away = False
        except ReunaError as error:
            if not passing(error):
                raise
            if not away:
                typer.echo(f"waits: {error.message}", err=True)
            away = True
        time.sleep(every_s)


@contextmanager
def shown_live(
    job: Job, progress: Progress
) -> Iterator[tuple[Callable[[dict[str, Any]], None], Callable[[Finished], None]]]:
    """What is to hear each event, and what is to hear the end; MLflow hears of both where it is asked for.

    Raises `ExtraMissing` where MLflow must be and is not; otherwise no run ever fails or waits for it.
    """
    uri = os.environ.get(URI, "")
    if not _wanted(job.settings.mlflow, uri, progress.note):
        yield progress.watch, lambda _: None
        return
    from reuna.fleet.tracking import Live, open_store

    live = Live(lambda: open_store(job.runs, uri), job.project, job.settings, progress.note)
    ended = False

    def watch(event: dict[str, Any]) -> None:
        progress.watch(event)
        live.watch(event)

    def done(finished: Finished) -> None:
        nonlocal ended
        ended = True
        live.finish(finished.folder, finished.result)

    try:
        yield watch, done
    finally:
        if not ended:
            live.failed()


def show_releases(catalogue: Catalogue, word: str, runs: Path) -> None:
    """What a project's releases are called now, in MLflow where it is asked for. Never fails, waits 10 s.

    ``word``: `tracking.mlflow` of the project.
    """
    from reuna.core.errors import ExtraMissing

    uri = os.environ.get(URI, "")

    def note(text: str) -> None:
        typer.echo(text, err=True)

    try:
        if not _wanted(word, uri, note):
            return
    except ExtraMissing as error:
        note(f"not shown in MLflow: {error.next_step}")
        return
    from reuna.fleet.registry import show
    from reuna.fleet.tracking import open_store

    show(lambda: open_store(runs, uri), catalogue, note)


def _wanted(word: str, uri: str, note: Callable[[str], None]) -> bool:
    from reuna.adapters.mlflow_tracking import installed
    from reuna.core.errors import ExtraMissing

    if word == "never" or (word == "auto" and not uri):
        return False
    if installed():
        return True
    missing = ExtraMissing("MLflow is not installed", "Run `pip install 'reuna[mlflow]'`.")
    if word == "always":
        raise missing
    note(f"not shown in MLflow, though {URI} is set: {missing.next_step}")
    return False
