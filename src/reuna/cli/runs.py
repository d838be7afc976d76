"""``reuna runs``, ``show``, ``diff`` and ``replay``: finished runs, read from their ``result.json``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.core.errors import NotReproduced, RunNotFound, StorageError

if TYPE_CHECKING:
    from reuna.fleet.data import DataNode

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
BEGIN = "Begin one with `reuna demo` or `reuna run`."
Runs = Annotated[Path, typer.Option("--runs", help="Folder where results are.")]


def show(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, or the start of its name.")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Show a finished run: the newest, or the one named."""
    folder = find(runs, name)
    result = read(folder)
    if json:
        as_json(result)
        return
    from reuna.cli.view import print_result

    print_result(result, folder)


def list_runs(
    runs: Runs = Path("runs"),
    fleet: Annotated[
        str, typer.Option("--fleet", help="As of `reuna run`: what its cloud knows of, also what goes on.")
    ] = "",
    json: Json = False,
) -> None:
    """List finished runs of this folder, or all runs of a fleet; newest first."""
    if fleet:
        _list_at(fleet, json)
        return
    lines = [_line(result) for _, result in readable(finished(runs))]
    if json:
        as_json(lines)
        return
    if not lines:
        typer.echo(f"no finished run in {runs}. {BEGIN}", err=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("run", "project", "rounds", "seconds", "worst site", "value")
    for line in lines:
        table.add_row(*(str(line[k]) for k in ("run", "project", "rounds", "wall_s", "worst_site", "value")))
    Console().print(table)


def _list_at(fleet: str, json: bool) -> None:
    from reuna.cli.run import open_at

    found = open_at(fleet)[1].runs()
    if json:
        as_json(found)
        return
    for each in found:
        began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(each["began"]))
        about = f"{each['project']}, {each['rounds']} rounds, {each['edges']} edges, began {began} UTC"
        why = f" by {each['why']}" if "why" in each else ""
        typer.echo(f"{each['run']}  {each['state']:9}  {about}{why}{_gates(each)}")
    if not found:
        typer.echo("no run yet; start one with `reuna run --fleet`", err=True)


def _gates(run: Mapping[str, Any]) -> str:
    """What the cloud says of the gates of a run that is done."""
    from reuna.fleet.gates import sentence

    told = run.get("gates")
    if not told:
        return ""
    said = told["why"] if "why" in told else sentence(told)
    left = (
        f"; {', '.join(told['left'])} left to the release" if told.get("left") and "why" not in told else ""
    )
    return f"\n    gates: {told['decision']}: {said}{left}"


def diff(
    a: Annotated[str, typer.Argument(help="A run, or the start of its name.")],
    b: Annotated[str, typer.Argument(help="Another run.")],
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """What changed from run A to run B: per site, bytes, time, model."""
    changes = difference(read(find(runs, a)), read(find(runs, b)))
    if json:
        as_json(changes)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("what", "A", "B", "B − A")
    for row in changes["values"]:
        change = "" if row["change"] is None else f"{row['change']:+.4g}"
        table.add_row(row["what"], _text(row["a"]), _text(row["b"]), change)
    Console().print(table)
    Console().print("same model" if changes["same_model"] else "different models")


def replay(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, or the start of its name; else the newest.")
    ] = None,
    project: Annotated[Path, typer.Option("--project", help="Folder with the code of the run.")] = Path(),
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with the nodes' data (default: PROJECT/data).")
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Carry a finished run out again on this machine, with who took part in each round: same bits or not."""
    from reuna.fleet.ending import until_done
    from reuna.fleet.replay import as_dict
    from reuna.fleet.replay import replay as carry_out

    result = read(find(runs, name))
    with _lies(result, project, data) as (code, nodes):
        found = until_done(carry_out(code, nodes, result))
    if json:
        as_json(as_dict(found))
    elif found.same:
        typer.echo(f"{found.run}: same bits, model {found.model_digest[:16]}")
    if not found.same:
        raise NotReproduced(
            f"the replay of {found.run} gave another model, {found.replayed_digest[:16]} instead of "
            f"{found.model_digest[:16]}; round {found.differs} is the first that differs"
        )


@contextmanager
def _lies(result: dict[str, Any], project: Path, data: Path | None) -> Iterator[tuple[Path, list[DataNode]]]:
    """Where code and nodes of a run lie; the demo's are made again."""
    if "split" in result:
        from reuna.demo.job import demo_job

        with demo_job(result["split"], None, Path()) as job:
            yield job.project, job.nodes
    else:
        from reuna.fleet.data import find_nodes

        yield project, find_nodes(data or project / "data")


def finished(runs: Path) -> list[Path]:
    """Folders of finished runs, newest first."""
    if not runs.is_dir():
        return []
    return sorted((path.parent for path in runs.glob("*/result.json")), reverse=True)


def find(runs: Path, name: str | None) -> Path:
    """The folder of a run; without a name that of the newest that can be read. Raises `RunNotFound`."""
    if name is None:
        for folder, _ in readable(finished(runs)):
            return folder
        raise RunNotFound(f"no finished run in {runs.absolute()}", BEGIN)
    found = [folder for folder in finished(runs) if folder.name.startswith(name)]
    if not found:
        raise RunNotFound(f"no finished run {name!r} in {runs.absolute()}")
    exact = [folder for folder in found if folder.name == name]
    if not exact and len(found) > 1:
        raise RunNotFound(f"{name!r} could be {', '.join(folder.name for folder in found[:5])}")
    return (exact or found)[0]


def read(folder: Path) -> dict[str, Any]:
    """A run's result, as its schema has it. Raises `Corrupted`, `NotUsable`."""
    from reuna.fleet.result import read_result

    return read_result(folder)


def readable(folders: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Runs with their results; one that cannot be read is said and left out."""
    for folder in folders:
        try:
            yield folder, read(folder)
        except StorageError as error:
            typer.echo(f"left out: {error}", err=True)


def _line(result: dict[str, Any]) -> dict[str, Any]:
    worst = result.get("worst_site") or {}
    line = {key: result[key] for key in ("run", "project", "rounds", "wall_s", "model_digest")}
    return {**line, "worst_site": worst.get("site", ""), "value": worst.get("value", "")}


def difference(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Every number of both results side by side."""
    left, right = _numbers(a), _numbers(b)
    values = []
    for what in dict.fromkeys([*left, *right]):
        x, y = left.get(what), right.get(what)
        if x != y:
            change = None if x is None or y is None else y - x
            values.append({"what": what, "a": x, "b": y, "change": change})
    same = a["model_digest"] == b["model_digest"]
    return {"a": a["run"], "b": b["run"], "same_model": same, "values": values}


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    numbers = {"rounds": result["rounds"], "wall_s": result["wall_s"]}
    for row in result["sites"]:
        for method in ("local", "federated", "centralised"):
            for name, value in row.get(method, {}).items():
                numbers[f"{row['site']} {method} {name}"] = value
    for kind, count in result["bytes_by_kind"].items():
        numbers[f"bytes {kind}"] = count
    return numbers


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
