"""The result of a run at a cloud, whoever began it: written as `reuna run` would have written it.

All that it is made of stays at the cloud, in the journal and the log of events, so that it can be fetched
from any machine and more than once. What only who began it could count is not in it: what came down to the
nodes, the processes' memory, and the comparison with pooled rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from reuna.core.records import RunSpec
from reuna.fleet.allowed import of_run
from reuna.fleet.bill import keep_build
from reuna.fleet.client import Operator
from reuna.fleet.departures import Entries, entries_of
from reuna.fleet.layout import Fleet
from reuna.fleet.result import check_result
from reuna.fleet.session import Finished, Job, Measured, Watch, assemble, follow, handed_over, write

#: Clocks of nodes and cloud differ a little; what a node sent for a run was sent about while it went on.
SLACK_S = 2.0
STEPS = ("round", "local", "evaluate")  #: what the cloud alone says of a run, with how long it took


async def fetch(fleet: Fleet, operator: Operator, job: Job, run: str, watch: Watch) -> Finished:
    """Wait for the end of a run, and write its result below ``job.runs``.

    Raises `RunNotFound`, `RunFailed` for one that failed or was stopped, `BlobNotFound`.
    """
    watch(handed_over(run))
    outcome = await follow(operator, run, watch)
    return await asyncio.to_thread(collect, fleet, operator, job, run, outcome)


def collect(fleet: Fleet, operator: Operator, job: Job, run: str, outcome: Mapping[str, Any]) -> Finished:
    """The same of a run that is done."""
    spec, events = operator.asked(run), operator.timeline(run, 0)
    model = operator.get_blob(outcome["model"])
    result = result_of(fleet, operator, job, spec, outcome, events)
    folder = job.runs / run
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, result, model)
    if job.build is not None:
        keep_build(job.build, folder)
    return Finished(folder, result)


def result_of(
    fleet: Fleet,
    operator: Operator,
    job: Job,
    spec: RunSpec,
    outcome: Mapping[str, Any],
    events: list[dict[str, Any]],
) -> dict[str, Any]:
    """The content of ``result.json``."""
    began, ended = span(events)
    left = within(entries_of(fleet, began - SLACK_S), ended + SLACK_S)
    measured = Measured(left, [], {}, events, ended - began)
    settings = replace(job.settings, centralised=False)
    found = assemble(replace(job, settings=settings), spec, dict(outcome), measured, None)
    return check_result({**found, **of_run(fleet, operator, spec), **job.notes})


def span(events: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """From when to when a run went on, epoch s, by what the cloud noted of its steps; 0 and 0 without any."""
    steps = [(each["at"], each["fields"]["seconds"]) for each in events if each["what"] in STEPS]
    return min((at - s for at, s in steps), default=0.0), max((at for at, _ in steps), default=0.0)


def within(entries: Entries, until: float) -> Entries:
    """Entries of ledgers up to a time, epoch s."""
    return {node: [e for e in of_node if e.time_ms <= 1000 * until] for node, of_node in entries.items()}
