"""``reuna contract``: what a project's data must be, held against data, proposed from data, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from reuna.cli.output import as_json

app = typer.Typer(help="What the nodes' data must be: check, propose, compare.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Project = Annotated[Path, typer.Option("--project", help="Project folder, with reuna.toml.")]
Data = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="A node's folder, or one with nodes (default: PROJECT/data)."),
]


@app.command()
def check(data: Data = None, project: Project = Path(), json: Json = False) -> None:
    """Count how each node's data keep the contract, rule by rule; status 1 when one breaks it."""
    from reuna.fleet.contract import check as checked

    report = checked(project, data or project / "data")
    if json:
        as_json(report)
    else:
        _print_check(report)
    if not report["kept"]:
        raise typer.Exit(1)


def _print_check(report: dict[str, Any]) -> None:
    from reuna.core.foreign import readable

    for name, node in report["nodes"].items():
        failed = sum(rule["failed"] for rule in node["rules"])
        counts = f"{len(node['rules'])} rules, {failed} failures"
        typer.echo(f"{name}: {'keeps' if node['kept'] else 'BREAKS'} version {report['version']} ({counts})")
        for line in node["broken"]:
            for part in line.splitlines():
                typer.echo(f"  {readable(part)}")
        for rule in node["rules"] if node["kept"] else ():
            if rule["failed"]:
                whole = rule["passed"] + rule["failed"]
                typer.echo(
                    readable(f"  {rule['rule']} of {rule['signal']!r}: {rule['failed']} of {whole} fail")
                )
    if report["as_text"]:
        typer.echo(f"units compared as text: {readable(', '.join(report['as_text']))}", err=True)


@app.command()
def infer(
    data: Data = None,
    project: Project = Path(),
    write: Annotated[
        bool, typer.Option("--write", help="Put it into the project's reuna.toml, in place of what is there.")
    ] = False,
) -> None:
    """Propose a contract that the data here keep: sections to read, correct and paste."""
    from reuna.fleet import contract

    found = data or project / "data"
    if not write:
        typer.echo(contract.infer(found), nl=False)
        return
    _, changed = contract.write(project, found)
    for change in changed:
        typer.echo(change)
    typer.echo(f"{project / contract.FILE} is written: read it, for data do not say what is plausible")


@app.command()
def diff(
    a: Annotated[
        str, typer.Argument(help="The old one: a reuna.toml, a project's folder, or a git revision.")
    ],
    b: Annotated[str, typer.Argument(help="The new one.")],
    project: Project = Path(),
    json: Json = False,
) -> None:
    """What changed from contract A to contract B; status 1 when data that kept A may break B."""
    from reuna.core.foreign import readable
    from reuna.fleet.contract import compare

    found = compare(project, a, b).as_dict()
    if json:
        as_json(found)
    else:
        for change in found["changes"]:
            kind = "breaking" if change["breaking"] else "compatible"
            signal = f"{change['signal']}: " if change["signal"] else ""
            typer.echo(readable(f"{kind}: {signal}{change['what']}"))
        typer.echo("breaking" if found["breaking"] else "compatible" if found["changes"] else "no change")
        if found["advice"]:
            typer.echo(f"next:  {found['advice']}", err=True)
    if found["breaking"]:
        raise typer.Exit(1)
