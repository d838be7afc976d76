"""``reuna sandbox``: how well this machine confines a project's code."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reuna.cli.output import as_json

Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def sandbox(json: Json = False) -> None:
    """Show the sandbox level that project code reaches on this machine, what is missing and how to get it."""
    from reuna.adapters.sandbox import HIGHEST, REMEDIES, probe

    level = probe()
    missing = [
        {"layer": name, "reason": reason, "remedy": REMEDIES[name]} for name, reason in level.missing.items()
    ]
    found: dict[str, Any] = {
        "level": level.number,
        "highest": HIGHEST,
        "layers": list(level.layers),
        "missing": missing,
        "agent": {"own_network_namespace": not level.agent, "reason": level.agent},
    }
    if json:
        as_json(found)
        return
    typer.echo(f"level {level.number} of {HIGHEST}")
    typer.echo(f"agent: {f'keeps the network: {level.agent}' if level.agent else 'own network namespace'}")
    for layer in level.layers:
        typer.echo(f"  has      {layer}")
    for line in missing:
        typer.echo(f"  missing  {line['layer']}: {line['reason']}")
        typer.echo(f"           {line['remedy']}")
