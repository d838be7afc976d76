"""The worker's side of inference: recordings held against the contract, mended, cut and answered.

Features come from the project's own ``load``, as in training: it reads the node's folder, in which
``test`` holds the recordings, mended by the rules that the release declares. It sees none of their labels:
the first label of the node's own tables stands in every row, so that no answer can depend on one.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from reuna.adapters.conformity import Judged, columns_of, judge_tables
from reuna.adapters.data_folder import folder_tables
from reuna.adapters.files import storage_error
from reuna.adapters.onnx_export import one_by_one
from reuna.adapters.project import Entry, blame_project, load_entry
from reuna.adapters.tables import Table, read_table
from reuna.adapters.worker.messages import Answer, Answered, Answers, Predict
from reuna.core import fallback
from reuna.core.conformity import seconds_of
from reuna.core.contract import Contract, contract
from reuna.core.data import Dataset
from reuna.core.errors import DataError, LearnerError
from reuna.core.fallback import Fallback, judge_windows
from reuna.core.outcomes import Window
from reuna.core.records import Setting

SPLIT = "test"  #: of a node's folder, with the recordings
CHECKED = 12  #: windows of a recording that are loaded alone, if that is asked for
WHOLE = ("present", "type", "unit", "sampling")  #: rules of a table; those of single cells are the fallback's


@dataclass(frozen=True)
class Recording:
    """A recording as ``load`` is given it, and what the rules say of each of its windows."""

    table: Table
    windows: Sequence[Window]


def predict(project: Path, folder: Path, request: Predict) -> Answer:
    """Answer every window of the recordings; raises as `reuna.adapters.worker.bench.Bench` does."""
    agreed, rules = contract(request.settings), fallback.fallback(request.settings)
    tables = folder_tables(folder)
    judged = _judge(tables, agreed)
    recordings = list(_recordings(tables, agreed, rules))
    entry = load_entry(project, request.entry)
    with blame_project(project, "loading the recordings"):
        data = entry.load_instead(folder, request.settings, [each.table for each in recordings])
    x = features(data, recordings)
    if request.check:
        with blame_project(project, "loading windows one by one"):
            _check_windows(entry, folder, request.settings, recordings, x)
    graph = read_lent(Path(request.graph))
    windows = list(_answered(recordings, agreed, graph, x))
    names, rows = [each.table.path.name for each in recordings], [len(each.table) for each in recordings]
    _write(Path(request.out), Answers(names, rows, cut(agreed)[0], windows))
    return Answer(lines=judged.lines, bins=judged.bins)


def _judge(tables: Mapping[str, Sequence[Path]], agreed: Contract) -> Judged:
    """The contract first: the node's own tables as in training, of recordings what no rule can mend.

    Raises `ContractBroken`. The counts are those of the recordings.
    """
    own = {split: paths for split, paths in tables.items() if split != SPLIT}
    judge_tables(own, agreed).refuse(agreed)
    agreed = without_label(agreed)
    judged = judge_tables({"all": tables.get(SPLIT, ())}, agreed)
    replace(judged, lines=tuple(each for each in judged.lines if each.rule in WHOLE)).refuse(agreed)
    return judged


def without_label(agreed: Contract) -> Contract:
    """What is asked of a recording that is to be predicted: nobody knows its label."""
    signals = tuple(each for each in agreed.signals if each.name != agreed.label)
    return msgspec.structs.replace(agreed, label="", max_unlabelled=0.0, signals=signals)


def _recordings(
    tables: Mapping[str, Sequence[Path]], agreed: Contract, rules: Fallback
) -> Iterator[Recording]:
    label = first_label(tables, agreed)
    for path in tables.get(SPLIT, ()):
        yield mended(read_table(path), agreed, rules, label)


def first_label(tables: Mapping[str, Sequence[Path]], agreed: Contract) -> NDArray[Any]:
    """(1,) from the node's own tables; 0 where there are none."""
    own = next((paths[0] for split, paths in tables.items() if split != SPLIT and paths), None)
    table = None if own is None or not agreed.label else read_table(own)
    name = None if table is None else table.find(agreed.label)
    return np.zeros(1) if table is None or name is None else table.columns[name][:1]


