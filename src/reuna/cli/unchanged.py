"""Whether a run that is asked for has been carried out already, and what is said of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reuna.cli.runs import finished, read
from reuna.core.errors import StorageError

if TYPE_CHECKING:
    from reuna.fleet.layout import Fleet
    from reuna.fleet.result import Inputs
    from reuna.fleet.session import Job
    from reuna.fleet.unchanged import Taken


def taken(job: Job, fleet: Fleet | None, again: bool) -> tuple[Taken, tuple[Path, dict[str, Any]] | None]:
    """The inputs of a run, and the earlier run that answers for them; what is so, or why not, is said."""
    from reuna.fleet.data import spread
    from reuna.fleet.session import fogs_of
    from reuna.fleet.unchanged import earlier, same_but_data, take

    fogs = spread(job.nodes, job.fogs) if fleet is None else fogs_of(fleet)
    rules = {} if fleet is None else {place.name: place.folder / "policy.toml" for place in fleet.of("edge")}
    found = take(
        job.project, job.settings, job.nodes, fogs, job.runs, rules, "" if fleet is None else fleet.name
    )
    if again:
        return found, None
    runs = list(_perhaps(job.runs, found.inputs))
    before = earlier(runs, found.inputs)
    if before is not None:
        model = before[1]["model_digest"]
        typer.echo(
            f"unchanged since {before[1]['run']}: model sha256:{model}; nothing is trained. "
            "To train anyway: --again",
            err=True,
        )
        return found, before
    alike = [] if found.inputs.data else [each for _, each in runs if same_but_data(each, found.inputs)]
    if alike:
        typer.echo(
            f"code, settings and participants are those of {alike[0]['run']}; the data of the sites are not "
            "known to be unchanged, so it trains",
            err=True,
        )
    return found, None


def _perhaps(runs: Path, inputs: Inputs) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Results that name the settings asked for, the newest first; one that cannot be read answers nothing."""
    for folder in finished(runs):
        with suppress(OSError, StorageError):
            if inputs.settings.encode() in (folder / "result.json").read_bytes():
                yield folder, read(folder)
