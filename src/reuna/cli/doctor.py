"""``reuna doctor``: what is wrong with the sources and sinks of a machine, and what to do next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuna.cli.output import as_json
from reuna.cli.source import read_settings
from reuna.fleet.ending import until_done

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reuna.core.findings import Finding


def doctor(
    settings: Annotated[
        list[Path], typer.Argument(metavar="SETTINGS", help="sources.toml, sinks.toml, or both.")
    ],
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.5, max=86_400, help="How long to listen.", metavar="S")
    ] = 10.0,
    every: Annotated[
        float | None,
        typer.Option(
            "--every",
            min=0.001,
            help="Seconds between readings of a tag, where no source says it.",
            metavar="S",
        ),
    ] = None,
    send: Annotated[
        bool,
        typer.Option("--send", help="Send brokers an empty message on sinks' topics, to see if they let us."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Find what is wrong with sources: the way there, clock, tags, rate, disk; and with sinks: the way there,
    folder, token, broker, node. Ends with 1 if something is."""
    from reuna.core.findings import WRONG

    found = [each for file in settings for each in _examined(file, seconds, every, send)]
    wrong = sum(each.level == WRONG for each in found)
    if json:
        as_json({"wrong": wrong, "findings": [vars(each) for each in found]})
    else:
        _print(found, wrong)
    if wrong:
        raise typer.Exit(1)


def _examined(file: Path, seconds: float, every: float | None, send: bool) -> list[Finding]:
    """What is found of the sources or sinks of a file, whichever it has."""
    from reuna.adapters.clock import SystemClock, ThreadOffload
    from reuna.adapters.toml_file import read_toml

    if "sinks" in read_toml(file).values:
        from reuna.edge.sink_doctor import examine_sinks
        from reuna.exchange.declared_sinks import declared

        return until_done(examine_sinks(declared(str(file)), SystemClock(), ThreadOffload(), send))
    from reuna.edge.doctor import examine

    sources, store = read_settings(file)
    if sys.stderr.isatty():
        typer.echo(f"listening to {len(sources)} sources for {seconds:g} s", err=True)
    return until_done(examine(sources, store, SystemClock(), ThreadOffload(), seconds, every))


def _print(found: Sequence[Finding], wrong: int) -> None:
    from reuna.core.foreign import readable

    for each in found:
        place = f"{each.source}: " if each.source else ""
        typer.echo(f"{each.level:9} {each.check:12} {readable(place + each.what)}")
        if each.next_step:
            typer.echo(f"{'':9} {'next:':>12} {readable(each.next_step)}")
    typer.echo(f"{wrong} wrong" if wrong else "nothing is wrong")
