"""``reuna release``: a run's model as one file that machines may run, and which of them is champion."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.release_export import PublicKey, export, key
from reuna.cli.runs import Json, Runs, find, read
from reuna.cli.signing import TRUST, Secret, Trust, Where, marks, sign_it, words
from reuna.cli.trusted import FROM, SEEN, From, Node, Root, Seen

if TYPE_CHECKING:
    from reuna.core.records import ReleaseAsked
    from reuna.fleet.release import Catalogue
    from reuna.fleet.signing import Mark
    from reuna.wire.release import Release

app = typer.Typer(help="Models that machines may run: made of runs whose gates hold, and named.")
app.command()(export)
app.command()(key)

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
    sign: Annotated[
        bool | None,
        typer.Option(
            "--sign/--no-sign",
            help="Make it a signed target of the fleet; without either, where --trust holds a release key.",
        ),
    ] = None,
    trust: Trust = TRUST,
    where: Where = None,
    passphrase_file: Secret = None,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, help="Seconds to wait for a second person, where asked for."),
    ] = 0,
    json: Json = False,
) -> None:
    """Release a run's model as the challenger, once every gate holds at every site, and sign it.

    Where the project asks for a second person (`[release] approval = true`), they agree at the fleet's cloud.
    """
    from reuna.cli.signing import keys_at, trust_folder
    from reuna.core.errors import ReunaError
    from reuna.fleet.release import Catalogue
    from reuna.fleet.release import make as release
    from reuna.fleet.signing import Mark, unsigned_after

    if sign:
        trust_folder(trust)
    folder = find(runs, name)
    made = release(folder, read(folder), project, releases, sets, lambda asked: _approve(asked, wait))
    about = made.release.manifest.about
    mark = Mark("unsigned", why=f"no key that signs releases in {trust}")
    if sign is False:
        mark = Mark("unsigned", why="--no-sign")
    elif sign or keys_at(trust):
        try:
            mark = sign_it(made.release, made.file, trust, passphrase_file, where)
        except ReunaError as error:
            raise unsigned_after(error, about.version, made.file) from error
    _show(project, Catalogue(made.file.parent), runs)
    if json:
        as_json(
            {**_as_dict(made.release), "file": str(made.file), "gates": made.gates, "signature": marks(mark)}
        )
        return
    typer.echo(f"{made.file}: {about.project} {about.version}, challenger; {made.release.digest}")
    typer.echo(words(mark, about.version, trust))


@app.command()
def sign(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A number, or champion, challenger, previous.")
    ] = "challenger",
    project: Project = Path(),
    releases: Releases = Path("releases"),
    trust: Trust = TRUST,
    where: Where = None,
    passphrase_file: Secret = None,
    json: Json = False,
) -> None:
    """Make a release a signed target of the fleet; where a key is missing it is staged for whoever has it."""
    from reuna.cli.signing import trust_folder

    trust_folder(trust)
    catalogue = _catalogue(project, releases)
    found = catalogue.read(version)
    number = found.manifest.about.version
    mark = sign_it(found, catalogue.file(number), trust, passphrase_file, where)
    if json:
        as_json({**_as_dict(found), "signature": marks(mark)})
    else:
        typer.echo(words(mark, number, trust))


@app.command(name="list")
def list_releases(
    project: Project = Path(),
    releases: Releases = Path("releases"),
    trust: Trust = TRUST,
    json: Json = False,
) -> None:
    """List a project's releases, newest first: their names, and whether the fleet has signed them."""
    catalogue = _catalogue(project, releases)
    names = catalogue.aliases()
    found = []
    for version in reversed(catalogue.versions()):
        called = sorted(alias for alias, number in names.items() if number == version)
        held = catalogue.read(version)
        found.append({**_as_dict(held), "aliases": called, "signature": marks(_mark(held, trust))})
    if json:
        as_json(found)
        return
    for each in found:
        named, state = ", ".join(each["aliases"]), each["signature"]["state"]
        typer.echo(f"{each['version']:4}  {each['digest'][:16]}  {each['run']}  {state:8}  {named}".rstrip())
    if not found:
        typer.echo(f"no release in {catalogue.folder}. Make one: `reuna release make`.", err=True)


@app.command()
def show(
    version: Which = "champion",
    project: Project = Path(),
    releases: Releases = Path("releases"),
    trust: Trust = TRUST,
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
        signature = marks(_mark(found, trust))
        as_json({**_as_dict(found), "signature": signature, "lineage": lineage(found), **said})
        return
    typer.echo(found.parts[CARD].decode(errors="replace"), nl=False)
    if approval:
        typer.echo(f"\nProposed by {approval['by']}, allowed by {approval['decided_by']} ({approval['id']}).")
    typer.echo(words(_mark(found, trust), found.manifest.about.version, trust), err=True)


@app.command()
def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A release, or what `reuna release export` wrote.")
    ],
    public_key: PublicKey = None,
    signed: Annotated[
        bool, typer.Option("--signed", help="Fail unless the fleet's keys have signed it.")
    ] = False,
    source: From = FROM,
    root: Root = None,
    seen: Seen = SEEN,
    node: Node = None,
    json: Json = False,
) -> None:
    """Check every digest in a release, and whether the fleet that is trusted here has signed it."""
    from reuna.cli.release_export import read_any
    from reuna.cli.signing import judge
    from reuna.fleet.release import lineage
    from reuna.fleet.signing import demand

    found = read_any(file, public_key)
    lineage(found)
    mark = judge(found.digest, source, root, seen, node, must=signed)
    if signed:
        demand(mark, file)
    if json:
        as_json({**_as_dict(found), "file": str(file), "signature": marks(mark)})
        return
    about = found.manifest.about
    typer.echo(f"{file}: {about.project} {about.version}, every digest holds; {found.digest}")
    typer.echo(words(mark, about.version, source))


@app.command()
def promote(
    version: Which = "challenger",
    project: Project = Path(),
    runs: Runs = Path("runs"),
    releases: Releases = Path("releases"),
    json: Json = False,
) -> None:
    """Make a release the champion; the champion before it is previous, and can be promoted again."""
    catalogue = _catalogue(project, releases)
    aliases = catalogue.promote(version)
    _show(project, catalogue, runs)
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


def _show(project: Path, catalogue: Catalogue, runs: Path) -> None:
    from reuna.cli.mlflow import show_releases
    from reuna.fleet.open_project import open_settings

    show_releases(catalogue, open_settings(project, []).mlflow, runs)


def _mark(found: Release, trust: Path) -> Mark:
    """For a look alone: a trust folder that cannot be read costs no list."""
    from reuna.core.errors import ReunaError
    from reuna.fleet.signing import Mark, mark_at

    try:
        return mark_at(trust, found.digest, time.time())
    except ReunaError as error:
        return Mark("unknown", why=error.message)


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
