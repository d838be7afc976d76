"""``reuna people``: accounts. ``login``, ``logout``, ``whoami``. ``reuna proposals``, ``reuna audit``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json

if TYPE_CHECKING:
    from reuna.fleet.people import Account, Office

people = typer.Typer(help="Accounts of the cloud, on its own machine.", no_args_is_help=True)
proposals = typer.Typer(help="What waits for a second person.", no_args_is_help=True)
audit = typer.Typer(help="Who did what.", no_args_is_help=True)

SettingsFile = Annotated[Path, typer.Option("--settings", help="The cloud's settings.")]
CLOUD = Path("cloud.toml")
TrustFolder = Annotated[
    Path | None, typer.Option("--trust", help="A trust folder: what was done there with the fleet's keys.")
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Name = Annotated[str, typer.Argument(help="Name of the account.")]
Roles = Annotated[
    list[str],
    typer.Option("--role", help="viewer, engineer, approver, officer or admin; may be given often."),
]
Secret = Annotated[
    Path | None,
    typer.Option("--password-file", help="File with the password on its first line; asked without."),
]
Identifier = Annotated[str, typer.Argument(metavar="PROPOSAL", help="Its id, from `reuna proposals list`.")]


@people.command()
def add(name: Name, role: Roles, settings: SettingsFile = CLOUD, password_file: Secret = None) -> None:
    """Make an account."""
    with _office(settings) as office:
        office.add(name, role, _password(name, password_file, new=True))
    typer.echo(f"{name}: {', '.join(sorted(set(role)))}")


@people.command(name="list")
def list_people(settings: SettingsFile = CLOUD, json: Json = False) -> None:
    """List accounts and their roles."""
    with _office(settings) as office:
        found = office.listed()
    if json:
        as_json(found)
        return
    for each in found:
        more = "".join(
            f"  ({word})"
            for word, holds in (
                ("disabled", each["disabled"]),
                ("identity provider", each["signs_in"] != "password"),
            )
            if holds
        )
        typer.echo(f"{each['name']:20} {', '.join(each['roles'])}{more}")


@people.command()
def role(name: Name, role: Roles, settings: SettingsFile = CLOUD) -> None:
    """Give an account these roles and no others; it has to sign in again."""
    with _office(settings) as office:
        office.change(name, roles=role)
    typer.echo(f"{name}: {', '.join(sorted(set(role)))}")


@people.command()
def password(name: Name, settings: SettingsFile = CLOUD, password_file: Secret = None) -> None:
    """Set another password; it has to sign in again."""
    with _office(settings) as office:
        office.change(name, password=_password(name, password_file, new=True))
    typer.echo(f"{name}: every session has ended")


@people.command()
def disable(name: Name, settings: SettingsFile = CLOUD) -> None:
    """Let an account in no more, from now on."""
    with _office(settings) as office:
        office.change(name, disabled=True)
    typer.echo(f"{name} is disabled; every session has ended")


@people.command()
def enable(name: Name, settings: SettingsFile = CLOUD) -> None:
    """Let a disabled account in again."""
    with _office(settings) as office:
        office.change(name, disabled=False)
    typer.echo(f"{name} may sign in again")


@people.command()
def remove(name: Name, settings: SettingsFile = CLOUD) -> None:
    """Remove an account; what it did stays in the audit trail."""
    with _office(settings) as office:
        office.remove(name)
    typer.echo(f"{name} is removed")


def login(
    address: Annotated[str, typer.Argument(help="The cloud, as https://HOST:PORT of its people_port.")],
    authority: Annotated[Path, typer.Option("--authority", help="The fleet's root certificate, PEM.")],
    name: Annotated[
        str,
        typer.Option("--name", help="An account with a password; without: the identity provider."),
    ] = "",
    password_file: Secret = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the identity provider's page by itself.")
    ] = True,
    json: Json = False,
) -> None:
    """Sign in at a cloud; the session is kept in a file that only you can read.

    With --name by a password, else in a browser at the fleet's identity provider.
    """
    from reuna.fleet.people import at_provider, sign_in

    def begin(account: Account) -> dict[str, Any]:
        if name:
            return account.sign_in(name, _password(name, password_file, new=False))
        return at_provider(account, lambda page: _show(page, browser))

    found = sign_in(address, authority, session_file(), begin)
    del found["token"], found["csrf"]
    if json:
        as_json(found)
    else:
        typer.echo(f"{found['name']}: {', '.join(found['roles'])}")


def logout() -> None:
    """End the session, here and at the cloud."""
    account = _account()
    session_file().unlink()
    account.sign_out()
    typer.echo("signed out")


def whoami(json: Json = False) -> None:
    """Show who is signed in and what they may do."""
    found = _account().who()
    del found["csrf"]
    if json:
        as_json(found)
    else:
        typer.echo(f"{found['name']}: {', '.join(found['roles'])}")


@proposals.command(name="list")
def list_proposals(json: Json = False) -> None:
    """List what waits, and what was decided."""
    found = _account().proposals()
    if json:
        as_json(found)
        return
    for each in found:
        state = "waits" if each["waiting"] else each["decided"] or "too old"
        by = f" by {each['decided_by']}" if each["decided_by"] else ""
        typer.echo(f"{each['id']}  {state}{by:20} {each['by']}: {each['summary']}")


@proposals.command()
def approve(id: Identifier) -> None:
    """Say yes to what somebody else proposed; it is done at once."""
    _decide(id, True)


@proposals.command()
def reject(id: Identifier) -> None:
    """Say no."""
    _decide(id, False)


@audit.command(name="show")
def show_audit(
    after: Annotated[int, typer.Option("--after", min=0, help="From this line on.")] = 0,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="On the cloud's own machine: its settings.")
    ] = None,
    trust: TrustFolder = None,
    json: Json = False,
) -> None:
    """Show who did what, the oldest first."""
    if trust is not None:
        found = _of_keys(trust, after)
    elif settings is None:
        found = _account().audit(after)
    else:
        with _office(settings) as office:
            found = office.trail(after)
    if json:
        as_json(found)
        return
    for each in found:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each["at"]))
        typer.echo(
            f"{each['number']:6} {at} {each['who']:16} {each['via']:11} {each['what']:16}"
            f" {each['verdict']:18} {each.get('target', '')}"
        )


@audit.command()
def verify(settings: SettingsFile = CLOUD, trust: TrustFolder = None, json: Json = False) -> None:
    """Check every line and the hash before it; name the first that is wrong."""
    if trust is not None:
        count = len(_of_keys(trust))
    else:
        with _office(settings) as office:
            count = len(office.trail())
    if json:
        as_json({"good": True, "lines": count})
    else:
        typer.echo(f"{count} lines, each as it was written")


def _of_keys(folder: Path, after: int = 0) -> list[dict[str, Any]]:
    from reuna.fleet.trail import Trail

    return Trail(folder).read(after)


def _show(page: str, browser: bool) -> None:
    """On the terminal in any case; a browser in a terminal would take it away from us."""
    import os
    import sys
    import webbrowser

    typer.echo(f"Sign in on this page; it brings you back here:\n{page}", err=True)
    graphical = sys.platform in {"darwin", "win32"} or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if browser and graphical:
        webbrowser.open(page)


def _decide(id: str, approve: bool) -> None:
    from reuna.core.errors import AccountProblem

    account = _account()
    found = next((each for each in account.proposals() if each["id"] == id), None)
    if found is None:
        raise AccountProblem(f"there is no proposal {id!r:.40}", "List them: `reuna proposals list`.")
    typer.echo(f"{found['by']}: {found['summary']}")
    typer.echo(account.decide(found, approve)["decided"])


def _password(name: str, file: Path | None, new: bool) -> str:
    from reuna.cli.passphrase import first_line

    if file is not None:
        return first_line(file).decode(errors="replace")
    entered: str = typer.prompt(f"password of {name}", hide_input=True, confirmation_prompt=new, err=True)
    return entered


def session_file() -> Path:
    """Where the session of whoever is signed in is kept."""
    return Path(typer.get_app_dir("reuna")) / "session.json"


def _account() -> Account:
    from reuna.fleet.people import signed_in

    return signed_in(session_file())


@contextmanager
def _office(file: Path) -> Iterator[Office]:
    from reuna.cloud.settings import CLOUD as OPTIONS
    from reuna.fleet.people import Office
    from reuna.fleet.place import read_settings

    office = Office(read_settings(OPTIONS, "REUNA_CLOUD_", file, None))
    try:
        yield office
    finally:
        office.close()
