"""``reuna release where``: which node holds which signed release, and which of them it runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json

if TYPE_CHECKING:
    from reuna.fleet.holdings import Held


def where(
    wanted: Annotated[
        str | None,
        typer.Argument(metavar="PROJECT[@VERSION]", help="With --wait: until every edge holds this one."),
    ] = None,
    *,
    fleet: Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")],
    wait: Annotated[
        float,
        typer.Option(
            "--wait", min=0, help="Seconds to wait until every edge holds the newest that is for it."
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Show which edge holds and runs which release; with --wait end with 0 when all hold the newest."""
    from reuna.cli.run import open_at
    from reuna.fleet.holdings import as_dict, look, sites_of, wanted_of
    from reuna.fleet.holdings import wait as wait_for

    opened, operator = open_at(fleet)
    known = sites_of(opened)
    of = wanted_of(wanted) if wanted else None
    found = wait_for(operator, known, wait, wanted=of) if wait else look(operator.releases(), known)
    if json:
        as_json(as_dict(found))
    else:
        _print(found)


def _print(found: Held) -> None:
    from rich.console import Console
    from rich.table import Table

    from reuna.fleet.holdings import runs, state_of

    if not found.releases:
        typer.echo(
            "no release is listed that nodes may take: `reuna trust add FILE --kind release`", err=True
        )
    table = Table("edge", "site", "project", "version", "digest", "state", "since")
    for edge, site in sorted(found.sites.items()):
        said = found.said.get(edge)
        for each in said.held if said else ():
            does = runs(said, each.project, each.digest, each.version) if said else ""
            state = f"refused: {each.refused}" if each.refused else does or "verified"
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each.at))
            table.add_row(edge, site, each.project, str(each.version), each.digest[:12], state, since)
        told = {each.digest for each in (said.held if said else ())}
        for name, lack in found.lacking:
            if name == edge and lack.digest not in told:
                state = state_of(found, edge, lack)
                table.add_row(edge, site, lack.project, str(lack.version), lack.digest[:12], state, "")
    Console().print(table)
