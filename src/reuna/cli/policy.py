"""``reuna policy``: what a site lets leave, to whom, under which conditions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.passphrase import new_passphrase, passphrase
from reuna.cli.trusted import FROM, SEEN, From, Node, Root, Seen, trusted

if TYPE_CHECKING:
    from reuna.fleet.targets import TargetFolder
    from reuna.trust.metadata import TrustState

app = typer.Typer(help="What may leave a site: its policy, signed by its officers.", no_args_is_help=True)

POLICY = Path("policy.toml")
File = Annotated[Path, typer.Argument(metavar="FILE", help="The policy; its signatures lie beside it.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Secret = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="REUNA_PASSPHRASE_FILE",
        help="File with the key's passphrase; asked for without it.",
    ),
]


@app.command()
def init(
    site: Annotated[str, typer.Option("--site", help="Name of the site.")],
    fleet: Annotated[str, typer.Option("--fleet", help="Name of the fleet.")] = "fleet",
    fog: Annotated[str, typer.Option("--fog", help="Name of the site's fog; the site's without it.")] = "",
    over: Annotated[
        str, typer.Option("--over", help="The fog that the site's fog stands under; the cloud without it.")
    ] = "",
    signer: Annotated[
        list[str] | None,
        typer.Option(
            "--signer", help="NAME=KEY of an officer, as `reuna policy key` says it; may be repeated."
        ),
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="research, company or companies.")] = "",
    template: Annotated[
        str,
        typer.Option("--template", help="A template that the fleet signed: `reuna trust templates`."),
    ] = "",
    source: From = FROM,
    root: Root = None,
    seen: Seen = SEEN,
    node: Node = None,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it holds.")] = 180,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = POLICY,
) -> None:
    """Write a first policy, to be read, changed and signed."""
    from datetime import UTC, datetime

    from reuna.adapters.files import replace_file
    from reuna.core.errors import SettingsError
    from reuna.fleet.policy import starter

    if bool(preset) == bool(template):
        raise SettingsError("a policy begins with a preset or a template", "Name one: --preset company.")
    if out.exists():
        raise SettingsError(f"{out} is there already", "Name another file with --out.")
    pairs = [each.partition("=") for each in signer or []]
    signers = {name: key for name, _, key in pairs}
    if len(signers) != len(pairs):
        raise SettingsError("a signer is named twice", "Give each officer a name of their own.")
    today = datetime.fromtimestamp(time.time(), UTC).date()
    given = _template(template, trusted(source, root, seen, node)) if template else ""
    asked: dict[str, Any] = {"fleet": fleet, "fog": fog, "over": over, "signers": signers, "days": days}
    text = starter(preset, site, today, **asked, template=given)
    out.parent.mkdir(parents=True, exist_ok=True)
    replace_file(out, text.encode(), 0o644)
    typer.echo(f"{out.absolute()}: read it, or have it read to you with `reuna policy explain {out}`")
    if not signers:
        typer.echo("it names no signer: make keys with `reuna policy key` and add them under [signers.keys]")


def _template(name: str, known: tuple[TrustState, TargetFolder]) -> str:
    """The text of a signed template. Raises `Untrusted`."""
    from reuna.core.errors import Untrusted
    from reuna.fleet.targets import fetch
    from reuna.trust.roles import KINDS

    path = f"{KINDS['policy-template'].folder}/{name}"
    try:
        return fetch(*known, path, time.time(), "policy-template").decode()
    except UnicodeDecodeError as error:
        raise Untrusted("malformed", f"{path} is no text") from error


@app.command()
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will sign with it.")],
    out: Annotated[Path, typer.Option("--out", help="File of the private key; only its owner may read it.")],
    lock: Annotated[
        bool, typer.Option("--lock", help="Ask for a passphrase that the key needs from then on.")
    ] = False,
    passphrase_file: Secret = None,
) -> None:
    """Make an officer's key and print its public part for the policy."""
    from reuna.adapters.trust_keys import new_key, write_key
    from reuna.core.errors import KeyProblem
    from reuna.trust.policy_keys import is_word

    if not is_word(name):
        raise KeyProblem(f"{name!r} is no name of a signer", "Use letters, digits and -, at most 64.")
    secret = new_passphrase(passphrase_file) if lock or passphrase_file else None
    private = new_key()
    new_folder = not out.parent.exists()
    write_key(out, private, secret)
    if new_folder:
        typer.echo(f"the private key is in {out.absolute()}, in a folder made for it", err=True)
    typer.echo(f"{name}={private.public_key().public_bytes_raw().hex()}")


