"""``reuna trust``: the keys that nodes trust, and what is signed with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.passphrase import new_passphrase, passphrase
from reuna.cli.trusted import FROM, SEEN, From, Node, Root, Seen, trusted

if TYPE_CHECKING:
    from reuna.fleet.trail import Trail
    from reuna.fleet.trust import Ceremony

app = typer.Typer(help="Keys, signatures and what nodes accept from above.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--folder", help="The fleet's trust folder.")]
Secret = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        envvar="REUNA_PASSPHRASE_FILE",
        help="File with the passphrase of the offline keys; asked for without it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
TRUST = Path("trust")


@app.command()
def init(
    fleet: Annotated[str, typer.Option("--fleet", help="Name of the fleet.")],
    folder: Folder = TRUST,
    keys: Annotated[int, typer.Option("--keys", help="Offline keys of each kind.")] = 3,
    threshold: Annotated[int, typer.Option("--threshold", help="How many of them must sign.")] = 2,
    passphrase_file: Secret = None,
) -> None:
    """Make a fleet's keys, its root and its first metadata."""
    from reuna.fleet import trust

    secret = new_passphrase(passphrase_file)
    with _trail(folder).doing("trust.init", fleet, keys=f"{threshold} of {keys}"):
        trust.init(_ceremony(folder, passphrase_file), fleet, keys, threshold, secret)
    typer.echo(f"{folder / 'root.json'}: the root, for every node; {threshold} of {keys} keys change it")
    typer.echo(f"{folder / 'keys'}: move each key to its own medium now, with a copy elsewhere")
    typer.echo(f"{folder / 'online'}: stays at the cloud, which signs with it by itself")


@app.command()
def show(folder: Folder = TRUST, json: Json = False) -> None:
    """Show roles, keys, when each ends, what waits for signatures, what may come down."""
    from reuna.fleet.trust import overview

    found = overview(_ceremony(folder, None))
    if json:
        as_json(found)
    else:
        _print(found)


@app.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="The file that may come down; for code also a project's folder or its build.",
        ),
    ],
    kind: Annotated[str, typer.Option("--kind", help="release, policy-template, code, plan or roster.")],
    name: Annotated[str | None, typer.Option("--name", help="Its name; the file's without it.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="A node or site that the release is for; without it every node."),
    ] = None,
    folder: Folder = TRUST,
    passphrase_file: Secret = None,
) -> None:
    """List a file as something that nodes may accept, and sign the list."""
    from reuna.fleet import trust
    from reuna.fleet.built import is_build

    ceremony = _ceremony(folder, passphrase_file)
    with _trail(folder).doing("trust.add", name or file.name, kind=kind):
        if kind == "code" and (file.is_dir() or is_build(file)):
            from reuna.fleet.code import packed

            data, own = packed(file)
            lacking = trust.add_bytes(ceremony, data, kind, name or own)
        else:
            lacking = trust.add(ceremony, file, kind, name or file.name, where or ())
    _say(folder, lacking)


@app.command()
def withdraw(
    path: Annotated[str, typer.Argument(help="Path of a target, as `reuna trust show` lists it.")],
    folder: Folder = TRUST,
    passphrase_file: Secret = None,
) -> None:
    """Take a target off its list, so that no node accepts it any more."""
    from reuna.fleet import trust

    with _trail(folder).doing("trust.withdraw", path):
        lacking = trust.withdraw(_ceremony(folder, passphrase_file), path)
    _say(folder, lacking)


@app.command()
def rotate(
    what: Annotated[str, typer.Argument(metavar="ROLE", help="root, release, code or online.")],
    folder: Folder = TRUST,
    passphrase_file: Secret = None,
) -> None:
    """Replace keys by new ones; the old threshold of the role above signs that."""
    from reuna.fleet import trust

    secret = None if what == "online" else new_passphrase(passphrase_file)
    with _trail(folder).doing("trust.rotate", what):
        lacking = trust.rotate(_ceremony(folder, passphrase_file), what, secret)
    _say(folder, lacking)


@app.command()
def renew(
    what: Annotated[str, typer.Argument(metavar="ROLE", help="root, release or code.")],
    folder: Folder = TRUST,
    passphrase_file: Secret = None,
) -> None:
    """Sign a role's file again under the same keys, before it ends."""
    from reuna.fleet import trust

    with _trail(folder).doing("trust.renew", what):
        lacking = trust.renew(_ceremony(folder, passphrase_file), what)
    _say(folder, lacking)


