"""``reuna check --against``: what the nodes of a running fleet say to a project, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from reuna.cli.output import as_json
from reuna.fleet.ending import until_done

#: What nodes are asked about, and how the table calls it.
COLUMNS = {
    "code": "code",
    "data": "data",
    "contract": "contract",
    "libraries": "libraries",
    "memory": "memory",
    "model_update": "updates",
    "metric": "results",
}
#: What somebody does about it, by why.
NEXT = {
    "code-ask": "officers of the site: `reuna code review`, `reuna code approve`",
    "code-expired": "officers of the site: `reuna code approve`",
    "code-unsigned": "where the code keys are: `reuna trust add PROJECT --kind code`",
    "R114": "see which data, at the site: `reuna contract check`",
}


def ask_fleet(folder: Path, where: str, wait_s: float, own: dict[str, Any], json: bool) -> None:
    """Ask, and show the answers; status 1 unless every node is ready.

    ``own``: what this machine's check of the project found.
    """
    from reuna.cli.run import open_at
    from reuna.fleet.against import ask, signs_itself
    from reuna.fleet.open_project import open_settings

    settings = open_settings(folder, [])
    fleet, operator = open_at(where)
    found = until_done(ask(fleet, operator, folder, settings, wait_s, _watch))
    if json:
        as_json({**own, "against": found})
    else:
        _show(found)
        if signs_itself(fleet, found):
            typer.echo(
                "note: all keys of this fleet lie here, so that `reuna run --fleet` approves the code itself"
            )
    if not found["ready"]:
        raise typer.Exit(1)


def _watch(said: str) -> None:
    typer.echo(said, err=True)


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from reuna.fleet.against import cell, smallest

    table = Table("node", *COLUMNS.values(), "ready", box=None, padding=(0, 2, 0, 0), show_edge=False)
    for edge in found["edges"]:
        cells = [cell(edge, about) for about in COLUMNS]
        table.add_row(_name(edge), *cells, "yes" if edge["ready"] else "NO")
    Console().print(table)
    for edge in found["edges"]:
        for line in _lines(edge):
            typer.echo(f"{_name(edge)}: {line}")
    if tight := smallest(found["edges"]):
        need, free = tight["memory_needed_mib"], tight["memory_free_mib"]
        typer.echo(f"memory: least to spare at {tight['node']}: needs about {need:.0f} MiB of {free:.0f} MiB")
    ready = sum(edge["ready"] for edge in found["edges"])
    digest = found["code"][:12]
    typer.echo(f"{found['project']}, code {digest}…: {ready} of {len(found['edges'])} edges are ready")


def _name(edge: dict[str, Any]) -> str:
    site, node = edge["site"], edge["node"]
    return f"{node}" if site == node else f"{site}/{node}"


def _lines(edge: dict[str, Any]) -> list[str]:
    """What is not plainly yes, in sentences."""
    if edge["absent"]:
        return [edge["absent"]]
    lines = [_line(each) for each in edge["said"] if each["means"]]
    broken = (edge["contract"] or {}).get("rules", ())
    return lines + [
        f"  {each['rule']} of {each['signal']!r}: {each['failed']} of {each['passed'] + each['failed']} fail"
        for each in broken
        if each["broken"]
    ]


def _line(said: dict[str, str]) -> str:
    word = {"yes": "note", "wait": "waits", "no": "no"}[said["word"]]
    why = f" [{said['why']}]" if said["why"] and said["about"] != "libraries" else ""
    step = f"; {NEXT[said['why']]}" if said["why"] in NEXT else ""
    return f"{COLUMNS.get(said['about'], 'counts')}: {word}: {said['means']}{why}{step}"
