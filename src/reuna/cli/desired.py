"""``reuna plan`` and ``reuna apply``: a directory of TOML in git, and the fleet that it describes."""

from __future__ import annotations

import json as jsonlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json, Runs
from reuna.core.errors import RolloutProblem

if TYPE_CHECKING:
    from reuna.core.desired import Desired, Reality
    from reuna.fleet.client import Operator
    from reuna.fleet.trained import Workplace
    from reuna.fleet.trust import Ceremony
    from reuna.loop.deploy import Plan

DIFFERENT = 10  #: exit status while the fleet is not as it is wanted; 1 to 5 are errors
WAIT_S = 20  #: one question to the cloud lasts so long at most
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Directory with the desired state, TOML files.")]
Fleet = Annotated[str, typer.Option("--fleet", help="As of `reuna run`.")]
Releases = Annotated[Path, typer.Option("--releases", help="Folder of the catalogue.")]
Trust = Annotated[
    Path | None,
    typer.Option(
        "--trust", help="The fleet's trust folder (default: the cloud's if it is here, else trust)."
    ),
]
RELEASES = Path("releases")
LOOK_S = 3  #: how often a fleet is looked at while it is kept
AWAY_S = 3.0  #: until a cloud that does not answer is asked again


def plan(
    folder: Folder,
    fleet: Fleet,
    releases: Releases = RELEASES,
    trust: Trust = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Show what differs between the desired state and the fleet; status 0: nothing, 10: something."""
    desk = _Desk.open(folder, fleet, releases, trust, runs, None)
    found = desk.plan(desk.look(0, 0))
    _print(desk, found, json)
    if not found.empty:
        raise typer.Exit(DIFFERENT)


def apply(
    folder: Folder,
    fleet: Fleet,
    releases: Releases = RELEASES,
    trust: Trust = None,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, help="Seconds to go on, until all is as wanted."),
    ] = 0.0,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Go on until it is ended, also with what is trained or changed meanwhile."
        ),
    ] = False,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            envvar="REUNA_PASSPHRASE_FILE",
            help="File with the passphrase of the release keys; asked for without it.",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Make the fleet as it is wanted; status 0: it is, 10: something is left, which is said."""
    open_desk = partial(_Desk.open, folder, fleet, releases, trust, runs, passphrase_file)
    desk = open_desk()  # a mistake is an error now, and later only looked at again
    if keep:
        _keep(open_desk, json)
    reality = desk.look(0, 0)
    found = desk.plan(reality)
    if not json:
        _print(desk, found, json)
    made = desk.release(found, json)
    if made:
        reality = desk.look(0, 0)
        found = desk.plan(reality)
    carried, lacking = desk.carry_out(found, reality)
    done = [*made, *carried]
    _say(carried, lacking, json)
    found, more, lacking = _go_on(desk, found, lacking, time.monotonic() + wait, json)
    if json:
        as_json({**desk.as_dict(found), "done": [*done, *more], "lacking": lacking})
    elif not found.empty:
        typer.echo("left:", err=True)
        _print_left(found, err=True)
    if not found.empty:
        raise typer.Exit(DIFFERENT)


@dataclass(frozen=True)
class _Desk:
    """A desired state, the cloud that is asked, and the folders that are written."""

    wanted: Desired
    known: Mapping[str, str]
    operator: Operator
    releases: Path
    trust: Path
    passphrase_file: Path | None
    workplace: Workplace

    @classmethod
    def open(
        cls, folder: Path, fleet: str, releases: Path, trust: Path | None, runs: Path, secret: Path | None
    ) -> _Desk:
        from reuna.cli.run import open_at
        from reuna.fleet.desired import read_directory
        from reuna.fleet.holdings import sites_of
        from reuna.fleet.trained import Workplace

        wanted = read_directory(folder)  # before anything is asked over the network
        opened, operator = open_at(fleet)
        here = Path(opened.setting("trust")) if opened.of("cloud") else Path("trust")
        sources = {project: folder / source for project, source in wanted.sources.items()}
        workplace = Workplace(opened, operator, runs, releases, sources)
        return cls(wanted, sites_of(opened), operator, releases, trust or here, secret, workplace)

    def look(self, after: int, wait_s: int) -> tuple[int, Reality]:
        """What is there, and its mark; as `Operator.releases`."""
        from reuna.fleet.desired import look
        from reuna.fleet.holdings import look as held
        from reuna.fleet.trained import look as trained

        answer, triggered = self.operator.releases(after, wait_s), self.operator.triggers()
        rollouts = self.operator.rollouts() if self.wanted.rollouts else []
        there = held(answer, self.known)
        found = look(self.wanted, there, answer["fleet"], self.releases, triggered, rollouts)
        return int(answer["mark"]), replace(found, trained=trained(self.workplace))

    def release(self, plan: Plan, json: bool) -> list[str]:
        """Make releases of what the cloud trained by itself and whose gates hold; what is done."""
        from reuna.fleet.trained import release

        done, left = release(self.workplace, [each for each in plan.trained if each.state == "ready"])
        _say(done, {}, json)
        for line in left:
            typer.echo(line, err=True)
        return done

    def plan(self, found: tuple[int, Reality]) -> Plan:
        from reuna.fleet.desired import check
        from reuna.loop import deploy

        check(self.wanted, found[1])
        return deploy.plan(self.wanted, found[1])

    def carry_out(self, plan: Plan, found: tuple[int, Reality]) -> tuple[list[str], dict[str, str]]:
        from reuna.fleet.desired import apply as carry_out
        from reuna.fleet.trail import Trail

        if not plan.changes:
            return [], {}
        begun = self._roll_out(plan, found[1])
        if not self.trust.is_dir():
            done, lacking = carry_out(plan, found[1], self.releases, self._ceremony, self.operator)
        else:
            with Trail(self.trust).doing("apply", self.wanted.fleet, changes=str(len(plan.changes))):
                done, lacking = carry_out(plan, found[1], self.releases, self._ceremony, self.operator)
        return [*begun, *done], lacking

    def _roll_out(self, plan: Plan, reality: Reality) -> list[str]:
        """Begin the rollouts of a plan; one that cannot be is said, and stops nothing else."""
        from reuna.fleet.rollout import begin_placed
        from reuna.loop import deploy
        from reuna.loop.rollout import Version

        done = []
        for change in plan.changes:
            if change.what == "rollout" and isinstance(change.after, int):
                placed = deploy.placement_of(self.wanted, change.name)
                release = Version(change.after, reality.catalogue[change.name][change.after])
                assert placed is not None  # else nothing would begin
                source = self.workplace.sources.get(change.name)
                try:
                    begun = begin_placed(
                        self.operator, placed, self.wanted.cohorts, source, release, time.time()
                    )
                    done.append(begun)
                except RolloutProblem as error:
                    typer.echo(f"{change.name} is not rolled out: {error.message}", err=True)
        return done

    def _ceremony(self) -> Ceremony:
        from reuna.cli.passphrase import passphrase
        from reuna.fleet.trust import Ceremony

        return Ceremony(self.trust, time.time(), lambda path: passphrase(path, self.passphrase_file))

    def staged(self) -> dict[str, str]:
        from reuna.fleet.desired import staged

        return staged(self._ceremony())

    def as_dict(self, found: Plan) -> dict[str, Any]:
        from reuna.loop import deploy

        return {"fleet": self.wanted.fleet, **deploy.as_dict(found), "staged": self.staged()}


def _go_on(
    desk: _Desk, found: Plan, lacking: dict[str, str], end: float, json: bool
) -> tuple[Plan, list[str], dict[str, str]]:
    """Rollout after rollout, until all is as wanted, the time is over, or a signature is lacking.

    What was carried out and is not seen is not carried out again: then the cloud has another trust folder.
    """
    mark, done, carried = 0, list[str](), found.changes
    tried = [each for each in found.trained if each.state == "ready"]
    while True:
        left = end - time.monotonic()
        seen = desk.look(mark, math.ceil(min(max(left, 0.0), WAIT_S)) if mark else 0)
        mark, found = seen[0], desk.plan(seen)
        if found.empty or lacking:
            return found, done, lacking
        if ready := [each for each in found.trained if each.state == "ready" and each not in tried]:
            tried += ready
            made = desk.release(found, json)
            done, mark = [*done, *made], 0 if made else mark
        elif found.changes and found.changes != carried:
            more, lacking = desk.carry_out(found, seen)
            _say(more, lacking, json)
            done, mark, carried = [*done, *more], 0, found.changes
        elif left <= 0:
            return found, done, lacking


def _keep(open_desk: Callable[[], _Desk], json: bool) -> NoReturn:
    """Look, and do what there is to do, for ever. The directory is read anew each time.

    A cloud that is away is asked again, and a directory with a mistake read again; both are said once. So
    is a plan, and what it did not change by being carried out is not tried again while nothing else changes.
    """
    from reuna.core.errors import SettingsError, Unreachable

    mark, before, said = 0, None, ""
    while True:
        try:
            desk = open_desk()
            seen = desk.look(mark, LOOK_S if mark else 0)
            found, mark, said = desk.plan(seen), seen[0], ""
            if found == before:
                continue
            before = found
            _tell(desk, found, json)
            made = desk.release(found, json)
            done, lacking = ([], dict[str, str]()) if made else desk.carry_out(found, seen)
            _say(done, lacking, json)
            mark = 0 if made or done else mark
        except (Unreachable, SettingsError) as error:
            if error.message != said:
                said = error.message
                typer.echo(f"{said}; looked at again  [{error.code}]", err=True)
            mark = 0
            time.sleep(AWAY_S)


def _tell(desk: _Desk, found: Plan, json: bool) -> None:
    """The plan, a line of JSON each time."""
    if json:
        typer.echo(jsonlib.dumps(desk.as_dict(found)))
    else:
        _print(desk, found, json)


def _say(done: list[str], lacking: Mapping[str, str], json: bool) -> None:
    if json:
        return
    for line in done:
        typer.echo(line)
    for role, what in lacking.items():
        typer.echo(f"{role} {what}", err=True)


def _print(desk: _Desk, found: Plan, json: bool) -> None:
    if json:
        as_json(desk.as_dict(found))
        return
    from reuna.loop import deploy

    for line in deploy.lines(found):
        typer.echo(line)
    for each in found.trained:
        typer.echo(deploy.trained_line(each))
    _print_left(found)
    for role, what in desk.staged().items():
        typer.echo(f"… {role} {what}")
    counts = deploy.as_dict(found)["counts"]
    if found.empty:
        typer.echo(f"{desk.wanted.fleet} is as wanted")
    else:
        typer.echo(
            f"{counts['add']} to add, {counts['change']} to change, {counts['remove']} to remove; "
            f"{counts['going']} rollouts go on, {counts['drift']} nodes differ"
        )


def _print_left(found: Plan, err: bool = False) -> None:
    for each in found.going:
        typer.echo(f"… rollout of {each.project} {each.version} goes on: reuna rollout status", err=err)
    for node in found.drift:
        why = f"refused: {node.why}" if node.why else "does not hold it yet"
        typer.echo(f"! {node.node} at {node.site}: {node.project} {node.version} {why}", err=err)
