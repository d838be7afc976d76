"""``reuna build``: a commit of a project as one file by its digest; made, signed, checked, taken apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from reuna.cli.output import as_json
from reuna.cli.passphrase import passphrase

if TYPE_CHECKING:
    from reuna.trust.envelope import PrivateKey
    from reuna.trust.provenance import Claim
    from reuna.wire.build import Build

MAKE = "make"


class _MakesWithoutAWord(TyperGroup):
    """``reuna build PROJECT`` is ``reuna build make PROJECT``; a folder called as a command is ``./show``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in {*self.commands, "--help"}:
            args = [MAKE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="One commit of a project as one file by its digest. `reuna build` alone is `reuna build make`.",
    cls=_MakesWithoutAWord,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The build; its provenance lies beside it.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Secret = Annotated[
    Path | None,
    typer.Option("--passphrase-file", envvar="REUNA_PASSPHRASE_FILE", help="File with the key's passphrase."),
]


@app.command()
def make(
    project: Annotated[
        Path, typer.Argument(help="Project folder, with reuna.toml, in a git repository.")
    ] = Path(),
    output: Annotated[
        Path | None,
        typer.Option("--output", help="File to write (default: PROJECT/dist/NAME-DIGEST.build.tar)."),
    ] = None,
    commit: Annotated[
        str | None, typer.Option("--commit", help="Another commit than the one checked out, or a tag.")
    ] = None,
    dirty: Annotated[
        bool, typer.Option("--dirty", help="Build the folder as it is; the provenance says so.")
    ] = False,
    key: Annotated[Path | None, typer.Option("--key", help="Sign the provenance with this key.")] = None,
    passphrase_file: Secret = None,
    builder: Annotated[
        str | None,
        typer.Option("--builder", envvar="REUNA_BUILDER", help="URI of who builds, as the CI system's."),
    ] = None,
    json: Json = False,
) -> None:
    """Build a commit: code, settings, plan, environment lock, bill of materials, provenance."""
    from reuna.fleet.build import HEAD
    from reuna.fleet.build import make as build
    from reuna.fleet.built import provenance_of, write
    from reuna.trust.provenance import LOCAL

    private = None if key is None else _key(key, passphrase_file)
    made = build(project, commit or HEAD, dirty=dirty, builder=builder or LOCAL)
    file = output or project / "dist" / made.claim.name
    claim, beside = write(made, file, private), provenance_of(file)
    if json:
        as_json({"file": str(file), "provenance": str(beside), **_as_dict(made.build, claim)})
        return
    _print(made.build, claim)
    typer.echo(f"{file}\n{beside}{'' if private is None else ', signed'}")


@app.command()
def show(file: File, json: Json = False) -> None:
    """Show what is in a build, after checking every digest; its signatures are not judged."""
    from reuna.fleet.built import claimed, read

    build, claim = read(file), claimed(file)
    if json:
        as_json({"file": str(file), **_as_dict(build, claim)})
    else:
        _print(build, claim)


@app.command()
def verify(
    file: File,
    signer: Annotated[
        list[str] | None,
        typer.Option("--signer", help="KEY or NAME=KEY, public, that must have signed; may be repeated."),
    ] = None,
    threshold: Annotated[int, typer.Option("--threshold", min=1, help="How many of them must have.")] = 1,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project", help="The project in a clone: build the commit again and compare the bytes."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check every digest of a build, its provenance and its signatures; name what is wrong."""
    from reuna.fleet.built import keys
    from reuna.fleet.built import verify as check

    found = check(file, keys(signer or []), threshold, project)
    if json:
        signed = {"signed_by": found.signed_by, "signed_by_others": found.others, "rebuilt": found.rebuilt}
        as_json({"file": str(file), **_as_dict(found.build, found.claim), **signed})
        return
    _print(found.build, found.claim)
    for public in found.signed_by:
        typer.echo(f"signed by   {public}")
    for public in found.others:
        typer.echo(f"signed by   {public}, which no --signer names")
    if not found.signed_by and not found.others:
        typer.echo("signed by   nobody: whoever has the file may have written its provenance")
    if found.rebuilt:
        typer.echo(f"rebuilt     the same bytes from commit {found.claim.commit[:12]}")
    typer.echo("every digest is right")


@app.command()
def sign(
    file: File,
    key: Annotated[Path, typer.Option("--key", help="The engineer's key, as `reuna policy key` makes one.")],
    passphrase_file: Secret = None,
) -> None:
    """Add a signature to a build's provenance, after checking every digest."""
    from reuna.fleet.built import sign as add

    private = _key(key, passphrase_file)
    claim = add(file, private)
    typer.echo(f"signed: {file} is the build {claim.digest} of commit {claim.commit}")
    typer.echo(
        f"to check it: reuna build verify {file} --signer {private.public_key().public_bytes_raw().hex()}"
    )


@app.command()
def push(
    file: File, fleet: Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")], json: Json = False
) -> None:
    """Let a fleet's cloud keep a build and its provenance, so that runs are begun from it by its digest."""
    from reuna.cli.run import open_at
    from reuna.fleet.kept import push as hand_over

    digest = hand_over(open_at(fleet)[1], file)
    if json:
        as_json({"file": str(file), "digest": digest})
    else:
        typer.echo(
            f"kept: sha256:{digest}\nto run it: reuna run --build sha256:{digest[:12]} --fleet {fleet}"
        )


@app.command(name="list")
def list_builds(
    fleet: Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")], json: Json = False
) -> None:
    """List the builds that a fleet's cloud keeps, the newest first."""
    import msgspec

    from reuna.cli.run import open_at
    from reuna.core.foreign import readable

    found = open_at(fleet)[1].builds()
    if json:
        as_json(msgspec.to_builtins(found))
        return
    for each in found:
        changed = ", and changes that are in no commit" if each.dirty else ""
        commit = f"commit {each.commit[:12]}{changed}" if each.commit else "no provenance"
        signed = f", signed by {len(each.signed_by)}" if each.signed_by else ""
        typer.echo(f"sha256:{each.digest}  {readable(each.project)}  {commit}{signed}")
    if not found:
        typer.echo("no build is kept; hand one over with `reuna build push FILE --fleet`", err=True)


@app.command()
def unpack(
    file: File, folder: Annotated[Path, typer.Argument(help="Folder to make; it must be empty or not there.")]
) -> None:
    """Make a project's folder again from a build: its code and its reuna.toml."""
    from reuna.core.errors import ProjectError
    from reuna.fleet.built import read
    from reuna.fleet.built import unpack as take_apart

    if folder.exists() and any(folder.iterdir()):
        raise ProjectError(f"{folder} is not empty", "Name a folder that does not exist yet.")
    build = read(file)
    take_apart(build, folder)
    typer.echo(f"{folder}: {build.manifest.project}, build {build.digest[:12]}")


def _key(file: Path, secret: Path | None) -> PrivateKey:
    from reuna.adapters.trust_keys import is_locked, read_key

    return read_key(file, passphrase(file, secret) if is_locked(file) else None)


def _as_dict(build: Build, claim: Claim | None) -> dict[str, Any]:
    import msgspec

    manifest = msgspec.to_builtins(build.manifest)
    said = None if claim is None else msgspec.to_builtins(claim)
    return {"digest": build.digest, **manifest, "packages": _packages(build), "provenance_says": said}


def _packages(build: Build) -> int:
    """How many packages its environment locks; the part is of the builder's making."""
    import json

    from reuna.core.errors import Untrusted
    from reuna.wire.build import ENVIRONMENT

    try:
        return len(json.loads(build.parts[ENVIRONMENT])["packages"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Untrusted("malformed", f"{ENVIRONMENT} in the build cannot be read") from error


def _print(build: Build, claim: Claim | None) -> None:
    from reuna.core.foreign import readable

    typer.echo(f"build       {build.digest}")
    typer.echo(f"project     {readable(build.manifest.project)}")
    typer.echo(f"code        {build.manifest.code}")
    for name, part in sorted(build.manifest.parts.items()):
        about = f", {_packages(build)} packages" if name == "environment.json" else ""
        typer.echo(f"  {name:<17} {part.sha256[:12]}… {part.size:>9} bytes{about}")
    if claim is None:
        typer.echo("provenance  none beside it")
        return
    if claim.digest != build.digest:
        typer.echo(f"provenance  of another build, {claim.digest[:12]}…")
        return
    changed = ", and changes that are in no commit" if claim.dirty else ""
    typer.echo(f"commit      {claim.commit}{changed}")
    for word, value in (("remote", claim.remote), ("folder", claim.path), ("builder", claim.builder)):
        if value:
            typer.echo(f"{word:<11} {readable(value)}")
