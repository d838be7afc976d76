"""What a person sees of a run: live progress, then a table per site."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from reuna.core.errors import NotApproved
from reuna.core.foreign import readable
from reuna.core.records import AWAY, SPARED, UNHEARD
from reuna.fleet.ending import say_stopping
from reuna.fleet.gates import SIGNS, grid, held, sentence
from reuna.fleet.report import (
    NO_ROWS,
    PLAIN_NUMBERS,
    contract_sentences,
    link_rows,
    metric_names,
    size,
    source_words,
    wall_times,
    warnings,
)
from reuna.loop.train import AWAITED
from reuna.loop.validate import METHODS

if TYPE_CHECKING:
    from reuna.fleet.session import Job

BAR = 30


class Progress:
    """A few lines that follow the run: phase, rounds, who took part, loss, bytes."""

    def __init__(self, job: Job, quiet: bool) -> None:
        self._job = job
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._phase = "waiting for cloud, fogs and edges"
        self._round: dict[str, Any] = {}
        self._first_loss: float | None = None
        self._heard: Counter[str] = Counter()
        self._excuses: set[tuple[str, str]] = set()
        self._began = time.monotonic()
        self._said = 0
        self._told = ""
        self.run = ""  #: once the cloud has it, and goes on with it by itself
        self._silent: set[str] = set()  #: nodes of which it was said why they gave nothing
        self._live = Live(
            get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def stopping(self) -> None:
        """Say so at once: it takes a few seconds until every process has ended."""
        self._phase = "stopping…"
        if not self._live.is_started:
            say_stopping()

    def watch(self, event: dict[str, Any]) -> None:
        """Take in one event of the run."""
        what = event["what"]
        self._heard[what] += 1
        if what == "round":
            self._round = event["fields"]
            self._phase = "training"
            if self._first_loss is None:
                self._first_loss = self._round["loss"]
        elif what == "handed over":
            self.run = event["run"]
        self._phase = PHASES.get(what, self._phase)
        if what in NOTES:
            self.note(NOTES[what](event))
        elif what == "sat out" and event["fields"].get("code") != NotApproved.code:
            self._sat_out(event)
        if what in ("round", "short"):
            self._note_absent(event["fields"].get("absent", ""))
        if not self._quiet and not self._console.is_terminal:
            self._plain(what)

    def _sat_out(self, event: dict[str, Any]) -> None:
        """The first time of each reason; a round that is tried again hears the same one again."""
        said = (event["node"], event["fields"]["reason"])
        self._silent.add(event["node"])
        if said not in self._excuses:
            self._excuses.add(said)
            self.note(f"{said[0]} sat out round {event['round']}: {said[1]}")

    def _note_absent(self, absent: str) -> None:
        """Each node once, unless its own event has said more: its site may keep logs to itself."""
        for each in filter(None, absent.split(", ")):
            node, _, reason = each.partition(": ")
            if node not in self._silent and reason not in (UNHEARD, AWAY, SPARED, AWAITED):
                self._silent.add(node)
                self.note(f"{node} gave nothing: {reason}; details in that node's own log")

    def note(self, text: str) -> None:
        """One line that stays, above the picture."""
        if not self._quiet:
            self._console.print(Text(text, style="yellow"), soft_wrap=True)

    def _plain(self, what: str) -> None:
        """Without a terminal: a line now and then instead of a picture."""
        number = int(self._round.get("round", 0))
        total = self._job.settings.rounds
        if what != "round" and self._phase != self._told:
            self._told = self._phase
            self._console.print(f"{time.monotonic() - self._began:5.1f} s  {self._phase}", highlight=False)
        elif what == "round" and number >= self._said + max(1, total // 8):
            self._said = number
            self._console.print(Text(self._line()), highlight=False)

    def _line(self) -> str:
        done, total = int(self._round.get("round", 0)), max(1, self._job.settings.rounds)
        filled = BAR * done // total
        bar = "█" * filled + "░" * (BAR - filled)
        part = f"{self._round.get('took_part', 0)}/{len(self._job.nodes)} nodes"
        loss = f"loss {self._first_loss or 0:.3f} → {self._round.get('loss', 0):.3f}"
        sent = size(float(self._round.get("bytes", 0)))
        return f"{bar} round {done}/{total}  {part}  {loss}  {sent} a round"

    def _render(self) -> Text:
        seconds = time.monotonic() - self._began
        lines = [f"{self._job.settings.name}  {self._phase}  {seconds:.0f} s", self._line()]
        if self._round.get("absent"):
            lines.append(f"absent: {self._round['absent']}")
        return Text("\n".join(lines))


def approval_needed(run: str, fields: Mapping[str, Any]) -> str:
    """What to tell whom when code waits for officers."""
    code = fields["bundle"]
    return (
        f"code {code} waits for the officers of {fields['nodes']}\n"
        f"  on one node of each site:   reuna code review FOLDER\n"
        f"  then each of its officers:  reuna code approve {code} --policy POLICY --key KEY\n"
        f"  {run} then goes on by itself; to give it up: reuna stop {run} --fleet FILE"
    )


def goes_on(run: str, at: str, job: Job) -> str:
    """What to tell who has stopped watching a run of a standing fleet."""
    words = ["--fleet", at, *(["--project", job.named or str(job.project)] if job.build is None else [])]
    return (
        f"{run} goes on at the fleet without you\n"
        f"  its result:   reuna fetch {run} {shlex.join(words)}\n"
        f"  to end it:    reuna stop {run} {shlex.join(words[:2])}"
    )


def vouching_needed(fields: Mapping[str, Any]) -> str:
    """What to tell whom when the fleet's code role has not signed a run's code."""
    add = f"reuna trust add {fields['project']} --kind code --folder {fields['trust']}"
    return (
        f"code {fields['bundle']} is not signed by the fleet's code role\n  where its keys are:         {add}"
    )


NOTES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "away": lambda _: "the cloud does not answer; it is asked again until it does (Ctrl-C ends the waiting)",
    "back": lambda _: "the cloud answers again",
    "waiting": lambda event: f"waits for a second person: reuna proposals approve {event['proposal']}",
    "waits": lambda event: approval_needed(event["run"], event["fields"]),
    "signed": lambda event: (
        f"code {event['fields']['bundle'][:12]}… is signed with the code key in this fleet's folder"
    ),
    "unsigned": lambda event: vouching_needed(event["fields"]),
}
PHASES = {
    "waiting": "waiting for a second person",
    "waits": "waiting for officers of sites",
    "resumed": "goes on where it ended",
    "local": "each node alone, for comparison: done",
    "evaluate": "evaluated on every node",
    "centralised": "all rows in one place, for comparison",
    "closing": "writing the result",
    "scaling": "one data set on eight equal devices",
}


def print_result(result: dict[str, Any], folder: Path | None = None) -> None:
    """The table per site, the means, what left, memory, and where the page is."""
    console = Console()
    console.print(site_table(result))
    if "gates" in result:
        print_gates(result["gates"])
    if link_rows(result):
        console.print(link_table(result))
    console.print(_sentences(result, folder), highlight=False)


def print_gates(judged: Mapping[str, Any]) -> None:
    """Site by gate, and what that means. ``judged`` as in result.json."""
    console = Console()
    console.print(gate_table(judged["verdicts"]))
    console.print(f"gates: {sentence(judged)}", highlight=False)


def gate_table(verdicts: list[dict[str, Any]]) -> Table:
    """A row per site, a column per gate."""
    columns = {each["gate"]: each["bound"] for each in verdicts}
    table = Table(title="gates", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("site", no_wrap=True)
    for name, bound in columns.items():
        table.add_column(f"{name} {bound:g}", justify="right", overflow="fold")
    for site, row in grid(verdicts):
        cells = [Text(f"{held(each)} {SIGNS[each['outcome']]}", COLOURS[each["outcome"]]) for each in row]
        table.add_row(site, *cells)
    return table


def site_table(result: dict[str, Any]) -> Table:
    """A row per site, a column per metric with one number for each method, the mean below."""
    names = metric_names(result)
    methods = [m for m in METHODS if any(row.get(m) for row in result["sites"])]
    title = f"{result['project']}: {', '.join(SHORT[method] for method in methods)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("site", no_wrap=True)
    for name in names:
        unit = "" if name in PLAIN_NUMBERS else " %"
        table.add_column(name.replace("_", " ") + unit, justify="right", no_wrap=True)
    worst = (result.get("worst_site") or {}).get("site")
    for row in result["sites"]:
        cells = [_cell(name, [row.get(method, {}).get(name) for method in methods]) for name in names]
        table.add_row(row["site"], *cells, style="yellow" if row["site"] == worst else "")
    table.add_section()
    means = [_cell(name, [_mean(result, name, method) for method in methods]) for name in names]
    table.add_row("mean", *means, style="bold")
    return table


def link_table(result: dict[str, Any]) -> Table:
    """A row per link: payload up and down."""
    title = "payload over each link"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("child – parent", no_wrap=True)
    table.add_column("up", justify="right")
    table.add_column("down", justify="right")
    for child, parent, up, down in link_rows(result):
        table.add_row(f"{child} – {parent}", size(up), size(down))
    return table


COLOURS = {"pass": "green", "fail": "bold red", "open": "yellow", "silent": "yellow"}
SHORT = {"local": "alone", "federated": "federated", "centralised": "centralised"}


def _cell(name: str, values: list[float | None]) -> str:
    return " ".join(_number(name, value) for value in values)


def _number(name: str, value: float | None) -> str:
    """At most four signs for a fraction, so that the table fits 80 columns."""
    if value is None:
        return "   –"
    if name in PLAIN_NUMBERS:
        return f"{value:5.2f}"
    return f"{100 * value:4.1f}" if value < 0.9995 else " 100"


def _mean(result: dict[str, Any], name: str, method: str) -> float | None:
    values = [row[method][name] for row in result["sites"] if name in row.get(method, {})]
    return sum(values) / len(values) if values else None


def _wall(result: dict[str, Any]) -> list[str]:
    times = ", ".join(f"{SHORT[method]} {seconds:.1f} s" for method, seconds in wall_times(result))
    return [f"wall time with evaluation: {times}"] if times else []


def _sentences(result: dict[str, Any], folder: Path | None) -> str:
    kinds = ", ".join(f"{kind} {size(count)}" for kind, count in sorted(result["bytes_by_kind"].items()))
    peaks = sorted(result["processes"], key=lambda p: -p["peak_mib"])[:3]
    lines = [
        f"left the nodes: {kinds}\n{NO_ROWS}"
        if kinds
        else "what left each node stands in its own ledger: reuna ledger report",
        *(
            ["most memory: " + ", ".join(f"{p['name']} {p['peak_mib']:.0f} MiB" for p in peaks)]
            if peaks
            else []
        ),
        *_wall(result),
        f"{result['rounds']} rounds, {result['wall_s']:.1f} s in all; model {result['model_digest'][:16]}",
    ]
    lines += source_words(result)
    for row in result["sites"]:
        for node, reason in row.get("absent", {}).items():
            lines.append(f"{node} gave nothing: {reason}; details in that node's own log")
    lines += [escape(readable(line)) for line in contract_sentences(result)]
    lines += [line[0].lower() + line[1:] for line in warnings(result)]
    for each in result.get("refused_by_policy", []):
        lines.append(f"{each['node']}'s policy refused {each['kind']}: {each['why']}")
    scaling = result.get("scaling")
    if scaling:
        lines.append(scaling["sentence"])
    if folder is not None:
        lines.append(f"report: {folder / 'report.html'}   again: reuna show {result['run']}")
    return "\n".join(lines)
