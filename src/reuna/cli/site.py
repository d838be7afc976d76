"""``reuna site``: take machines in. ``reuna node``: who is there. ``reuna join``: become one."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.core.errors import SettingsError

if TYPE_CHECKING:
    from reuna.fleet.admit import Desk
    from reuna.fleet.join import Joined
    from reuna.trust.enrolment import Token

site = typer.Typer(help="Take sites and machines in.", no_args_is_help=True)
node = typer.Typer(help="See, refuse and rename nodes.", no_args_is_help=True)

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="cloud.toml or fog.toml (default: the one in this folder)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Expires = Annotated[
    str, typer.Option("--expires", help="How long the token is good: 30m, 24h, 7d; at most 90d.")
]
SILENT = "heard never: not started yet, or no signed policy is in force there; its own log says which"
LONGEST_DAYS = 90  #: a token that lies about so long is more likely found than used
UNITS = {"m": 60.0, "h": 3_600.0, "d": 86_400.0}


@site.command()
def cloud(
    fleet: Annotated[str, typer.Argument(help="Name of the new fleet.")],
    folder: Annotated[Path, typer.Option("--folder", help="Folder to make.")] = Path("cloud"),
    host: Annotated[
        str, typer.Option("--host", help="Name or address under which fogs reach this machine.")
    ] = "127.0.0.1",
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust",
            help="What a `reuna trust init` elsewhere made for the cloud (default: keys for a try).",
        ),
    ] = None,
) -> None:
    """Make the cloud of a new fleet: its authority, certificates and settings."""
    from reuna.fleet.admit import make_cloud

    file = make_cloud(folder, fleet, host, trust)
    typer.echo(f"{file.parent / 'ca'}: the fleet's authority; keep a copy of it offline")
    if trust is not None:
        typer.echo(f"{file.parent / 'trust'}: the fleet's public metadata and online keys, from {trust}")
    else:
        typer.echo(
            f"{file.parent / 'trust' / 'keys'}: keys that sign code and releases, NOT LOCKED: good for a try."
            " Before a site joins that matters, make them anew offline (`reuna trust init`), and give what"
            " belongs here with --trust: docs/how-to/trust.md"
        )
    typer.echo(f"next:  reuna cloud --settings {file}")
    typer.echo(f"then:  reuna site invite SITE --settings {file}")


@site.command()
def operator(
    name: Annotated[str, typer.Argument(help="Name of the operator.")] = "operator",
    settings: SettingsFile = None,
) -> None:
    """Make an operator's key and certificate anew; those before are refused from now on."""
    file = _desk(settings).new_operator(name, time.time())
    typer.echo(f"{file}: key and certificate, good for a year; what was there before is refused")


@site.command()
def invite(
    name: Annotated[
        str, typer.Argument(metavar="SITE", help="At the cloud a new site; at a fog a new edge of it.")
    ],
    fog: Annotated[
        bool, typer.Option("--fog", help="At a fog: for a fog under it, not for an edge.")
    ] = False,
    edges: Annotated[
        int, typer.Option("--edges", min=0, help="For a fog: how many edges its site may have; 0: any.")
    ] = 0,
    expires: Expires = "24h",
    settings: SettingsFile = None,
    json: Json = False,
) -> None:
    """Print a token with which one machine can join once: at the cloud a fog, at a fog an edge or a fog."""
    now, life_s = time.time(), seconds(expires)
    token = _desk(settings).invite(name, now, life_s, edges, fog=fog)
    _print_token(token, now + life_s, json)


@site.command(name="invites")
def list_invites(settings: SettingsFile = None, json: Json = False) -> None:
    """List invitations: open, used, expired, cancelled."""
    found = _desk(settings).invites(time.time())
    if json:
        as_json(found)
        return
    for row in found:
        typer.echo(f"{row['id']}  {row['role']:5} {row['name']:20} {row['state']:10} {_day(row['expires'])}")


@site.command()
def cancel(
    what: Annotated[str, typer.Argument(metavar="INVITE", help="Id or name, as `site invites` lists it.")],
    settings: SettingsFile = None,
) -> None:
    """Make a token worthless that was not used yet; by a name all tokens of that name."""
    for row in _desk(settings).cancel(what, time.time()):
        typer.echo(f"the token {row['id']} for {row['role']} {row['name']} is worthless now")


@node.command(name="list")
def list_nodes(settings: SettingsFile = None, json: Json = False) -> None:
    """List nodes: state, end of their certificate, when they were heard, alarms."""
    now = time.time()
    desk = _desk(settings)
    found = desk.nodes(now)
    if json:
        as_json(found)
        return
    for row in found:
        if not desk.hears(row):
            heard = f"of {row['site']}, which hears it" if row["site"] else "comes by the API"
        else:
            heard = "heard never" if row["heard"] is None else f"heard {now - row['heard']:.0f} s ago"
        line = f"{row['role']:5} {row['name']:20} {row['state']:8} until {_day(row['expires'])}  {heard}"
        typer.echo(line + "".join(f"\n      ALARM: {alarm}" for alarm in row["alarms"]))
    if any((row["role"], row["state"], row["heard"]) == (desk.role, "active", None) for row in found):
        typer.echo(SILENT, err=True)


