"""``reuna ledger``: what left this node, and the proof that nothing was changed since."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json

if TYPE_CHECKING:
    from reuna.trust.ledger_verify import Verdict

app = typer.Typer(help="What left a node, and the proof of it.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The node's ledger folder.")]
KeysFile = Annotated[
    Path | None, typer.Option("--keys", help="File with lines `node HEX` and `cloud HEX`: their public keys.")
]
HeadsFile = Annotated[
    Path | None,
    typer.Option("--heads", help="File with heads kept outside the ledger: by the cloud, in a SIEM."),
]
CloudFile = Annotated[Path, typer.Option("--settings", help="The cloud's settings file.")]
OfNode = Annotated[str, typer.Option("--node", help="Name or identity of one node (default: all).")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
Day = Annotated[str, typer.Option(metavar="DAY", help="A UTC day as in 2026-11-23, included.")]


@app.command()
def verify(folder: Folder, keys: KeysFile = None, heads: HeadsFile = None, json: Json = False) -> None:
    """Check every record, link and signature; name the first record that is wrong."""
    from reuna.fleet import ledger

    verdict = ledger.judge(folder, keys, heads)
    if json:
        as_json(ledger.verdict_dict(verdict))
    else:
        _say(verdict)
    ledger.insist(verdict)


@app.command()
def show(
    folder: Folder,
    last: Annotated[int, typer.Option("--last", min=1, help="How many records.")] = 20,
    json: Json = False,
) -> None:
    """Show the newest records."""
    from reuna.exchange.ledger_export import as_dict
    from reuna.fleet import ledger

    verdict = ledger.judge(folder, None, None)
    records = ledger.good_records(folder, verdict)
    newest = [as_dict(*each) for each in islice(records, max(0, verdict.records - last), None)]
    if json:
        as_json(newest)
    else:
        _print(newest)
        typer.echo(_countersigned(verdict))
    ledger.insist(verdict)


@app.command()
def export(
    folder: Folder,
    to: Annotated[
        str, typer.Option("--to", help="FILE.jsonl, syslog://HOST:PORT or syslog+tcp://HOST:PORT.")
    ],
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Where to note what a server was sent; in FOLDER without it."),
    ] = None,
    json: Json = False,
) -> None:
    """Pass on the records that are new since the last time."""
    from reuna.fleet import ledger

    count = ledger.export(folder, to, state)
    if json:
        as_json({"exported": count})
    else:
        typer.echo(f"{count} records to {to}")


@app.command()
def report(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    since: Day = "",
    until: Day = "",
    keys: KeysFile = None,
    heads: HeadsFile = None,
    json: Json = False,
) -> None:
    """Write one page from the ledger alone: what left, to whom, under which rule, what was refused."""
    from reuna.adapters.files import replace_file
    from reuna.fleet import ledger, ledger_page, ledger_summary

    for name, day in (("--since", since), ("--until", until)):
        _check_day(name, day)
    verdict = ledger.judge(folder, keys, heads)
    records = (record for record, _ in ledger.good_records(folder, verdict))
    now_ms = int(1000 * time.time())
    summary, said = ledger_summary.summarise(records, since, until, now_ms), ledger.verdict_dict(verdict)
    if json:
        as_json({"verdict": said, **summary})
    else:
        replace_file(out, ledger_page.render(summary, said).encode(), 0o644)
        typer.echo(f"report: {out}")
    ledger.insist(verdict)


@app.command()
def verifier() -> None:
    """Print a verifier that needs no Reuna: one Python file, for an auditor to read and to run."""
    from importlib.resources import files

    typer.echo(files("reuna.adapters").joinpath("ledger_verifier.py").read_text(encoding="utf-8"), nl=False)


@app.command()
def heads(settings: CloudFile = Path("cloud.toml"), node: OfNode = "", json: Json = False) -> None:
    """At the cloud: print the heads of the nodes' ledgers that it has countersigned, for `--heads`."""
    from reuna.fleet import ledger_heads
    from reuna.fleet.ledger_summary import stamp

    found = ledger_heads.heads(_cloud(settings), node)
    if json:
        as_json(found)
        return
    for each in found:
        at = stamp(int(1000 * each["at"]))
        typer.echo(f"{at} {each['node']} {each['ledger']} {each['seq']} {each['countersignature']}")


@app.command()
def keys(settings: CloudFile = Path("cloud.toml"), node: OfNode = "", json: Json = False) -> None:
    """At the cloud: print public keys of ledgers and of the cloud, for `--keys`."""
    from reuna.fleet import ledger_heads

    found = ledger_heads.keys(_cloud(settings), node)
    if json:
        as_json(found)
        return
    for each in found:
        typer.echo(f"{each['who']} {each['key']}" + (f"  # {each['name']}" if each["name"] else ""))


@app.command()
def release(
    node: Annotated[str, typer.Argument(help="Name or identity of the node.")],
    settings: CloudFile = Path("cloud.toml"),
) -> None:
    """At the cloud: let a node begin another ledger, once you know why it has to."""
    from reuna.fleet import ledger_heads

    count = ledger_heads.release(_cloud(settings), node)
    typer.echo(f"{node} may begin another ledger; the heads of {count} before it are kept")


def _cloud(file: Path) -> dict[str, Any]:
    from reuna.cloud.settings import CLOUD
    from reuna.fleet.place import read_settings

    return read_settings(CLOUD, "REUNA_CLOUD_", file, None)


def _check_day(name: str, day: str) -> None:
    from datetime import date

    from reuna.core.errors import SettingsError

    try:
        if day and (len(day) != 10 or not date.fromisoformat(day)):
            raise ValueError(day)
    except ValueError as error:
        raise SettingsError(f"{name}: {day} is no day", "Write it as in 2026-11-23.") from error


def _say(verdict: Verdict) -> None:
    from reuna.core.foreign import readable

    if verdict.owner is not None:
        where = f"{verdict.owner.node} at {verdict.owner.site}"
        typer.echo(f"ledger {verdict.owner.ledger} of {readable(where)}")
        origin = "given" if verdict.keys_given else "as the ledger itself says; compare it with your own note"
        typer.echo(f"key {verdict.owner.key.hex()} ({origin})")
    typer.echo(f"{verdict.records} good records")
    typer.echo(f"  signed by the node: {_up_to(verdict.signed)}")
    typer.echo(f"  {_countersigned(verdict)}")
    typer.echo(f"  as kept elsewhere: {_up_to(verdict.kept_elsewhere)}")


def _up_to(seq: int) -> str:
    return f"up to record {seq}" if seq >= 0 else "none"


def _countersigned(verdict: Verdict) -> str:
    said = f"countersigned by the cloud: {_up_to(max(verdict.countersigned, verdict.said_countersigned))}"
    if verdict.countersigned < verdict.said_countersigned:
        return f"{said}, as the ledger itself says; give the cloud's key with --keys to check it"
    return said


def _print(records: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from reuna.core.foreign import readable
    from reuna.fleet.ledger_summary import stamp

    table = Table("#", "time (UTC)", "what", "kind", "to", "bytes", "rule", "why")
    for each in records:
        about = "" if each.get("intent") is None else f"of {each['intent']}"
        words = (
            each["seq"],
            stamp(each["time_ms"]),
            f"{each['kind']} {about}".strip(),
            each.get("flow", ""),
            each.get("to", ""),
            each.get("payload_bytes", ""),
            each.get("rule", ""),
            each.get("reason", ""),
        )
        table.add_row(*(Text(readable(str(word))) for word in words))
    Console().print(table)
