"""``reuna sink``: where a release's answers and a node's alarms go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json

if TYPE_CHECKING:
    from reuna.core.sink_settings import SinkSettings

app = typer.Typer(
    help="Where answers and alarms of a node go: webhooks, brokers, files.", no_args_is_help=True
)


@app.command()
def show(
    settings: Annotated[Path, typer.Argument(metavar="SETTINGS", help="sinks.toml.")],
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="The edge's state folder: how far each sink is."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show sinks, who each is in the site's policy, and with --state what was sent, waits and was dropped."""
    from reuna.exchange.declared_sinks import declared

    found = [_shown(each, state) for each in declared(str(settings))]
    if json:
        as_json({"sinks": found})
        return
    for each in found:
        typer.echo(f"{each['name']}  {each['kind']}  {each['what']}  recipient {each['recipient']}")
        if state is not None:
            typer.echo(f"  {_said(each)}")
        if each.get("why"):
            typer.echo(f"  {each['why']}")


def _shown(settings: SinkSettings, state: Path | None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": settings.name,
        "kind": settings.kind,
        "what": settings.chosen.what,
        "recipient": settings.recipient,
    }
    return said if state is None else {**said, **_so_far(settings, state)}


def _so_far(settings: SinkSettings, state: Path) -> dict[str, Any]:
    """What became of answers or alarms so far; ``waiting``: numbers that it has not come to."""
    from reuna.edge.sinks import progress_file

    progress = progress_file(state, settings.name).read()
    if progress is None:
        return {"sent": 0, "refused": 0, "dropped": 0, "waiting": 0, "begun": False, "why": ""}
    return {
        "sent": progress.sent,
        "refused": progress.refused,
        "dropped": progress.dropped,
        "waiting": max(0, _newest(settings, state) - progress.number),
        "begun": True,
        "why": progress.why,
    }


def _newest(settings: SinkSettings, state: Path) -> int:
    from reuna.adapters.answer_store import StoredAnswers
    from reuna.core.sinks import ALARMS
    from reuna.edge.answering import ANSWERS
    from reuna.edge.notices import notices_file

    if settings.chosen.what == ALARMS:
        book = notices_file(state).read()
        return book.newest if book is not None else 0
    store = StoredAnswers(state / ANSWERS)
    try:
        newest = store.newest(1)
        return newest[0].number if newest else 0
    finally:
        store.close()


def _said(each: dict[str, Any]) -> str:
    from reuna.core.foreign import readable

    if not each["begun"]:
        return "has not begun: it begins with the first answer or alarm after the edge's start"
    counts = (f"{each[key]} {key}" for key in ("sent", "waiting", "dropped", "refused"))
    return readable(", ".join(counts))
