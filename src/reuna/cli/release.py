"""``reuna release``: a run's model as one file that machines may run, and which of them is champion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json, Runs, find, read

if TYPE_CHECKING:
    from reuna.core.records import ReleaseAsked
    from reuna.fleet.release import Catalogue
    from reuna.wire.release import Release

app = typer.Typer(help="Models that machines may run: made of runs whose gates hold, and named.")

Project = Annotated[Path, typer.Option("--project", help="Project folder, with reuna.toml.")]
Releases = Annotated[Path, typer.Option("--releases", help="Folder of the catalogue.")]
Which = Annotated[str, typer.Argument(metavar="VERSION", help="A number, or champion, challenger, previous.")]


@app.command()
def make(
    name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run, or the start of its name; the newest without.")
    ] = None,
    project: Project = Path(),
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting that the run had, NAME=VALUE.")
    ] = None,
    runs: Runs = Path("runs"),
    releases: Releases = Path("releases"),
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, help="Seconds to wait for a second person, where asked for."),
    ] = 0,
    json: Json = False,
) -> None:
    """Release a run's model as the challenger, once every gate holds at every site.

    Where the project asks for a second person (`[release] approval = true`), they agree at the fleet's cloud.
    """
    from reuna.fleet.release import make as release

    folder = find(runs, name)
    made = release(folder, read(folder), project, releases, sets, lambda asked: _approve(asked, wait))
    if json:
        as_json({**_as_dict(made.release), "file": str(made.file), "gates": made.gates})
        return
    about = made.release.manifest.about
    typer.echo(f"{made.file}: {about.project} {about.version}, challenger; {made.release.digest}")


@app.command(name="list")
def list_releases(
    project: Project = Path(), releases: Releases = Path("releases"), json: Json = False
) -> None:
    """List a project's releases, newest first, and what they are called."""
    catalogue = _catalogue(project, releases)
    names = catalogue.aliases()
    found = []
    for version in reversed(catalogue.versions()):
        called = sorted(alias for alias, number in names.items() if number == version)
        found.append({**_as_dict(catalogue.read(version)), "aliases": called})
    if json:
        as_json(found)
        return
    for each in found:
        typer.echo(f"{each['version']:4}  {each['digest'][:16]}  {each['run']}  {', '.join(each['aliases'])}")
    if not found:
        typer.echo(f"no release in {catalogue.folder}. Make one: `reuna release make`.", err=True)


@app.command()
def show(
    version: Which = "champion",
    project: Project = Path(),
    releases: Releases = Path("releases"),
    json: Json = False,
) -> None:
    """Show a release's model card; with --json where it comes from: sites, commit, code, what it replaced."""
    from reuna.fleet.release import lineage
    from reuna.wire.release import CARD

    catalogue = _catalogue(project, releases)
    found = catalogue.read(version)
    approval = catalogue.approval(found.manifest.about.version)
    if json:
        said = {"approval": approval} if approval else {}
        as_json({**_as_dict(found), "lineage": lineage(found), **said})
        return
    typer.echo(found.parts[CARD].decode(errors="replace"), nl=False)
    if approval:
        typer.echo(f"\nProposed by {approval['by']}, allowed by {approval['decided_by']} ({approval['id']}).")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A release.")], json: Json = False
) -> None:
    """Check every digest in a release; name what is wrong."""
    from reuna.fleet.release import lineage
    from reuna.fleet.release import read as read_release

    found = read_release(file)
    lineage(found)
    if json:
        as_json({**_as_dict(found), "file": str(file)})
    else:
        about = found.manifest.about
        typer.echo(f"{file}: {about.project} {about.version}, every digest holds; {found.digest}")


@app.command()
def promote(
    version: Which = "challenger",
    project: Project = Path(),
    releases: Releases = Path("releases"),
    json: Json = False,
) -> None:
    """Make a release the champion; the champion before it is previous, and can be promoted again."""
    catalogue = _catalogue(project, releases)
    aliases = catalogue.promote(version)
    if json:
        as_json(aliases)
        return
    typer.echo(", ".join(f"{alias} {number}" for alias, number in sorted(aliases.items())))


def _approve(asked: ReleaseAsked, wait_s: float) -> dict[str, Any]:
    """A second person's word, at the cloud at which somebody is signed in."""
    from reuna.cli.people import session_file
    from reuna.fleet.approval import approve_release
    from reuna.fleet.people import signed_in

    def tell(id: str) -> None:
        typer.echo(f"waits for a second person: reuna proposals approve {id}", err=True)

    return approve_release(signed_in(session_file()), asked, wait_s, tell)


def _catalogue(project: Path, releases: Path) -> Catalogue:
    from reuna.fleet.open_project import open_settings
    from reuna.fleet.release import Catalogue

    return Catalogue.of(releases, open_settings(project, []).name)


def _as_dict(found: Release) -> dict[str, Any]:
    about = found.manifest.about
    return {
        "project": about.project,
        "version": about.version,
        "digest": found.digest,
        "run": about.run,
        "model": about.model,
        "replaces": about.replaces,
    }
