"""``reuna source``: read machines, look at what they give, keep it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.core.errors import NoReadings, SettingsError
from reuna.fleet.ending import until_done

if TYPE_CHECKING:
    from rich.table import Table

    from reuna.core.source_settings import AnySource, StoreSettings
    from reuna.edge.read import Live, Seen

app = typer.Typer(help="Read machines: look at what they give, keep it.", no_args_is_help=True)
Settings = Annotated[Path, typer.Argument(metavar="SETTINGS", help="sources.toml.")]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
REFRESH_S = 0.5
SHOWN_GAPS = 5
PIECE_S, PIECES = 60, 10_000  #: of what is stored, in memory at once; and at most so many


@app.command(name="test")
def show_live(
    settings: Settings,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=86_400, help="How long to read.", metavar="S")
    ] = 5.0,
    json: Json = False,
) -> None:
    """Show live values of all tags with unit and quality; ends with R118 when a tag gives nothing."""
    from reuna.adapters.clock import SystemClock, ThreadOffload
    from reuna.edge.read import begun, listen, opened

    clock = SystemClock()
    sources, _ = read_settings(settings)
    seen = begun([opened(each, clock, ThreadOffload()) for each in sources])
    _shown_while(listen(seen, clock, seconds), seen, quiet=json)
    if json:
        as_json({"seconds": seconds, "sources": {name: _as_json(each) for name, each in seen.items()}})
    else:
        _print(seen)
    _judge(seen)


@app.command()
def record(
    settings: Settings,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.1, help="How long; without it until Ctrl-C.", metavar="S"),
    ] = None,
    json: Json = False,
) -> None:
    """Keep what the sources give in the local store that the settings name."""
    from reuna.adapters.clock import SystemClock, ThreadOffload
    from reuna.adapters.local_store import LocalStore
    from reuna.edge.read import Recorder, begun, opened

    clock = SystemClock()
    sources, kept = read_settings(settings)
    store = LocalStore(_needed(settings, kept))
    try:
        seen = begun(
            [opened(each, clock, ThreadOffload(), store.stored.newest_ns(each.name)) for each in sources]
        )
        typer.echo(f"recording {len(seen)} sources; Ctrl-C ends it", err=True)
        try:
            _shown_while(Recorder(store, clock).record(seen, seconds), seen, quiet=json)
        finally:
            _print_store(store.stored.state(), json)
    finally:
        store.close()
    for each in seen.values():
        if each.error:
            raise each.error


@app.command()
def stored(
    settings: Settings,
    last: Annotated[
        float, typer.Option("--last", min=0.001, help="How far back from the newest reading.", metavar="S")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Show what the local store has: its size, and the last readings of every tag."""
    from reuna.adapters.local_store import StoredReadings

    _, kept = read_settings(settings)
    store = StoredReadings(Path(_needed(settings, kept).folder))
    try:
        seen = dict(_last(store, last))
        if json:
            as_json(
                {
                    "store": vars(store.state()),
                    "sources": {name: _as_json(each) for name, each in seen.items()},
                }
            )
            return
        _print(seen)
        _print_store(store.state(), json)
    finally:
        store.close()


@app.command()
def certificate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where client.der and client.key go.")],
    name: Annotated[str, typer.Option("--name", help="What the certificate calls this client.")] = "reuna",
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="Its life.", metavar="N")] = 1825,
    server: Annotated[
        str | None, typer.Option("--server", help="Fetch what that server shows instead.", metavar="URL")
    ] = None,
    json: Json = False,
) -> None:
    """Make a client certificate for OPC UA; with --server fetch the certificate of a server."""
    from reuna.adapters.opcua.files import fetch_server, make_client

    made = until_done(fetch_server(folder, server)) if server else make_client(folder, name, days)
    if json:
        as_json(made)
        return
    for each in made["files"]:
        typer.echo(f"wrote {each}")
    for key in ("uri", "fingerprint"):
        if key in made:
            typer.echo(f"{key}: {made[key]}")
    typer.echo(made["next"])


@app.command()
def export(
    settings: Settings,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the tables; made if need be.")],
    project: Annotated[
        Path, typer.Option("--project", help="The project whose contract the tables are to keep.")
    ] = Path(),
    store: Annotated[
        Path | None, typer.Option("--store", help="The store, where the settings name none: STATE/store.")
    ] = None,
    begin: Annotated[
        str, typer.Option("--from", help="From this time on, ISO 8601 (UTC if it says no zone).")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="Up to before this time.")] = "",
    parquet: Annotated[bool, typer.Option("--parquet", help="Write Parquet instead of CSV.")] = False,
    json: Json = False,
) -> None:
    """Write what was read as tables for training: rows of the contract's grid, one file a stretch."""
    from reuna.adapters.local_store import StoredReadings
    from reuna.edge.export import export as carry_out
    from reuna.edge.live import wired
    from reuna.exchange.predict import held
    from reuna.fleet.open_project import open_settings
    from reuna.wire.release import About

    sources, kept = read_settings(settings)
    told = open_settings(project, [])
    wanted = held("", About(told.name, 1, "none", "0" * 64), dict(told.settings))
    stored = StoredReadings(store or Path(_needed(settings, kept).folder))
    try:
        span = _instant(begin, "--from", -(1 << 62)), _instant(end, "--to", 1 << 62)
        suffix = ".parquet" if parquet else ".csv"
        written = carry_out(stored, wanted, wired(wanted, sources), span, folder, suffix)
    finally:
        stored.close()
    if json:
        as_json({"tables": [{"file": str(path), "rows": rows} for path, rows in written]})
        return
    for path, rows in written:
        typer.echo(f"{path}: {rows} rows")
    if wanted.agreed.label:
        typer.echo(f"the column {wanted.agreed.label} is empty: fill it in before training", err=True)


