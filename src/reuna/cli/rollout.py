"""``reuna rollout`` and ``reuna rollback``: which release runs where now, wave after wave, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json
from reuna.core.errors import RolloutProblem, RunNotFound

if TYPE_CHECKING:
    from reuna.core.rollout import Order, RolloutSpec
    from reuna.fleet.client import Operator

app = typer.Typer(
    no_args_is_help=True, help="Let a signed release run, wave after wave; watch, hold, stop it."
)
Fleet = Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")]
Folder = Annotated[Path, typer.Option("--project", help="Folder with the project's reuna.toml.")]
Version = Annotated[
    int | None,
    typer.Option("--version", min=1, help="Version of the release; else the newest that is listed."),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--release", help="A release's file instead; the rollout waits until it is signed and listed."
    ),
]
Waves = Annotated[
    list[str] | None,
    typer.Option("--wave", help="A wave, instead of rollout.waves; again for each, one after the other."),
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="One setting, as rollout.soak_s=60.")]
Called = Annotated[
    str, typer.Option("--name", help="Name of the rollout; else of project, version and time.")
]
Name = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Name of the rollout.")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on until it is over; status 0: done.")]


@app.command()
def start(
    *,
    fleet: Fleet,
    project: Folder = Path(),
    version: Version = None,
    release: File = None,
    wave: Waves = None,
    sets: Sets = None,
    name: Called = "",
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Begin a rollout: shadow, then wave after wave, by the settings of the project."""
    operator, spec = _asked(fleet, project, version, release, wave, sets, name)
    if number := operator.start_rollout(spec):
        _say({"rollout": spec.rollout, "proposal": number}, json, _second(number))
        return
    if follow:
        _follow(operator, spec.rollout, json)
        return
    watch = f"reuna rollout status {spec.rollout} --fleet {fleet} --follow"
    _say({"rollout": spec.rollout}, json, f"{spec.rollout} begins; watch it: {watch}")


@app.command()
def plan(
    *,
    fleet: Fleet,
    project: Folder = Path(),
    version: Version = None,
    release: File = None,
    wave: Waves = None,
    sets: Sets = None,
    name: Called = "",
    json: Json = False,
) -> None:
    """Show what a rollout would be: who is in which wave, and on what terms; nothing begins."""
    operator, spec = _asked(fleet, project, version, release, wave, sets, name)
    found = operator.plan_rollout(spec)
    if json:
        as_json(found)
        return
    _print_waves(found)
    terms = ", ".join(f"{key} {value}" for key, value in found["terms"].items() if value not in ([], ()))
    typer.echo(f"{found['project']} {found['version']}: {terms}")


@app.command()
def status(
    name: Annotated[
        str | None, typer.Argument(metavar="ROLLOUT", help="Name of the rollout; else all of them.")
    ] = None,
    *,
    fleet: Fleet,
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Show where a rollout is and what each node said, or list the newest rollouts."""
    operator = _operator(fleet)
    if name is None and not follow:
        _list(operator.rollouts(), json)
        return
    called = name or _newest(operator)
    if follow:
        _follow(operator, called, json)
        return
    found = operator.rollout(called)
    if json:
        as_json({**found, "events": operator.rollout_events(called)})
        return
    _print(found)


@app.command()
def pause(name: Name, *, fleet: Fleet) -> None:
    """Hold a rollout: no wave begins; nodes that go back still count."""
    _order(fleet, name, "pause", "is paused")


@app.command()
def resume(name: Name, *, fleet: Fleet) -> None:
    """Let a rollout that is held go on, also without the nodes that it waited for in vain."""
    _order(fleet, name, "resume", "goes on")


@app.command()
def abort(name: Name, *, fleet: Fleet) -> None:
    """End a rollout: every node has again what it had before; nodes that are away follow by themselves."""
    _order(fleet, name, "abort", "is aborted; nodes go back by themselves")


def rollback(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")],
    *,
    fleet: Fleet,
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Bring a project back to what its nodes ran before its newest rollout, everywhere at once."""
    from reuna.fleet.rollout import name_of

    operator = _operator(fleet)
    done = operator.roll_back(project, name_of(project, "back", time.time()))
    if follow and done["did"] == "begun":
        _follow(operator, done["rollout"], json)
        return
    said = "is aborted" if done["did"] == "aborted" else "begins"
    _say(done, json, f"{done['rollout']} {said}; nodes go back by themselves")


def _operator(fleet: str) -> Operator:
    from reuna.cli.run import open_at

    return open_at(fleet)[1]


def _asked(
    fleet: str,
    project: Path,
    version: int | None,
    release: Path | None,
    waves: list[str] | None,
    sets: list[str] | None,
    name: str,
) -> tuple[Operator, RolloutSpec]:
    from reuna.fleet.open_project import open_settings
    from reuna.fleet.release import read
    from reuna.fleet.rollout import spec_of, version_of

    settings = open_settings(project, sets or [])
    if version is not None and release is not None:
        raise RolloutProblem("both --version and --release are given", "Say which of them it is.")
    wanted = version if release is None else version_of(read(release), settings.name)
    operator = _operator(fleet)
    return operator, spec_of(settings, operator.releases(), wanted, waves or [], name, time.time())


def _order(fleet: str, name: str, order: Order, said: str) -> None:
    _operator(fleet).order_rollout(name, order)
    typer.echo(f"{name} {said}")


def _second(number: str) -> str:
    return f"waits for a second person: reuna proposals approve {number}"


def _say(value: dict[str, Any], json: bool, text: str) -> None:
    if json:
        as_json(value)
    else:
        typer.echo(text)


def _newest(operator: Operator) -> str:
    found = operator.rollouts()
    if not found:
        raise RunNotFound("there was no rollout yet", "Begin one: `reuna rollout start`.")
    return str(found[0]["rollout"])


def _follow(operator: Operator, name: str, json: bool) -> None:
    from reuna.fleet.rollout import follow, line

    last, found = "", {"phase": "", "why": ""}
    for found in follow(operator, name):
        said = line(found)
        if said != last:
            typer.echo(f"{time.strftime('%H:%M:%S')}  {said}", err=json)
        last = said
    if json:
        as_json(found)
    if found["phase"] != "done":
        why = f": {found['why']}" if found["why"] else ""
        raise RolloutProblem(
            f"rollout {name} {found['phase']}{why}",
            "The nodes have what they had before; see their reasons above.",
        )


def _list(found: list[dict[str, Any]], json: bool) -> None:
    if json:
        as_json(found)
        return
    for each in found:
        began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(each["began"]))
        at = f"wave {each['wave']}/{each['waves']}"
        why = f": {each['why']}" if each["why"] else ""
        what = f"{each['project']} {each['version']}"
        typer.echo(f"{each['rollout']}  {what}  {each['phase']}{why}  {at}, began {began} UTC")
    if not found:
        typer.echo("no rollout yet; begin one: `reuna rollout start`", err=True)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from reuna.fleet.rollout import line

    typer.echo(line(found))
    _print_waves(found)
    table = Table("node", "site", "before", "live", "shadow", "said", "why")
    for node, each in found["nodes"].items():
        versions = (str(each[key] or "–") for key in ("before", "live", "shadow"))
        table.add_row(node, each["site"], *versions, each["said"] or "–", each["why"])
    Console().print(table)


def _print_waves(found: dict[str, Any]) -> None:
    for number, wave in enumerate(found["waves"], 1):
        nodes = ", ".join(wave["nodes"][:8]) + (" …" if len(wave["nodes"]) > 8 else "")
        typer.echo(f"wave {number}  {wave['name']}: {nodes or 'nobody who is not in one before'}")
