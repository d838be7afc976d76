"""``reuna init`` and ``reuna check``: a project's beginning and its health."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from reuna.cli.output import as_json

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new project.")],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="What is learnt: fault-classification, anomaly-detection or remaining-useful-life.",
        ),
    ] = None,
    learner: Annotated[
        str | None,
        typer.Option("--learner", help="What is trained: builtin (linear, in numpy), scikit-learn or torch."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take what is usual.")] = False,
    sample: Annotated[bool, typer.Option("--sample/--no-sample", help="Also make sample data.")] = True,
    git: Annotated[
        bool, typer.Option("--git/--no-git", help="Make it a git repository, unless it lies in one.")
    ] = True,
) -> None:
    """Make a project that trains at once: settings, code, tests, CI files, sample data, git repository."""
    from reuna.adapters.new_repository import begin_repository
    from reuna.core.project import TASKS
    from reuna.template import make_project, missing_module
    from reuna.template.choices import LEARNERS

    asks = sys.stdin.isatty() and not yes
    task = task or _choice("What is learnt?", TASKS, asks)
    learner = learner or _choice("What is trained?", LEARNERS, asks)
    for path in make_project(folder, sample, task, learner):
        typer.echo(f"  {path}")
    why_not = begin_repository(folder, f"A project of reuna init: {task}, {learner}") if git else ""
    if why_not:
        typer.echo(f"note: {why_not}", err=True)
    missing = missing_module(learner)
    first = "pip install -r requirements.txt && " if missing else ""
    if missing:
        typer.echo(f"note: {missing} is not installed here yet", err=True)
    typer.echo(f"next: cd {folder} && {first}reuna run")


def _choice(question: str, words: Sequence[str], asks: bool) -> str:
    """The answer of whoever sits there; else the first word."""
    if not asks:
        return words[0]
    from rich.prompt import Prompt

    try:
        return Prompt.ask(question, choices=list(words), default=words[0])
    except EOFError:
        raise KeyboardInterrupt from None


def schema(
    what: Annotated[
        str, typer.Argument(metavar="[FILE]", help="project: reuna.toml; fleet: a file for `reuna plan`.")
    ] = "project",
) -> None:
    """Print the JSON Schema of reuna.toml, or of a desired state, by which editors complete and check it."""
    from reuna.core.desired import desired_schema
    from reuna.core.errors import SettingsError
    from reuna.core.project import project_schema

    schemas = {"project": project_schema, "fleet": desired_schema}
    if what not in schemas:
        raise SettingsError(f"{what!r} has no schema", f"Ask for one of {', '.join(schemas)}.")
    as_json(schemas[what]())


def check(
    folder: Annotated[Path, typer.Argument(help="Project folder, with reuna.toml.")] = Path(),
    data: Annotated[Path | None, typer.Option("--data", help="Also check this folder of nodes.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="FLEET",
            help="Also ask every node of a running fleet whether it is ready: fleet.toml, the cloud.toml of "
            "its cloud, or https://HOST:PORT of the cloud where you are signed in.",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=1, max=600, help="Seconds that nodes of the fleet may take.")
    ] = 60,
    json: Json = False,
) -> None:
    """Check a project without training: settings, code, every node's data, and a fleet's nodes if asked."""
    from reuna.fleet.check import check_project

    report = check_project(folder, data)
    if json and against is None:
        as_json(report)
    elif not json:
        for node, rows in report["nodes"].items():
            typer.echo(f"{node}: {rows}")
        typer.echo(f"{report['project']}: {report['params']} parameters, {report['rounds']} rounds: fine")
    if against is not None:
        from reuna.cli.against import ask_fleet

        ask_fleet(folder, against, wait, report, json)