def mended(table: Table, agreed: Contract, rules: Fallback, label: NDArray[Any]) -> Recording:
    """A recording by the rules for failing sensors, with ``label`` (1,) in every row.

    Raises `DataError` for one that is shorter than a window.
    """
    if len(table) < cut(agreed)[0]:
        raise DataError(
            f"{table.path} has {len(table)} rows, a window {cut(agreed)[0]}",
            "Take it away, or put the whole recording there.",
        )
    agreed_now = without_label(agreed)
    columns = columns_of(table, agreed_now)
    times = seconds_of(agreed_now, columns)
    found = {
        signal.name: fallback.mend(
            columns.values[signal.name].astype(np.float64),
            fallback.causes(signal, columns),
            rules.of(signal.name),
            times,
            signal.max_gap_s,
        )
        for signal in agreed_now.signals
        if signal.type != "text"
    }
    windows = judge_windows(found, fallback.gaps(agreed_now, columns), *cut(agreed))
    values = {table.find(name) or name: column.values for name, column in found.items()}
    if agreed.label:
        values[table.find(agreed.label) or agreed.label] = np.repeat(label, len(table))
    return Recording(replace(table, columns={**table.columns, **values}), windows)


def cut(agreed: Contract) -> tuple[int, int]:
    """Rows of a window and from one to the next; a project that declares none answers row by row."""
    length, step = agreed.window_rows
    return (length, step) if length else (1, 1)


def features(data: object, recordings: Sequence[Recording]) -> NDArray[np.float32]:
    """(windows, …) float32 of all recordings. Raises `LearnerError` when ``load`` made other windows."""
    if not isinstance(data, Dataset):
        raise LearnerError(
            f"load gave a {type(data).__name__}, and predicting needs a reuna.Dataset",
            "Let the project's load return a reuna.Dataset.",
        )
    expected = sum(len(each.windows) for each in recordings)
    if len(data.test.x) != expected:
        raise LearnerError(
            f"load made {len(data.test.x)} windows of the recordings, the contract's [windows] {expected}",
            "Let [windows] in reuna.toml say how load cuts a table.",
        )
    return data.test.x


def _check_windows(
    entry: Entry,
    folder: Path,
    settings: Mapping[str, Setting],
    recordings: Sequence[Recording],
    x: NDArray[np.float32],
) -> None:
    """Hold features (windows, …) against those of windows that ``load`` sees alone, `CHECKED` of a recording.

    All recordings are cut down to one window at a time. Raises `LearnerError`.
    """
    length, step = cut(contract(settings))
    first = np.cumsum([0, *(len(each.windows) for each in recordings)])
    most = max((len(each.windows) for each in recordings), default=0)
    for place in sorted(set(np.linspace(0, most - 1, min(CHECKED, most)).astype(int))):
        places = [min(int(place), len(each.windows) - 1) for each in recordings]
        alone = [
            Recording(_rows(each.table, step * at, length), each.windows[at : at + 1])
            for each, at in zip(recordings, places, strict=True)
        ]
        again = features(entry.load_instead(folder, settings, [each.table for each in alone]), alone)
        for number, at in enumerate(places):
            if x[first[number] + at].tobytes() != again[number].tobytes():
                start = step * at + 1
                raise LearnerError(
                    f"{recordings[number].table.path}: rows {start} to {start + length - 1} have "
                    "other features when load sees them alone",
                    "Let load make a window's features of that window and the node's own tables only.",
                )


def _rows(table: Table, start: int, count: int) -> Table:
    rows = slice(start, start + count)
    columns = {name: column[rows] for name, column in table.columns.items()}
    return replace(table, columns=columns, lines=table.lines[rows])


def _answered(
    recordings: Iterable[Recording], agreed: Contract, graph: bytes, x: NDArray[np.float32]
) -> Iterator[Answered]:
    """All windows; the graph is run for those that the rules let through."""
    step = cut(agreed)[1]
    places = [
        (number, step * place, window)
        for number, each in enumerate(recordings)
        for place, window in enumerate(each.windows)
    ]
    usable = np.array([window.state != "refused" for _, _, window in places], bool)
    answers = one_by_one(graph, x[usable])
    for number, start, window in places:
        if window.state == "refused":
            yield Answered(number, start, window)
        else:
            output, took_ms = next(answers)
            yield Answered(number, start, window, [float(value) for value in output], took_ms)


def read_lent(file: Path) -> bytes:
    """What the parent lent. Raises `StorageError`."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise storage_error(error, file) from error


def _write(file: Path, answers: Answers) -> None:
    """In MessagePack, which has a NaN. Raises `DiskFull`, and `DataError` for more than a file may hold."""
    try:
        file.write_bytes(msgspec.msgpack.encode(answers))
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DataError(
                "there are too many windows at once", "Predict fewer recordings at a time."
            ) from error
        raise storage_error(error, file) from error
