"""``reuna code``: which pushed code may run at a site."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reuna.cli.output import as_json
from reuna.cli.passphrase import passphrase

app = typer.Typer(help="Which pushed code may run at a site: its officers decide.", no_args_is_help=True)


@app.command()
def review(
    state: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of an edge, or its state folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the code that waits, and how it differs from what ran before."""
    import msgspec

    from reuna.core.foreign import readable
    from reuna.fleet.review import review as look

    found = look(state)
    if json:
        as_json(msgspec.to_builtins(found))
        return
    before = f"ran before: {found.before}" if found.before else "no code ran here before"
    typer.echo(f"waits: {found.digest}\n{before}\nfiles: {readable(', '.join(found.files))}\n")
    typer.echo("\n".join(map(readable, found.changes)) or "no difference")
    typer.echo(f"\nTo let it run: reuna code approve {found.digest} --policy POLICY --key KEY")


@app.command()
def approve(
    digest: Annotated[str, typer.Argument(help="Digest of the bundle, as `reuna code review` says it.")],
    key: Annotated[Path, typer.Option("--key", help="The officer's key file.")],
    policy: Annotated[Path, typer.Option("--policy", help="The site's policy.")] = Path("policy.toml"),
    secret: Annotated[
        Path | None,
        typer.Option("--passphrase-file", envvar="REUNA_PASSPHRASE_FILE", help="File with its passphrase."),
    ] = None,
) -> None:
    """Let a bundle run: it is added to the policy, with a higher serial and this officer's signature."""
    from reuna.adapters.trust_keys import is_locked, read_key
    from reuna.fleet import officer

    private = read_key(key, passphrase(key, secret) if is_locked(key) else None)
    found = officer.approve_as_signer(policy, private, digest)
    by, needed = found["signed_by"], found["threshold"]
    typer.echo(
        f"{policy} allows {digest[:12]}…; signed by {len(by)} of {needed}: {', '.join(by) or 'nobody'}"
    )
    if len(by) < needed:
        typer.echo(f"next:  other officers read and sign it: reuna policy sign {policy} --key KEY")
    else:
        typer.echo(f"next:  put it, with {policy.stem}.sig, on each node of the site; work goes on by itself")