def _instant(text: str, option: str, otherwise: int) -> int:
    """A time in ns since the epoch. Raises `SettingsError`."""
    from math import isnan

    from reuna.core.conformity import instant
    from reuna.core.sources import ns_of

    seconds = instant(text) if text else 0.0
    if isnan(seconds):
        raise SettingsError(f"{option} is {text!r}, which is no time", "Write it as 2027-01-15T08:00:00.")
    return ns_of(seconds) if text else otherwise


def read_settings(settings: Path) -> tuple[tuple[AnySource, ...], StoreSettings | None]:
    """What a file of sources says. Raises `SettingsError`."""
    from reuna.adapters.toml_file import read_toml
    from reuna.core.settings import locating, parse
    from reuna.core.source_settings import SOURCES, sources_of, store_of

    file = read_toml(settings)
    values = parse(SOURCES, [file])
    with locating(file.places):
        return sources_of(values), store_of(values)


def _needed(settings: Path, kept: StoreSettings | None) -> StoreSettings:
    if kept is None:
        raise SettingsError(
            f"{settings.name}: there is no store.folder", 'Say where readings are kept: [store] folder = "…".'
        )
    return kept


def _last(store: Any, last: float) -> Iterator[tuple[str, Seen]]:
    """The last readings of each source, as if they had just come."""
    from reuna.core.sources import NS, Batch, ns_of
    from reuna.edge.read import Live, Seen, note

    oldest = store.state().oldest_ns
    for name, tags in store.tags().items():
        newest = store.newest_ns(name)
        if newest is not None:
            latest = {tag.name: tag for tag in tags}
            seen = Seen(None, {key: Live(tag) for key, tag in latest.items()})
            start = max(newest - ns_of(last), oldest)
            step = max(PIECE_S * NS, (newest - start) // PIECES)
            for window in store.windows(name, list(latest), start, newest + 1, step):
                note(seen, Batch(window.columns, newest, window.gaps))
            yield name, seen


def _shown_while(work: Any, seen: dict[str, Seen], quiet: bool) -> None:
    """Run it, with the values as they come where a person looks on."""
    if quiet or not sys.stdout.isatty():
        until_done(work)
        return
    from rich.console import Console
    from rich.live import Live as Display

    console = Console()
    with Display(
        get_renderable=lambda: _table(seen), console=console, refresh_per_second=1 / REFRESH_S, transient=True
    ):
        until_done(work)


def _print(seen: dict[str, Seen]) -> None:
    from rich.console import Console

    from reuna.core.foreign import readable

    Console(highlight=False, width=None if sys.stdout.isatty() else 110).print(_table(seen))
    for name, each in seen.items():
        for gap in each.gaps[-SHOWN_GAPS:]:
            tags = f" ({', '.join(gap.tags)})" if gap.tags else ""
            typer.echo(f"gap in {readable(name)}{readable(tags)}: {readable(gap.reason)}")


def _table(seen: dict[str, Seen]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from reuna.core.foreign import readable

    table = Table(box=box.SIMPLE)
    for title in ("source", "tag", "value", "unit", "quality", "time", "readings"):
        table.add_column(title, justify="right" if title in {"value", "readings"} else "left", no_wrap=True)
    for name, each in seen.items():
        for live in each.live.values():
            cells = (readable(name), readable(live.tag.name), *_cells(live))
            table.add_row(*map(Text, cells), style="" if live.readings and not live.quality else "bold")
    return table


def _cells(live: Live) -> tuple[str, ...]:
    from reuna.core.foreign import readable
    from reuna.core.sources import QUALITIES

    if not live.readings:
        return "–", readable(live.tag.unit), "no reading", "", "0"
    return (
        f"{live.value:.6g}",
        readable(live.tag.unit),
        QUALITIES[live.quality],
        moment(live.time_ns),
        str(live.readings),
    )


def moment(time_ns: int) -> str:
    """UTC, to the millisecond."""
    from datetime import UTC, datetime

    seconds, rest = divmod(time_ns, 10**9)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{rest // 10**6:03d}Z"


def _as_json(seen: Seen) -> dict[str, Any]:
    from reuna.core.sources import QUALITIES

    return {
        "tags": {
            name: {
                "unit": live.tag.unit,
                "value": live.value if live.readings and abs(live.value) < float("inf") else None,
                "quality": QUALITIES[live.quality] if live.readings else None,
                "time_ns": live.time_ns if live.readings else None,
                "age_s": (live.received_ns - live.time_ns) / 1e9 if live.readings else None,
                "readings": live.readings,
                "uncertain": live.uncertain,
                "bad": live.bad,
            }
            for name, live in seen.live.items()
        },
        "gaps": [vars(gap) for gap in seen.gaps],
        "error": {"code": seen.error.code, "message": seen.error.message} if seen.error else None,
    }


def _print_store(state: Any, json: bool) -> None:
    if json:
        as_json(vars(state))
        return
    typer.echo(
        f"store: {state.readings} readings, {state.size / 2**20:.1f} MiB; forgotten {state.forgotten_by_age} "
        f"by age, {state.forgotten_by_size} by size; refused {state.refused}"
    )


def _judge(seen: dict[str, Seen]) -> None:
    """Raises what ended a source, or `NoReadings` with the tags that gave nothing."""
    for each in seen.values():
        if each.error:
            raise each.error
    silent = [
        f"{name}: {tag}" for name, each in seen.items() for tag in each.live if not each.live[tag].readings
    ]
    if silent:
        more = f" and {len(silent) - 5} more" if len(silent) > 5 else ""
        raise NoReadings(f"no reading of {', '.join(silent[:5])}{more}")
