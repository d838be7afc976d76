"""Whether a run that is asked for has been carried out already, and what is said of that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from reuna.cli.runs import finished, read
from reuna.core.errors import ReunaError, StorageError
from reuna.fleet.ending import until_done

if TYPE_CHECKING:
    from reuna.fleet.client import Operator
    from reuna.fleet.layout import Fleet
    from reuna.fleet.result import Inputs
    from reuna.fleet.session import Job
    from reuna.fleet.unchanged import Taken

Earlier = tuple[Path, dict[str, Any]]  #: a run's folder and its result


def taken(job: Job, opened: tuple[Fleet, Operator] | None, again: bool) -> tuple[Taken, Earlier | None]:
    """The inputs of a run, and the earlier run that answers for them; what is so, or why not, is said.

    Nodes of ``opened`` whose data are not here are asked which they have, when only those are not known.
    """
    from reuna.fleet.data import spread
    from reuna.fleet.session import fogs_of
    from reuna.fleet.unchanged import earlier, take

    fleet = None if opened is None else opened[0]
    fogs = spread(job.nodes, job.fogs) if fleet is None else fogs_of(fleet)
    rules = {} if fleet is None else {place.name: place.folder / "policy.toml" for place in fleet.of("edge")}
    found = take(
        job.project, job.settings, job.nodes, fogs, job.runs, rules, "" if fleet is None else fleet.name
    )
    if again:
        return found, None
    runs = list(_perhaps(job.runs, found.inputs))
    before = earlier(runs, found.inputs)
    if before is None and opened is not None and not found.inputs.data:
        before = _asked(opened[1], runs, found.inputs)
    if before is not None:
        model = before[1]["model_digest"]
        _say(
            f"unchanged since {before[1]['run']}: model sha256:{model}; nothing is trained. "
            "To train anyway: --again"
        )
    return found, before


def _asked(operator: Operator, runs: list[Earlier], inputs: Inputs) -> Earlier | None:
    """The run whose data the nodes say that they have; of others it is said what changed, or is not known."""
    from reuna.fleet.same import ask, compare, why_not
    from reuna.fleet.unchanged import same_but_data

    alike = [each for each in runs if same_but_data(each[1], inputs)]
    if not alike:
        return None
    wrong = [why_not(folder, result, inputs) for folder, result in alike]
    good = [each for each, why in zip(alike, wrong, strict=True) if not why]
    newest = (good or alike)[0][1]["run"]
    since = f"code, settings and participants are those of {newest}"
    if not good:
        _say(f"{since}; {wrong[0]}: so it trains")
        return None
    _say(f"{since}; every node is asked whether its data are the same")
    try:
        told = until_done(ask(operator, *good[0], _say))
    except ReunaError as error:
        _say(f"the nodes could not be asked: {error.message} [{error.code}]; so it trains")
        return None
    compared = [compare(result, told) for _, result in good]
    if not any(each.same for each in compared):
        _say(f"since {newest} {compared[0].sentence}; so it trains")
    return next((each for each, found in zip(good, compared, strict=True) if found.same), None)


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def _perhaps(runs: Path, inputs: Inputs) -> Iterator[Earlier]:
    """Results that name the settings asked for, the newest first; one that cannot be read answers nothing."""
    for folder in finished(runs):
        with suppress(OSError, StorageError):
            if inputs.settings.encode() in (folder / "result.json").read_bytes():
                yield folder, read(folder)
