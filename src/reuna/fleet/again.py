"""Runs at a cloud that are taken up again: those that ended early go on, those that ended begin anew.

The cloud has all that the run needs. What is needed here is for the result: the project as it was, for
its gates and for the comparison with pooled rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reuna.adapters.project import pack_bundle
from reuna.core.errors import RunProblem
from reuna.core.project import ProjectSettings
from reuna.core.records import RunSpec
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet
from reuna.fleet.session import Finished, Job, Watch, agreed, finish, follow, handed_over, on_its_way, present
from reuna.wire import digest_bytes

Begin = Callable[[], str]  #: tells the cloud; the proposal's id when a second person has to agree, else ''


def settings_as_asked(spec: RunSpec, project: Path, settings: ProjectSettings) -> ProjectSettings:
    """The project's settings with what the run was begun with. Raises `RunProblem` for other code."""
    here = digest_bytes(pack_bundle(project))
    if here != spec.bundle:
        raise RunProblem(
            f"the code in {project} is {here[:12]}…, that of {spec.run} {spec.bundle[:12]}…",
            "Name the folder with the code of the run, as of its commit.",
        )
    return replace(
        settings,
        name=spec.project,
        task=spec.task,
        metric=spec.metric,
        strategy=spec.strategy,
        rounds=spec.rounds,
        seed=spec.seed,
        deadline_s=spec.deadline_s,
        quorum=spec.quorum,
        asking=spec.asking,
        grid=spec.grid,
        encoding=spec.encoding,
        max_weight=spec.max_weight,
        local=spec.local,
        settings=spec.settings,
    )


async def take_up(
    fleet: Fleet, operator: Operator, job: Job, run: str, begin: Begin, watch: Watch
) -> Finished:
    """Tell the cloud, and follow ``run`` to its end; what is counted is counted from now on.

    Raises `RunNotFound`, `RunProblem`, `RunFailed`.
    """
    folder = job.runs / run
    folder.mkdir(parents=True, exist_ok=True)
    try:
        course = on_its_way(job, fleet, operator, folder, watch, None)
        await present(course)
        watch(handed_over(run))
        proposal = await asyncio.to_thread(begin)
        if proposal:
            watch({"what": "waiting", "proposal": proposal})
            await agreed(operator, proposal)
        outcome = await follow(operator, run, watch)
        spec = await asyncio.to_thread(operator.asked, run)
        return await finish(course, spec, outcome)
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()
