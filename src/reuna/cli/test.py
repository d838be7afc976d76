"""``reuna test``: the project's pytest and a simulated federation with faults; no server, no socket."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from reuna.cli.output import as_json
from reuna.fleet.ending import say_stopping, until_done

if TYPE_CHECKING:
    from reuna.fleet.testing import Findings
    from reuna.sim.judge import Judged

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
STYLES = {"passed": "green", "warned": "yellow", "failed": "red", "left out": "dim"}


def run_tests(
    project: Annotated[Path, typer.Argument(help="Project folder, with reuna.toml.")] = Path(),
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with one sub-folder per node (default: PROJECT/data)."),
    ] = None,
    faults: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="NAME", help="Instead of test.faults; may be given again."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Instead of run.seed.")] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="Instead of test.rounds.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="What would be a warning fails; all of test.faults are required.")
    ] = False,
    pytest: Annotated[
        bool, typer.Option("--pytest/--no-pytest", help="Also run the project's own tests.")
    ] = True,
    sets: Annotated[list[str] | None, typer.Option("--set", help="One setting, NAME=VALUE.")] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write all cases as JUnit XML.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a summary for a merge request.")
    ] = None,
    json: Json = False,
) -> None:
    """Run the project's own pytest, then a simulated federation with faults; status 1: something failed."""
    from reuna.core.scenarios import FAULTS
    from reuna.fleet.testing import Asked, as_dict, carry_out, prepare

    _make_folders(junit, markdown)
    flags = [
        *(sets or []),
        *([] if faults is None else [f"test.faults={','.join(faults)}"]),
        *([] if seed is None else [f"run.seed={seed}"]),
        *([] if rounds is None else [f"test.rounds={rounds}"]),
        *([f"test.required={','.join(FAULTS)}"] if strict else []),
    ]
    with Steps(quiet=json) as steps:
        ready = prepare(Asked(project, data, flags, pytest))
        found = until_done(carry_out(ready, steps.watch), stopping=steps.stopping)
    _write(found, junit, markdown)
    if json:
        as_json(as_dict(found))
    else:
        _print(found)
    if not found.passed:
        raise typer.Exit(1)


def _make_folders(*files: Path | None) -> None:
    """Those that the files go to, before a minute is spent. Raises `NotUsable`, `DiskFull`."""
    from reuna.adapters.files import storage_error
    from reuna.core.errors import NotUsable

    for file in files:
        if file is None:
            continue
        try:
            file.absolute().parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotUsable(f"{file} cannot be written: a folder on its way is a file") from error
        except OSError as error:
            raise storage_error(error, file) from error
        if file.is_dir():
            raise NotUsable(f"{file} cannot be written: it is a folder")


def _write(found: Findings, junit: Path | None, markdown: Path | None) -> None:
    from reuna.adapters.files import replace_file
    from reuna.fleet import testing
    from reuna.fleet.testing_page import markdown as page

    if junit is not None:
        replace_file(junit, testing.junit(found), 0o644)
    if markdown is not None:
        replace_file(markdown, page(found).encode(), 0o644)


def _print(found: Findings) -> None:
    """A line for each scenario, then everything in one."""
    from rich.console import Console
    from rich.text import Text

    from reuna.core.foreign import readable

    if found.own is not None and found.own.bad:
        print("\n".join(readable(line) for line in found.own.printed.splitlines()), file=sys.stderr)
    console = Console()
    if found.own is not None:
        word = "failed" if found.own.bad else "passed"
        console.print(_line(word, "pytest", found.own.said), soft_wrap=True)
    for each in found.scenarios:
        console.print(_line(each.verdict.status, each.played.name, _about(each)), soft_wrap=True)
    word = "passed" if found.passed else "failed"
    warned = f", {found.warnings} with a warning" if found.warnings else ""
    about = f"seed {found.settings.seed}, {found.settings.rounds} rounds, {found.seconds:.1f} s"
    console.print(Text(f"{word}{warned}; {about}", style="bold"), soft_wrap=True)


def _line(status: str, name: str, why: str) -> Any:
    from rich.text import Text

    from reuna.core.foreign import readable

    return Text.assemble((f"{status:8}", STYLES[status]), f"  {name:12}  {readable(' '.join(why.split()))}")


def _about(each: Judged) -> str:
    return f"{each.played.site}: {each.verdict.why}" if each.played.site else each.verdict.why


class Steps:
    """A line on standard error that follows what is done: which scenario, which round."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._quiet = quiet
        self._doing = "checking the project"
        self._rounds = ""
        self._total = 0
        self._began = time.monotonic()
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
        """Say so at once."""
        self._doing, self._rounds = "stopping…", ""
        if not self._live.is_started:
            say_stopping()

    def watch(self, event: dict[str, Any]) -> None:
        """Take in what happened."""
        if event["what"] == "round":
            self._rounds = f"  round {event['round']} of {self._total}"
        elif event["what"] == "pytest":
            self._begin("running pytest", 0)
        elif event["what"] == "scenario":
            self._begin(f"playing {event['name']} {event['site']}".strip(), event["rounds"])

    def _begin(self, doing: str, rounds: int) -> None:
        self._doing, self._rounds, self._total = doing, "", rounds
        if not self._quiet and not self._console.is_terminal:
            self._console.print(doing, highlight=False)

    def _render(self) -> Any:
        from rich.text import Text

        return Text(f"{self._doing}{self._rounds}  {time.monotonic() - self._began:.0f} s")
