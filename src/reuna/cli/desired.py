"""``reuna plan`` and ``reuna apply``: a directory of TOML in git, and the fleet that it describes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reuna.cli.output import as_json
from reuna.cli.runs import Json

if TYPE_CHECKING:
    from reuna.core.desired import Desired, Reality
    from reuna.fleet.client import Operator
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


def plan(
    folder: Folder,
    fleet: Fleet,
    releases: Releases = RELEASES,
    trust: Trust = None,
    json: Json = False,
) -> None:
    """Show what differs between the desired state and the fleet; status 0: nothing, 10: something."""
    desk = _Desk.open(folder, fleet, releases, trust, None)
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
        typer.Option("--wait", min=0, help="Seconds to go on, wave after wave, until all is as wanted."),
    ] = 0.0,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--passphrase-file",
            envvar="REUNA_PASSPHRASE_FILE",
            help="File with the passphrase of the release keys; asked for without it.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make the fleet as it is wanted; status 0: it is, 10: something is left, which is said."""
    desk = _Desk.open(folder, fleet, releases, trust, passphrase_file)
    reality = desk.look(0, 0)
    found = desk.plan(reality)
    if not json:
        _print(desk, found, json)
    done, lacking = desk.carry_out(found, reality)
    _say(done, lacking, json)
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

    @classmethod
    def open(cls, folder: Path, fleet: str, releases: Path, trust: Path | None, secret: Path | None) -> _Desk:
        from reuna.cli.run import open_at
        from reuna.fleet.desired import read_directory
        from reuna.fleet.holdings import sites_of

        wanted = read_directory(folder)  # before anything is asked over the network
        opened, operator = open_at(fleet)
        here = Path(opened.setting("trust")) if opened.of("cloud") else Path("trust")
        return cls(wanted, sites_of(opened), operator, releases, trust or here, secret)

    def look(self, after: int, wait_s: int) -> tuple[int, Reality]:
        """What is there, and its mark; as `Operator.releases`."""
        from reuna.fleet.desired import look
        from reuna.fleet.holdings import look as held

        answer, scheduled = self.operator.releases(after, wait_s), self.operator.schedules()
        return int(answer["mark"]), look(
            self.wanted, held(answer, self.known), answer["fleet"], self.releases, scheduled
        )

    def plan(self, found: tuple[int, Reality]) -> Plan:
        from reuna.fleet.desired import check
        from reuna.loop import deploy

        check(self.wanted, found[1])
        return deploy.plan(self.wanted, found[1], time.time())

    def carry_out(self, plan: Plan, found: tuple[int, Reality]) -> tuple[list[str], dict[str, str]]:
        from reuna.fleet.desired import apply as carry_out
        from reuna.fleet.trail import Trail

        if not plan.changes:
            return [], {}
        if not self.trust.is_dir():
            return carry_out(plan, found[1], self.releases, self._ceremony, self.operator)
        with Trail(self.trust).doing("apply", self.wanted.fleet, changes=str(len(plan.changes))):
            return carry_out(plan, found[1], self.releases, self._ceremony, self.operator)

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
    """Wave after wave, until all is as wanted, the time is over, or a signature is lacking.

    What was carried out and is not seen is not carried out again: then the cloud has another trust folder.
    """
    mark, done, carried = 0, list[str](), found.changes
    while True:
        left = end - time.monotonic()
        seen = desk.look(mark, _nap(found, left) if mark else 0)
        mark, found = seen[0], desk.plan(seen)
        if found.empty or lacking:
            return found, done, lacking
        if found.changes and found.changes != carried:
            more, lacking = desk.carry_out(found, seen)
            _say(more, lacking, json)
            done, mark, carried = [*done, *more], 0, found.changes
        elif left <= 0:
            return found, done, lacking


def _nap(found: Plan, left: float) -> int:
    """Seconds until there is something to look at, when nothing changes meanwhile."""
    ends = [max(each.until - time.time(), 0.0) for each in found.waiting if each.until is not None]
    return math.ceil(min([max(left, 0.0), WAIT_S, *ends]))


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
    _print_left(found)
    for role, what in desk.staged().items():
        typer.echo(f"… {role} {what}")
    counts = deploy.as_dict(found)["counts"]
    if found.empty:
        typer.echo(f"{desk.wanted.fleet} is as wanted")
    else:
        typer.echo(
            f"{counts['add']} to add, {counts['change']} to change, {counts['remove']} to remove; "
            f"{counts['waiting']} waves wait, {counts['drift']} nodes differ"
        )


def _print_left(found: Plan, err: bool = False) -> None:
    for each in found.waiting:
        until = ""
        if each.until is not None:
            until = time.strftime("; until %Y-%m-%d %H:%M:%S UTC", time.gmtime(each.until))
        named = ", ".join(each.nodes)
        typer.echo(
            f"… wave {each.number} of {each.placement}, {each.wave}, waits for {named}{until}", err=err
        )
    for node in found.drift:
        why = f"refused: {node.why}" if node.why else "does not hold it yet"
        typer.echo(f"! {node.node} at {node.site}: {node.project} {node.version} {why}", err=err)
