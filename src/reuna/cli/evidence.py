"""``reuna evidence``: all that is known of a release in one signed folder, and the check of such a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.lineage import Asked, reported
from reuna.cli.output import as_json
from reuna.cli.passphrase import passphrase
from reuna.cli.release import Project, Releases, Which
from reuna.cli.runs import Json

if TYPE_CHECKING:
    from reuna.fleet.evidence import Verified
    from reuna.trust.envelope import PrivateKey

app = typer.Typer(
    help="All that is known of a release in one signed folder, for auditors; checked without a network.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder that `reuna evidence export` wrote.")]
Secret = Annotated[
    Path | None,
    typer.Option("--passphrase-file", envvar="REUNA_PASSPHRASE_FILE", help="File with the key's passphrase."),
]


@app.command()
def export(
    version: Which,
    project: Project = Path(),
    releases: Releases = Path("releases"),
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Folder to make (default: evidence/PROJECT-VERSION)."),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option("--trust", help="The fleet's trust folder: its release keys sign, its lists go in."),
    ] = None,
    key: Annotated[
        list[Path] | None, typer.Option("--key", help="Sign with this key; may be repeated.")
    ] = None,
    cloud: Annotated[
        Path | None,
        typer.Option("--cloud", help="cloud.toml, on the cloud's machine: the ledgers' heads of now go in."),
    ] = None,
    fleet: Asked = None,
    passphrase_file: Secret = None,
    json: Json = False,
) -> None:
    """Write the evidence of a release: SBOM, provenance, gates, approvals, heads, card, lineage; signed."""
    import msgspec

    from reuna.cli.lineage import catalogue_of
    from reuna.fleet.evidence import export as write
    from reuna.fleet.evidence import signing

    catalogue = catalogue_of(project, releases)
    number = catalogue.version(version)
    folder = to or Path("evidence") / f"{catalogue.folder.name}-{number:04d}"
    if to is None:
        folder.parent.mkdir(exist_ok=True)
    keys = [*_release_keys(trust, passphrase_file), *(_key(each, passphrase_file) for each in key or [])]
    about = write(
        catalogue, number, folder, signing(keys), time.time(), trust, _heads(cloud), reported(fleet)
    )
    if json:
        as_json({"folder": str(folder), **msgspec.to_builtins(about)})
        return
    typer.echo(f"{folder}: evidence of {about.project} {about.version}, signed by {_keys(keys)}")
    typer.echo(f"to check it: reuna evidence verify {folder} --root root.json, or --signer KEY")


@app.command()
def sign(
    folder: Folder,
    key: Annotated[Path, typer.Option("--key", help="The key to sign with.")],
    passphrase_file: Secret = None,
) -> None:
    """Put one more signature on evidence, after every file was held against what is signed."""
    from reuna.fleet.evidence import sign_more

    private = _key(key, passphrase_file)
    sign_more(folder, private)
    typer.echo(f"{folder}: signed by {_keys([private])}")


@app.command()
def verify(
    folder: Folder,
    root: Annotated[
        Path | None, typer.Option("--root", help="The fleet's root.json, as your machines have it.")
    ] = None,
    signer: Annotated[
        list[str] | None,
        typer.Option("--signer", help="KEY or NAME=KEY, public, that must have signed; may be repeated."),
    ] = None,
    threshold: Annotated[int, typer.Option("--threshold", min=1, help="How many of them must have.")] = 1,
    json: Json = False,
) -> None:
    """Check every file of an evidence folder and its signatures, without a network; name what is wrong."""
    from reuna.adapters.files import read_at_most
    from reuna.core.errors import NotUsable
    from reuna.fleet.built import keys
    from reuna.fleet.evidence import verify as check
    from reuna.trust.roles import LIMITS

    pin = None if root is None else read_at_most(root, LIMITS["root"])
    if root is not None and pin is None:
        raise NotUsable(f"there is no file {root}")
    found = check(folder, pin, keys(signer or []), threshold)
    if json:
        as_json(_as_dict(found))
        return
    about = found.judged.about
    typer.echo(f"release     {about.project} {about.version}, run {about.run}, {about.release}")
    typer.echo(f"written     {about.made}, as its exporter says")
    for public in found.judged.signed_by:
        typer.echo(f"signed by   {public}")
    for public in found.judged.others:
        typer.echo(f"signed by   {public}, which nobody named")
    others = f", {found.others} by a key that no list here names" if found.others else ""
    typer.echo(f"heads       {found.heads} countersigned by the fleet's cloud{others}")
    if found.vouched is not None:
        typer.echo(f"code role   {'has' if found.vouched else 'has NOT'} signed for the code")
    typer.echo(f"{len(found.judged.files)} files, every one as it was signed")


@app.command()
def fingerprint(
    settings: Annotated[Path, typer.Argument(metavar="EDGE.toml", help="Settings file of an edge.")],
    json: Json = False,
) -> None:
    """Show the fingerprint of an edge's data as they are now: that of a lineage when they are the same."""
    import msgspec

    from reuna.adapters.fingerprint import DATA_KEY, window_of
    from reuna.core.errors import NotUsable
    from reuna.edge.settings import EDGE
    from reuna.fleet.place import read_settings

    values = read_settings(EDGE, "REUNA_EDGE_", settings, None)
    key = Path(values["folder"]) / DATA_KEY
    if not key.is_file():
        raise NotUsable(f"there is no {key}", "It is made when the node trains for the first time.")
    found = window_of(Path(values["data"]), key)
    if found is None:
        raise NotUsable(f"the data in {values['data']} cannot be read", "Run it as the node's own user.")
    if json:
        as_json(msgspec.to_builtins(found))
        return
    typer.echo(f"{found.fingerprint}  {found.files} files of {found.bytes} bytes in {values['data']}")


def _as_dict(found: Verified) -> dict[str, Any]:
    import msgspec

    return {
        "folder": str(found.folder),
        **msgspec.to_builtins(found.judged.about),
        "files": found.judged.files,
        "signed_by": found.judged.signed_by,
        "signed_by_others": found.judged.others,
        "root": found.root or None,
        "heads": found.heads,
        "heads_by_others": found.others,
        "code_vouched": found.vouched,
    }


def _release_keys(trust: Path | None, secret: Path | None) -> list[PrivateKey]:
    """As many as the root asks for, or those that are at hand; the others sign later."""
    if trust is None:
        return []
    from reuna.fleet.trust import Ceremony
    from reuna.trust import publish

    ceremony = Ceremony(trust, time.time(), lambda path: passphrase(path, secret))
    ring = publish.rings("root", ceremony.repository.newest("root"))["targets"]
    return list(ceremony.keys_at_hand("release", ring))


def _key(file: Path, secret: Path | None) -> PrivateKey:
    from reuna.adapters.trust_keys import is_locked, read_key

    return read_key(file, passphrase(file, secret) if is_locked(file) else None)


def _keys(keys: list[PrivateKey]) -> str:
    return ", ".join(key.public_key().public_bytes_raw().hex() for key in keys)


def _heads(cloud: Path | None) -> list[dict[str, Any]]:
    if cloud is None:
        return []
    from reuna.cloud.files import HEADS
    from reuna.cloud.settings import CLOUD
    from reuna.fleet.allowed import newest_heads
    from reuna.fleet.place import read_settings

    settings = read_settings(CLOUD, "REUNA_CLOUD_", cloud, None)
    return newest_heads(Path(settings["folder"]) / HEADS)
