"""``reuna demo`` as a person sees it: chapters, the commands of each, what came of them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from reuna.cli.output import as_json
from reuna.cli.view import Progress, print_result
from reuna.fleet.ending import say_stopping, until_done

if TYPE_CHECKING:
    from reuna.demo.story import Told
    from reuna.fleet.session import Finished, Job, Watch

PAGE = "story.html"  #: in the first run's folder
PLAIN_S = 10.0  #: without a terminal it is said so often what lasts


def tell(job: Job, port: int, json: bool) -> None:
    """Tell the whole story; at its end the page that shows it."""
    from reuna.adapters.nats_server import find_server
    from reuna.demo.story import Story
    from reuna.demo.story_page import render

    find_server()
    folder = job.nodes[0].folder.parent / "story"
    folder.mkdir()
    try:
        with Spoken(json) as scene:
            told, first, again = until_done(Story(job, folder, scene, port).tell(), stopping=scene.stopping)
    finally:
        with suppress(OSError):  # something is in it, unless it was cancelled
            job.runs.rmdir()
    page = first.folder / PAGE
    page.write_text(render(told, first.result, again.result), encoding="utf-8")
    if json:
        as_json({"training": first.result, "story": msgspec.to_builtins(told), "page": str(page)})
    else:
        _end(told, page)


class Spoken:
    """The scene of a `Story`, told on the terminal. ``quiet``: nothing is said."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._console, self._errors = Console(quiet=quiet), Console(stderr=True, quiet=quiet)
        self._status: Status | None = None
        self._began = self._said = time.monotonic()
        self._progress: Progress | None = None
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._still()

    def chapter(self, title: str) -> None:
        """A heading with its number and the time."""
        self._still()
        self._number += 1
        clock = f"{time.monotonic() - self._began:.0f} s"
        head = Text(f"\n{self._number}  {title}", "bold")
        head.append(f"  {clock}", "dim")
        self._console.print(head, soft_wrap=True)

    def command(self, *words: str) -> None:
        """What a person would type."""
        self._still()
        self._console.print(Text(f"   $ {shlex.join(words)}", "cyan"), soft_wrap=True)

    def line(self, text: str) -> None:
        """What came of it."""
        self._still()
        self._console.print(Text(f"   {text}"), soft_wrap=True)

    def doing(self, text: str) -> None:
        """What goes on now."""
        if self._quiet:
            return
        if self._errors.is_terminal:
            if self._status is None:
                self._status = self._errors.status(text)
                self._status.start()
            self._status.update(Text(text))
        elif time.monotonic() - self._said > PLAIN_S:
            self._said = time.monotonic()
            self._errors.print(Text(f"   … {text}"), soft_wrap=True)

    @contextmanager
    def watching(self, job: Job) -> Iterator[Watch]:
        """What hears a run's events, while it goes on."""
        self._still()
        with Progress(job, quiet=self._quiet) as progress:
            self._progress = progress
            yield progress.watch
        self._progress = None

    def trained(self, finished: Finished) -> None:
        """The comparison of a run."""
        if not self._quiet:
            print_result(finished.result, finished.folder)

    def stopping(self) -> None:
        """Say so at once: it takes a few seconds until every process has ended."""
        self._still()
        if self._progress is not None:
            self._progress.stopping()
        else:
            say_stopping()

    def _still(self) -> None:
        self._said = time.monotonic()
        if self._status is not None:
            self._status.stop()
            self._status = None


def _end(told: Told, page: Path) -> None:
    """The last lines: what was before and after, per plant, and where the page is."""
    from reuna.demo.story import mean

    title = "windows named rightly, live"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for head in ("plant", "before the drift", "after it, release 1", f"release {told.champion}", "runs now"):
        table.add_column(head, justify="left" if head == "plant" else "right", no_wrap=True)
    for name, version in sorted(told.edges.items()):
        shares = (told.before[name], told.drifted[name], told.after[name])
        table.add_row(name, *map(_percent, shares), f"release {version}")
    table.add_section()
    means = (mean(each) for each in (told.before, told.drifted, told.after))
    table.add_row("mean", *map(_percent, means), "", style="bold")
    console = Console()
    console.print()
    console.print(table)
    same = {*told.edges.values()} == {told.champion}
    where = "every edge" if same else "some edges"
    lines = [
        f"drift detected after {told.detected_s:.0f} s",
        f"release {told.champion} on {where}, {told.recovered_s:.0f} s after the drift, without a hand",
        f"page: {page}",
    ]
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
