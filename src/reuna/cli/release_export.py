"""``reuna release export`` and ``key``: a release in forms that others read, signed with a key of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reuna.cli.output import as_json
from reuna.cli.passphrase import new_passphrase
from reuna.cli.signing import Secret, secret

if TYPE_CHECKING:
    from reuna.wire.release import Release

PublicKey = Annotated[
    Path | None,
    typer.Option("--public-key", help="PEM of the key that must have signed an openssf folder."),
]


def export(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="A number, or champion, challenger, previous.")
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder to make; for oci also a file that ends in .tar.")],
    form: Annotated[str, typer.Option("--format", help="openssf or oci.")],
    key: Annotated[
        Path | None, typer.Option("--key", help="For openssf: private key, as `reuna release key` makes it.")
    ] = None,
    project: Annotated[Path, typer.Option("--project", help="Project folder, with reuna.toml.")] = Path(),
    releases: Annotated[Path, typer.Option("--releases", help="Folder of the catalogue.")] = Path("releases"),
    passphrase_file: Secret = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Write a release in a form that others read: a signed model folder (OpenSSF), or an OCI image layout."""
    from reuna.adapters.trust_keys import is_locked, read_export_key
    from reuna.core.errors import SettingsError
    from reuna.fleet.open_project import open_settings
    from reuna.fleet.release import Catalogue
    from reuna.fleet.release_export import FORMATS, OPENSSF
    from reuna.fleet.release_export import export as write

    if form not in FORMATS:
        raise SettingsError(f"{form!r} is no form of export", f"Use --format {' or '.join(FORMATS)}.")
    if key is not None and form != OPENSSF:
        raise SettingsError(f"--key signs {OPENSSF}; {form} is not signed", "Leave --key out.")
    catalogue = Catalogue.of(releases, open_settings(project, []).name)
    found = catalogue.read(version)
    number = found.manifest.about.version
    private = None
    if key is not None:
        private = read_export_key(key, secret(key, passphrase_file) if is_locked(key) else None)
    files = write(catalogue.file(number), found, to, form, private)
    if json:
        sizes = {name: len(data) for name, data in files.items()}
        as_json({"to": str(to), "format": form, "version": number, "digest": found.digest, "files": sizes})
        return
    typer.echo(f"{to}: {found.manifest.about.project} {number} as {form}, {len(files)} files")


def key(
    out: Annotated[Path, typer.Option("--out", help="File of the private key; the public one: .pub.")],
    lock: Annotated[
        bool, typer.Option("--lock", help="Ask for a passphrase that the key needs from then on.")
    ] = False,
    passphrase_file: Secret = None,
) -> None:
    """Make a key that signs exports: ECDSA on P-256, which OpenSSF's tool takes; nodes never look at it."""
    from reuna.adapters.files import replace_file
    from reuna.adapters.trust_keys import write_key
    from reuna.core.errors import KeyProblem
    from reuna.trust.model_signing import new_key, public_pem

    beside = out.with_name(f"{out.name}.pub")
    if beside.exists():
        raise KeyProblem(f"{beside} is there already", "Move it away first; a key is never written over.")
    words = new_passphrase(passphrase_file) if lock or passphrase_file else None
    private = new_key()
    write_key(out, private, words)
    replace_file(beside, public_pem(private.public_key()), 0o644)
    typer.echo(f"{out}: the private key, for `reuna release export --format openssf --key`")
    typer.echo(f"{beside}: the public key, for everybody")


def read_any(path: Path, public_key: Path | None) -> Release:
    """A release from its file or from an export of it, checked whole. Raises as both."""
    from reuna.adapters.files import read_at_most
    from reuna.core.errors import KeyProblem, Untrusted
    from reuna.fleet.release import read
    from reuna.fleet.release_export import is_export
    from reuna.fleet.release_export import read as read_export
    from reuna.trust.model_signing import read_public
    from reuna.wire.release import decode

    if not is_export(path):
        return read(path)
    pem = None if public_key is None else read_at_most(public_key, 16 << 10)
    if public_key is not None and pem is None:
        raise KeyProblem(f"there is no file {public_key}", "Name the PEM file of the public key.")
    found = read_export(path, None if pem is None else read_public(pem, str(public_key)))
    if found.data is None:
        raise Untrusted("kind", f"{path} is signed as it is, but it is no release: it has no manifest.json")
    return decode(found.data)
