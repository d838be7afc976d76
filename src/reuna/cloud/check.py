"""Checks before a run: one plan of the task ``check`` to every fog, and what their edges say to it.

A check takes its turn among the rounds of runs, because a node works on one plan at a time. It is kept in
memory alone: after a restart of the cloud it is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from reuna.cloud.plan import Planner
from reuna.cloud.turns import Turns
from reuna.core.errors import PlanError, ReunaError, RunNotFound, TooMany
from reuna.core.ports import Offload
from reuna.core.readiness import needs_of
from reuna.core.records import Contribution, Member, RunSpec
from reuna.exchange.intake import Intake
from reuna.loop import plan as planning
from reuna.loop import train
from reuna.wire import decode_plan

log = logging.getLogger("reuna.cloud")
NAME = re.compile(r"c-[a-z0-9-]{1,60}")  #: no run's, so that the plans of a check stand in no run's way
LONGEST_S = 600.0  #: rounds of runs wait so long for a check, at most
WAITING = 8  #: checks that wait for their turn
KEPT = 32  #: checks whose answers are remembered


@dataclass
class Check:
    """Where one is: ``queued``, ``asking``, ``done`` or ``failed``, and the members so far."""

    spec: RunSpec
    state: str = "queued"
    members: tuple[Member, ...] = ()
    error: ReunaError | None = None
    task: asyncio.Task[None] | None = None

    def told(self) -> dict[str, Any]:
        """As the API shows it."""
        edges = planning.edges_of(self.spec)
        found: dict[str, Any] = {
            "state": self.state,
            "edges": list(edges),
            "members": msgspec.to_builtins(self.members),
        }
        if self.error is not None:
            found |= {"code": self.error.code, "message": self.error.message}
        return found


class Checks:
    """Carries out checks, one after the other. ``turn`` is whose the open round is."""

    def __init__(self, name: str, planner: Planner, intake: Intake, turn: Turns, offload: Offload) -> None:
        self._name = name
        self._planner = planner
        self._intake = intake
        self._turn = turn
        self._offload = offload
        self._checks: dict[str, Check] = {}

    def begin(self, spec: RunSpec) -> None:
        """Begin a check; nothing happens when there is one of that name.

        Raises `PlanError`, `SettingsError` and `TooMany`.
        """
        check_spec(spec)
        if spec.run in self._checks:
            return
        going_on = [each for each in self._checks.values() if each.state in ("queued", "asking")]
        if len(going_on) >= WAITING:
            raise TooMany(f"{len(going_on)} checks wait for their turn")
        check = self._checks[spec.run] = Check(spec)
        while len(self._checks) > KEPT:
            self._checks.pop(next(run for run, each in self._checks.items() if each not in going_on))
        check.task = asyncio.create_task(self._carry_out(check))

    def status(self, run: str) -> dict[str, Any]:
        """Where a check is. Raises `RunNotFound`."""
        check = self._checks.get(run)
        if check is None:
            raise RunNotFound(
                f"the cloud knows no check {run!r:.80}", "Ask again: it forgets them when it restarts."
            )
        if check.state == "asking":
            check.members = _members(self._intake.rows())
        return check.told()

    async def stop(self) -> None:
        """Give up those that go on."""
        tasks = [each.task for each in self._checks.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, check: Check) -> None:
        try:
            async with self._turn:
                check.members = await self._ask(check)
            check.state = "done"
        except ReunaError as error:
            log.error("check %s: %s %s", check.spec.run, error.code, error)
            check.state, check.error = "failed", error

    async def _ask(self, check: Check) -> tuple[Member, ...]:
        spec = check.spec
        plans = planning.plans(spec, 1, 1, "check", spec.model, None)
        older = self._planner.older({fog: decode_plan(data) for fog, data in plans.items()})
        asked = {fog: data for fog, data in plans.items() if fog not in older}
        old = [edge for fog in older for edge in decode_plan(plans[fog]).cohort]
        known = tuple(Member(edge, absent=train.OLDER) for edge in old)
        if not asked:
            return tuple(sorted(known, key=lambda member: member.node))
        plan = decode_plan(next(iter(asked.values())))

        def close() -> Contribution:
            rows = self._intake.freeze(plan.key)
            edges, refused = planning.edges_of(spec), self._intake.newly_refused()
            row = train.closing_row(plan, "", self._name, edges, rows, refused, known)
            self._intake.close(row)
            return row

        closed = self._intake.open(asked)
        check.state = "asking"
        if not closed:
            await self._intake.collect(self._planner.announce)
        row = self._intake.closing_row()
        return row.members if row is not None else (await self._offload(close)).members


def check_spec(spec: RunSpec) -> None:
    """Raises `PlanError`, `SettingsError` for a check that cannot be asked."""
    if not NAME.fullmatch(spec.run):
        raise PlanError(f"{spec.run!r:.80} is no name of a check", "Begin it with `reuna check --against`.")
    if not spec.deadline_s <= LONGEST_S:
        raise PlanError(f"a check waits {spec.deadline_s:g} s", f"Wait at most {LONGEST_S:g} s.")
    planning.check_spec(spec)
    needs_of(spec.settings)


def _members(rows: list[Contribution]) -> tuple[Member, ...]:
    return tuple(sorted((each for row in rows for each in row.members), key=lambda member: member.node))