@node.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the node.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")] = "",
    settings: SettingsFile = None,
) -> None:
    """Refuse a node from now on, for good; its live connections end within a minute."""
    _desk(settings).revoke(name, time.time(), reason)
    typer.echo(f"{name} is refused from now on; a replacement joins under another name")


@node.command()
def release(
    name: Annotated[str, typer.Argument(help="Name of a node whose key spoke from two places.")],
    settings: SettingsFile = None,
) -> None:
    """Admit a held node again, once you have made sure that only one machine has its key."""
    _desk(settings).release(name)
    typer.echo(f"{name} is admitted again; should its key speak from two places once more, it is held again")


@node.command()
def rename(
    old: Annotated[str, typer.Argument(help="Name of a node.")],
    new: Annotated[str, typer.Argument(help="Its new name.")],
    expires: Expires = "24h",
    settings: SettingsFile = None,
    json: Json = False,
) -> None:
    """Print a token with which a node joins again under a new name; the old name then ends."""
    now, life_s = time.time(), seconds(expires)
    token = _desk(settings).rename(old, new, now, life_s)
    _print_token(token, now + life_s, json)


def join(
    token: Annotated[
        str, typer.Argument(help="What `reuna site invite` printed; - reads it from standard input.")
    ] = "-",  # noqa: S107 - a sign for standard input
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the token on its first line.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Folder to make (default: the node's name).")
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="A fog: name or address under which its edges reach it.")
    ] = "127.0.0.1",
    data: Annotated[Path | None, typer.Option("--data", help="An edge: folder of its own data.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="One setting, NAME=VALUE.")] = None,
    json: Json = False,
) -> None:
    """Make this machine a node: its key is made here and stays here."""
    from reuna.fleet.join import join as enrol

    done = enrol(_token(token, token_file), folder, host, data, sets or [])
    if json:
        as_json({"role": done.role, "name": done.name, "site": done.site, "settings": str(done.settings)})
        return
    typer.echo(f"{done.role} {done.name} is enrolled; its key is in {done.settings.parent}")
    typer.echo(f"next:  reuna {done.role} --settings {done.settings}")
    typer.echo(
        f"Nothing leaves it before officers of {done.site} have signed a policy. On their machines, once:"
    )
    typer.echo(f"  {init_command(done)}")
    typer.echo("  reuna policy sign policy.toml --key KEY")
    typer.echo(f"Then policy.toml and policy.sig go to {done.policy.parent}, and here:")
    typer.echo(f"  reuna policy pin {done.policy} --folder {done.pins}")


def _token(word: str, file: Path | None) -> str:
    """The token: a word of a command is in every list of processes, what comes in or lies in a file is not.

    Raises `SettingsError`.
    """
    if file is not None and word != "-":
        raise SettingsError("a token and a file with one were given", "Give one of them.")
    try:
        text = word if word != "-" else sys.stdin.readline() if file is None else file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read a token: {error}", "Write it on the file's first line.") from error
    return "".join(text.splitlines()[:1]).strip()


def init_command(node: Joined) -> str:
    """What begins the policy of a new node's site."""
    over = f"--over {node.over} " if node.over else ""
    return (
        f"reuna policy init --preset company --site {node.site} --fog {node.site} {over}--fleet {node.fleet} "
        "--signer NAME=KEY"
    )


def seconds(text: str) -> float:
    """A span like ``90m``. Raises `SettingsError`."""
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not (number.isascii() and number.isdigit()) or not number.strip("0"):
        raise SettingsError(f"{text!r:.40} is no span of time", "Write it like 30m, 24h or 7d.")
    if len(number) > 9 or int(number) * UNITS[unit] > LONGEST_DAYS * UNITS["d"]:
        raise SettingsError(
            f"{text!r:.40} is longer than the {LONGEST_DAYS} days that a token may be good",
            "Take a shorter span; another token can be made at any time.",
        )
    return int(number) * UNITS[unit]


def _print_token(token: Token, ends: float, json: bool) -> None:
    text = token.text()
    if json:
        found = {"token": text, "role": token.role, "name": token.name, "address": token.address}
        as_json({**found, "root": token.root, "expires": ends})
        return
    typer.echo(text)
    typer.echo(f"good once, for {token.role} {token.name}, until {_day(ends)}; on that machine:", err=True)
    typer.echo("  reuna join -      and paste it", err=True)


def _desk(file: Path | None) -> Desk:
    """The register of the cloud or fog whose settings these are. Raises `SettingsError`."""
    from reuna.adapters.toml_file import read_toml
    from reuna.cloud.settings import CLOUD
    from reuna.fleet.admit import Desk
    from reuna.fleet.place import read_settings
    from reuna.fog.settings import FOG

    file = file or _found()
    if "parent" in read_toml(file).values:
        return Desk.of(read_settings(FOG, "REUNA_FOG_", file, None), "edge")
    return Desk.of(read_settings(CLOUD, "REUNA_CLOUD_", file, None), "fog")


def _found() -> Path:
    for name in ("cloud.toml", "fog.toml"):
        if Path(name).exists():
            return Path(name)
    raise SettingsError("no cloud.toml or fog.toml here", "Name the place's file with --settings.")


def _day(when: Any) -> str:
    try:
        return "-" if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):  # no calendar has it; what is kept must stay readable
        return f"{when:.3g} s after 1970"