@app.command()
def sign(
    file: File,
    key: Annotated[Path, typer.Option("--key", help="The officer's key.")],
    passphrase_file: Secret = None,
) -> None:
    """Add an officer's signature, after saying what it is about."""
    from reuna.adapters.policy_store import read_policy
    from reuna.adapters.trust_keys import is_locked, read_key
    from reuna.fleet.policy import sign_file
    from reuna.trust.explain import explain

    for line in explain(read_policy(file)):
        typer.echo(line)
    secret = passphrase(key, passphrase_file) if is_locked(key) else None
    done = sign_file(file, read_key(key, secret))
    typer.echo(
        f"\nsigned by {len(done.signed_by)} of {done.threshold}: {', '.join(done.signed_by) or 'nobody'}"
    )
    if done.dropped:
        typer.echo(f"{done.dropped} signatures were of an older text and are gone")
    if not done.named:
        typer.echo("this key is no signer of this policy; it counts only if the policy before named it")


@app.command()
def show(file: File = POLICY, json: Json = False) -> None:
    """Show a policy's days, serial, signatures and flows."""
    from reuna.fleet.policy import overview

    found = overview(file, time.time())
    if json:
        as_json(found)
    else:
        _print(found)


@app.command()
def explain(file: File = POLICY, json: Json = False) -> None:
    """Say in plain sentences what may leave, to whom, and what never leaves."""
    from reuna.adapters.policy_store import read_policy
    from reuna.trust.explain import explain as sentences

    lines = sentences(read_policy(file))
    if json:
        as_json(lines)
    else:
        typer.echo("\n".join(lines))


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The policy before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The policy after.")],
    json: Json = False,
) -> None:
    """Say what a new policy allows that the old one did not, and the other way round."""
    from reuna.adapters.policy_store import read_policy
    from reuna.trust.compare import compare

    found = compare(read_policy(old), read_policy(new))
    parts = {"now allows": found.now, "no longer allows": found.no_longer, "also changed": found.other}
    if json:
        as_json({title.replace(" ", "_"): list(lines) for title, lines in parts.items()})
        return
    for title, lines in parts.items():
        for line in lines:
            typer.echo(f"{title}: {line}")
    if not any(parts.values()):
        typer.echo("no difference in what is allowed")


@app.command()
def simulate(
    file: File,
    ledger: Annotated[Path, typer.Option("--ledger", help="A ledger's folder, or its export.")],
    json: Json = False,
) -> None:
    """Try a policy on what a node's ledger says was asked before: what would it have refused?"""
    from reuna.adapters.policy_store import read_policy
    from reuna.fleet.policy import simulate as rehearse

    found = rehearse(read_policy(file), ledger)
    if json:
        as_json(found)
        return
    for each in found["stopped"]:
        at = (
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each["now"])) if 0 <= each["now"] < 2.5e11 else "?"
        )
        word = "later" if each["later"] else "refused"
        place = f"record {each['record']}" if "record" in each else f"line {each['line']}"
        typer.echo(f"{place} {at} {each['kind']} {each['bytes']} B to {each['to']}")
        typer.echo(f"  {word}: {each['why']} ({each['rule'] or 'no rule'})")
    typer.echo(f"{found['allowed']} allowed, {found['refused']} refused, {found['later']} only later")


@app.command()
def pin(
    file: File = POLICY,
    folder: Annotated[Path, typer.Option("--folder", help="The node's folder for its policy.")] = Path(
        "policy"
    ),
) -> None:
    """Tell a new node that the signers of this policy sign its policies. Compare their keys first."""
    from reuna.adapters.policy_store import PolicyStore, read_policy

    policy = read_policy(file)
    PolicyStore(file, folder).pin(policy.site, policy.signers)
    typer.echo(f"{policy.site}: {policy.signers.threshold} of these must sign")
    for name, public in sorted(policy.signers.keys.items()):
        typer.echo(f"  {public}  {name}")


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"policy {found['serial']} of {found['site']}, {found['from']} to the end of {found['until']} UTC"
    )
    if found["problem"]:
        console.print(f"not in its days: {found['problem']}")
    if not found["signers"]:
        console.print("a draft: it names no signer, so no node accepts it")
    else:
        enough = "enough" if found["signed"] else "not enough"
        by = ", ".join(found["signed_by"]) or "nobody"
        console.print(
            f"signed by {by}: {enough}, {found['threshold']} of {', '.join(found['signers'])} must sign"
        )
    if found["of_another_text"]:
        console.print(f"{found['of_another_text']} signatures are of another text: sign again")
    table = Table("rule", "to", "conditions")
    for row in found["flows"]:
        table.add_row(
            row["rule"].replace("[", r"\["), ", ".join(row["to"]) or "nobody", "; ".join(row["conditions"])
        )
    console.print(table)
    console.print(f"anything else is refused; kill switch: {found['kill_switch'] or 'none'}")