@app.command()
def sign(
    file: Annotated[Path, typer.Argument(help="A staged file, also on another machine.")],
    key: Annotated[Path, typer.Option("--key", help="The key to sign with.")],
    passphrase_file: Secret = None,
) -> None:
    """Put one more signature on a staged file. It says first what the file is."""
    from reuna.fleet import trust

    for line in trust.describe(file):
        typer.echo(line)
    folder = file.parent.parent
    with _trail(folder).doing("trust.sign", file.name, key=key.name):
        trust.sign_file(file, _ceremony(folder, passphrase_file).key(key))
    typer.echo(f"signed with {key}")


@app.command()
def publish(folder: Folder = TRUST, passphrase_file: Secret = None, json: Json = False) -> None:
    """Publish what is staged, once every signature is there."""
    ceremony = _ceremony(folder, passphrase_file)
    staged = ceremony.waiting()
    with _trail(folder).doing("trust.publish", ""):
        lacking = ceremony.settle()
    if json:
        as_json({"published": not lacking, "lacking": lacking})
    elif not staged:
        typer.echo("nothing is staged, so nothing new is published")
    else:
        _say(folder, lacking)


@app.command()
def fetch(
    path: Annotated[str, typer.Argument(help="Path of a target, as releases/pump.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write; its name here.")] = None,
    kind: Annotated[str, typer.Option("--kind", help="Refuse a target of another kind.")] = "",
    source: From = FROM,
    root: Root = None,
    seen: Seen = SEEN,
    node: Node = None,
) -> None:
    """Take a target: its signatures, age, size and bytes are checked before anything is written."""
    from reuna.adapters.files import replace_file
    from reuna.fleet import targets

    data = targets.fetch(*trusted(source, root, seen, node), path, time.time(), kind)
    file = out or Path(path.rpartition("/")[2])
    replace_file(file, data, 0o644)
    typer.echo(f"{file}: {path}, {len(data)} bytes, as the fleet has signed it")


@app.command()
def templates(
    source: From = FROM, root: Root = None, seen: Seen = SEEN, node: Node = None, json: Json = False
) -> None:
    """List the policy templates that the fleet has signed."""
    import msgspec

    from reuna.fleet import targets

    state, _ = trusted(source, root, seen, node)
    found = targets.listed(state, time.time(), "policy-template")
    if json:
        as_json([msgspec.to_builtins(each) for each in found])
        return
    for each in found:
        typer.echo(f"{each.path.rpartition('/')[2]}  version {each.version}, {each.size} bytes")
    if not found:
        typer.echo("no template is listed: `reuna trust add FILE --kind policy-template`")


def _trail(folder: Path) -> Trail:
    """That of the trust folder itself: the keys are often where no cloud is."""
    from reuna.fleet.trail import Trail

    return Trail(folder)


def _ceremony(folder: Path, passphrase_file: Path | None) -> Ceremony:
    from reuna.fleet.trust import Ceremony

    return Ceremony(folder, time.time(), lambda path: passphrase(path, passphrase_file))


def _say(folder: Path, lacking: dict[str, str]) -> None:
    if not lacking:
        typer.echo(
            "published; nodes of a running fleet are told at once, others take it over at their next look"
        )
        return
    for role, what in lacking.items():
        typer.echo(f"{folder / 'staged' / role}.json waits: {what}")
    typer.echo("next: `reuna trust sign FILE --key KEY` where the keys are, then `reuna trust publish`")


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    roles = Table("role", "version", "ends", "signatures", "keys", title=f"fleet {found['fleet']}")
    for name, role in found["roles"].items():
        ends = time.strftime("%Y-%m-%d %H:%M", time.gmtime(role["expires"]))
        need = f"{role['threshold']} of {len(role['keys'])}"
        roles.add_row(name, str(role["version"]), ends, need, " ".join(key[:8] for key in role["keys"]))
    targets = Table("target", "version", "bytes", "digest")
    for each in found["targets"]:
        targets.add_row(each["path"], str(each["version"]), str(each["size"]), each["digest"][:12])
    console = Console()
    console.print(roles)
    console.print(targets)
    for key in found["cloud"]:
        console.print(f"heads of ledgers are countersigned with: cloud {key}", soft_wrap=True)
    for role, what in found["staged"].items():
        console.print(f"{role} waits: {what or 'nothing; publish it'}")
