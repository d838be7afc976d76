"""Labels that come later: read from the folders that the site declared, and held against stored answers.

    folder of tables ── labels ── store of answers
                          └────── STATE/labels: which were taken, and the errors of each release

A table is read once it has not changed from one look to the next. A label whose time the sources have not
passed yet waits. Each counts once, whatever ends the process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.answer_store import StoredAnswers
from reuna.adapters.data_folder import KINDS
from reuna.adapters.label_store import LabelStore
from reuna.adapters.tables import Table, read_table, require
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import DataError, NotUsable, ReunaError
from reuna.core.label_settings import LabelSettings
from reuna.core.label_settings import labels_of as labels_of_settings
from reuna.core.labels import Errors, Judging, Label, Rising, judged
from reuna.core.outcomes import Outcome
from reuna.core.ports import Clock, Offload
from reuna.core.settings import parse
from reuna.core.source_settings import SOURCES
from reuna.core.source_tables import times_ns
from reuna.core.sources import ns_of

log = logging.getLogger("reuna.labels")
LABELS = "labels"  #: in a node's state folder
TOGETHER = 256  #: labels in a transaction
MOST_WAITING = 100_000  #: labels of a folder that wait in memory; a table with more is read again

TOLERANCE_NS = 1000  #: by which times in a table miss, for ISO 8601 and numbers hold no more
MOST_SAID = 1000  #: kinds of trouble that are remembered

Mark = tuple[int, int, int]  #: inode, bytes, ns of the last change of a file


class Watch(Protocol):
    """Who is told of errors; `reuna.edge.monitor.Monitor`."""

    def judging(self, project: str) -> Judging | None:
        """None while no release of the project has answered."""

    async def judged(self, project: str, errors: dict[str, Errors]) -> None:
        """Errors by release."""


class Labelling:
    """One folder of labels. ``answers``: folder of the store of answers."""

    def __init__(
        self,
        settings: LabelSettings,
        store: LabelStore,
        answers: Path,
        watch: Watch,
        clock: Clock,
        offload: Offload,
    ) -> None:
        self._settings = settings
        self._store = store
        self._answers = answers
        self._watch = watch
        self._clock = clock
        self._offload = offload
        self._seen: dict[Path, Mark] = {}  #: of each file at the last look
        self._read: dict[Path, Mark] = {}  #: of those that were read
        self._waiting = set[Label]()
        self._said = set[str]()

    async def keep(self) -> None:
        """Look now and then, until cancelled. What goes wrong is said in the log, and tried again."""
        while True:
            try:
                await self.look()
            except ReunaError as error:
                self._say(f"{error.code} {error}")
            await self._clock.sleep(self._settings.every_s)

    async def look(self) -> None:
        """Take what is new. Raises `StorageError`, `DataError`."""
        judging = self._watch.judging(self._settings.project)
        if judging is None:
            return
        found = await self._offload(lambda: self._take(judging))
        if found:
            await self._watch.judged(self._settings.project, found)

    def _take(self, judging: Judging) -> dict[str, Errors]:
        for label in self._new():
            self._waiting.add(label)
        if not self._waiting:
            return {}
        try:
            answers = StoredAnswers(self._answers)
        except NotUsable:
            return {}
        try:
            return self._judge(judging, answers)
        finally:
            answers.close()

    def _judge(self, judging: Judging, answers: StoredAnswers) -> dict[str, Errors]:
        """Hold every label that is due against its answers; the errors of releases that were touched."""
        settings, newest_ns = self._settings, answers.newest_ns(self._settings.project)
        if newest_ns is None:
            return {}
        waiting = {each for each in self._waiting if each.last_ns + TOLERANCE_NS >= newest_ns}
        due = self._store.stored.new(settings.name, self._waiting - waiting)
        errors = self._store.stored.errors().get(settings.project, {})
        touched = dict[str, Errors]()
        for at in range(0, len(due), TOGETHER):
            some, stray = due[at : at + TOGETHER], 0
            for label in some:
                outcomes = list(_judgeable(self._of(label, judging, answers)))
                stray += not outcomes
                for each in outcomes:
                    before = touched.get(each.release) or errors.get(each.release) or Errors()
                    touched[each.release] = _after(judging.rule, before, each, label)
            self._store.take(settings.name, settings.project, some, stray, touched)
        self._waiting = waiting
        return touched

    def _of(self, label: Label, judging: Judging, answers: StoredAnswers) -> Iterable[Outcome]:
        """The answers that a label is of."""
        project, end_ns = self._settings.project, label.last_ns + TOLERANCE_NS
        if label.first_ns < label.last_ns:
            return answers.within(project, label.first_ns - TOLERANCE_NS, end_ns)
        within_ns = ns_of(self._settings.within_s) or judging.step_ns
        found = answers.at(project, end_ns, within_ns + 2 * TOLERANCE_NS)
        return [] if found is None else [found]

    # --- files -----------------------------------------------------------------------------------

    def _new(self) -> Iterator[Label]:
        """Labels of the files that are new, or have changed, and are whole."""
        files = self._files()
        self._seen = {path: mark for path, mark in self._seen.items() if path in files}
        self._read = {path: mark for path, mark in self._read.items() if path in files}
        for path in files:
            if len(self._waiting) >= MOST_WAITING:
                self._say(f"{MOST_WAITING} labels wait for answers; no more are read until then")
                return
            try:
                mark = _mark(path)
                whole = self._seen.get(path) == mark
                self._seen[path] = mark
                if whole and self._read.get(path) != mark:
                    found, lost = labels_of(path, self._settings)
                    self._read[path] = mark
                    yield from found
                    if lost:
                        self._say(f"{path}: {lost} labels have no time that can be read")
            except OSError as error:
                self._say(f"{path}: {error.strerror}")
            except DataError as error:
                self._read[path] = mark
                self._say(f"{error.code} {error}")

    def _files(self) -> Sequence[Path]:
        folder = Path(self._settings.folder)
        try:
            return sorted(x for x in folder.iterdir() if x.suffix in KINDS and not x.name.startswith("."))
        except OSError as error:
            self._say(f"{folder}: {error.strerror}")
            return []

    def _say(self, what: str) -> None:
        """In the log, the same once."""
        if what not in self._said:
            log.warning("labels of %s: %s", self._settings.name, what)
        self._said = {*self._said, what} if len(self._said) < MOST_SAID else {what}


def declared(sources: str) -> tuple[LabelSettings, ...]:
    """The folders of labels that a file of sources says. Raises `SettingsError`."""
    return labels_of_settings(parse(SOURCES, [read_toml(Path(sources))]))


def labels_of(path: Path, settings: LabelSettings) -> tuple[list[Label], int]:
    """The labels of a table, and how many have no time; a row without a label is passed over.

    Raises `DataError` that names the file, and column or row.
    """
    table = read_table(path)
    first, timed = _times(table, settings.time)
    last, ended = _times(table, settings.until) if settings.until else (first, timed)
    values = table.matrix([settings.label])[:, 0].astype(np.float64)
    labelled, sound = np.isfinite(values), timed & ended & (first <= last)
    found = np.flatnonzero(labelled & sound).tolist()
    labels = [Label(int(last[at]), int(first[at]), float(values[at])) for at in found]
    return labels, int((labelled & ~sound).sum())


def _times(table: Table, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    require(table, [name])
    column = table.find(name) or name
    return times_ns(name, table.unit(column), table.columns[column])


def _mark(path: Path) -> Mark:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


async def keep_all(
    declared: Sequence[LabelSettings],
    folder: Path,
    answers: Path,
    watch: Watch,
    clock: Clock,
    offload: Offload,
) -> None:
    """Take labels from every folder that is declared, until cancelled. ``folder``: the node's state folder.

    Raises `StorageError`.
    """
    store = await offload(lambda: LabelStore(folder / LABELS))
    try:
        for project, errors in (await offload(store.stored.errors)).items():
            await watch.judged(project, errors)
        each = [Labelling(one, store, answers, watch, clock, offload).keep() for one in declared]
        await asyncio.gather(*each)
    finally:
        store.close()


def _after(rule: Rising, before: Errors, said: Outcome, label: Label) -> Errors:
    return judged(rule, before, said.answer or 0.0, label.value, classes=len(said.output) > 1)


def _judgeable(found: Iterable[Outcome]) -> Iterator[Outcome]:
    """What a model itself answered; the safe answer is none of its."""
    return (each for each in found if each.state != "safe" and each.answer is not None)
