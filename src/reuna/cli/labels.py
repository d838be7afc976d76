"""``reuna labels``: what came of labels that were known later, on an edge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json

if TYPE_CHECKING:
    from reuna.core.labels import Errors


def labels(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The edge's state folder, or its `labels`.")],
    json: Json = False,
) -> None:
    """Show what labels that came later say of each release; 1 while the errors of the newest have risen."""
    from reuna.adapters.label_store import NAME, StoredLabels

    store = StoredLabels(folder if (folder / NAME).is_file() else folder / "labels")
    try:
        taken, errors = store.taken(), store.errors()
    finally:
        store.close()
    projects = {
        project: {release: as_dict(each) for release, each in found.items()}
        for project, found in errors.items()
    }
    sources = {each.source: {"taken": each.taken, "of_no_answer": each.stray} for each in taken}
    if json:
        as_json({"sources": sources, "projects": projects})
    else:
        _print(sources, projects)
    newest = [list(found.values())[-1] for found in projects.values()]
    raise typer.Exit(1 if any(each["alarm"] for each in newest) else 0)


def as_dict(errors: Errors) -> dict[str, Any]:
    """``error``: of the newest labels, the share that is wrong, or the mean distance."""
    return {
        "labels": errors.labels,
        "wrong": errors.wrong,
        "error": errors.mean,
        "level": errors.level,
        "alarm": errors.alarm,
    }


def _print(sources: dict[str, Any], projects: dict[str, Any]) -> None:
    for name, each in sources.items():
        typer.echo(f"{name}: {each['taken']} labels, {each['of_no_answer']} of them of no answer")
    for project, releases in projects.items():
        for release, each in releases.items():
            alarm = "ALARM, errors have risen" if each["alarm"] else f"{each['level']:.0%} of an alarm"
            wrong = f", {each['wrong']} of another class" if each["wrong"] else ""
            newest = f"error of the newest {each['error']:.3g}"
            typer.echo(f"{project} {release[:12]}: {each['labels']} labels{wrong}; {newest}; {alarm}")
