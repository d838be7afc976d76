"""``reuna study``: strategies compared on the project's own data, in simulation; no server, no socket."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.fleet.ending import until_done

if TYPE_CHECKING:
    from reuna.fleet.study import Row


class On(StrEnum):
    """Where it is computed."""

    HERE = "here"
    RAY = "ray"


def study(
    project: Annotated[Path, typer.Argument(help="Project folder, with reuna.toml.")] = Path(),
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with one sub-folder per node (default: PROJECT/data)."),
    ] = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option("--strategy", metavar="NAME", help="Instead of strategy.name; may be given again."),
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", min=0, help="Instead of run.seed; may be given again.")
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Instead of strategy.rounds.")] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that train, at most one for each fog.")
    ] = 1,
    on: Annotated[On, typer.Option("--on", help="On this machine, or on a Ray cluster.")] = On.HERE,
    sets: Annotated[list[str] | None, typer.Option("--set", help="One setting, NAME=VALUE.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Compare strategies with training alone and in one place, in simulation."""
    from reuna.fleet import study as studies

    flags = [*(sets or []), *([] if rounds is None else [f"strategy.rounds={rounds}"])]
    ask = studies.prepared(
        studies.Ask(
            project, data or project / "data", flags, strategies or [], seeds or [], processes, on.value
        )
    )

    def watch(line: dict[str, Any]) -> None:
        if line["what"] == "way" and not json:
            typer.echo(f"{line['way']}, seed {line['seed']}", err=True)

    rows = until_done(studies.study(ask, watch))
    if json:
        as_json([as_dict(row) for row in rows])
    else:
        _print(rows)


def as_dict(row: Row) -> dict[str, Any]:
    """A row for scripts."""
    return {
        "way": row.way,
        "seed": row.seed,
        "worst": row.worst,
        "mean": row.mean,
        "scores": dict(row.scores),
        "rounds": row.rounds,
        "update_bytes": row.sent,
        "seconds": round(row.seconds, 3),
        "model": row.model,
    }


def _print(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("way", "seed", "worst site", "mean", "updates sent", "seconds", "model"):
        table.add_column(name, justify="left" if name in ("way", "model") else "right")
    for row in rows:
        sent = f"{row.sent / 1000:.1f} kB" if row.sent else "–"
        figures = (f"{row.worst:.4f}", f"{row.mean:.4f}", sent, f"{row.seconds:.1f}")
        table.add_row(row.way, str(row.seed), *figures, row.model[:12] or "–")
    Console().print(table)
