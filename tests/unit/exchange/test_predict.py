"""A release in a resident worker: the same bits as over files, safe in doubt, back after its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.sandbox import SandboxLimits
from reuna.adapters.tables import Table, read_table
from reuna.adapters.worker.messages import Answer, Answered
from reuna.core.contract import Signal, contract
from reuna.core.errors import (
    DataError,
    NotLive,
    ReleaseNotFound,
    SandboxTooWeak,
    Untrusted,
    WorkerFailed,
)
from reuna.core.grid import Cells, Rows
from reuna.core.outcomes import Outcome, Window
from reuna.core.project import TASKS
from reuna.core.sources import NS
from reuna.exchange import predict as live
from reuna.exchange.predict import Predictor
from tests.pumps import RULES, Pumps, changed, emptied, make, offline

MINUTE = 60 * NS


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Pumps:
    pytest.importorskip("onnxruntime")
    return make(tmp_path_factory.mktemp("live") / "pumps", TASKS[0], RULES)


@pytest.fixture(scope="module")
def release(pumps: Pumps, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pumps.release(tmp_path_factory.mktemp("release") / "1.release")


async def started(pumps: Pumps, release: Path, folder: Path, level: int = 0) -> Predictor:
    return await Predictor.start(release, folder / "live", pumps.node, SandboxLimits(), level, SystemClock())


def rows(pumps: Pumps, table: Table, first: int = 0, count: int | None = None, before: int = 0) -> Rows:
    """Rows of a recording as a source that gives one reading a minute would have given them."""
    agreed = contract(pumps.settings)
    part = slice(first, None if count is None else first + count)
    cells = {}
    for each in agreed.signals:
        values = table.columns[each.name][part].astype(np.float64)
        cells[each.name] = Cells(values, np.ones(len(values), bool))
    return Rows(first * MINUTE, MINUTE, len(values), cells, before)


def plain(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    return [(each.state, each.answer, each.output, each.why) for each in outcomes]


@pytest.mark.parametrize("batch", [1, 3, 100])
async def test_answers_are_the_same_bits_as_of_files(
    pumps: Pumps, release: Path, tmp_path: Path, batch: int
) -> None:
    folder = changed(tmp_path / "rec", pumps.recording, emptied("flow_m3_h", 30, 50, 51, 52, 53, 54))
    found = await offline(release, folder, pumps.node)
    table, held = read_table(folder / "a.csv"), live.held_of(live.read_release(release))
    predictor = await started(pumps, release, tmp_path)
    told: list[Outcome] = []
    starts = range(0, len(table) - held.length + 1, held.step)
    try:
        for place in range(0, len(starts), batch):
            some = starts[place : place + batch]
            first = max(0, some[0] - held.before)
            count = some[-1] + held.length - first
            told += await predictor.answer(rows(pumps, table, first, count, some[0] - first))
    finally:
        await predictor.close()
    assert plain(told) == plain(found)
    assert {each.state for each in told} == {"answered", "mended", "safe"}
    assert [each.first_ns for each in told] == [start * MINUTE for start in starts]
    assert all(each.took_ms >= each.features_ms >= 0 for each in told)


async def test_a_worker_that_is_killed_is_replaced_and_the_same_windows_are_answered_alike(
    pumps: Pumps, release: Path, tmp_path: Path
) -> None:
    predictor = await started(pumps, release, tmp_path)
    table = read_table(pumps.recording)
    try:
        before = await predictor.answer(rows(pumps, table, 0, 24))
        os.kill(predictor.pid, signal.SIGKILL)
        after = await predictor.answer(rows(pumps, table, 0, 24))
        assert plain(after) == plain(before)
        assert predictor.restarts == 1
    finally:
        await predictor.close()


TRAP = """
import os

import detector.model as true
from detector.model import learner
from reuna import read_folder

def load(folder, settings):
    live = [t for t in read_folder(folder).get("test", []) if t.path.name == "live.csv"]
    first = float(live[0].columns["current_a"][0]) if live else 0.0
    if first == 66.0:
        os._exit(3)
    if first == 67.0:
        raise ValueError("no such day")
    return true.load(folder, settings)
"""


@pytest.fixture
def trapped(pumps: Pumps, tmp_path: Path) -> Path:
    """A release whose code ends its process for some rows, and fails for others."""
    (pumps.folder / "trap.py").write_text(TRAP)
    settings = {**pumps.settings, "entry": "trap"}
    try:
        return Pumps(pumps.folder, settings, pumps.graph).release(tmp_path / "trap.release")
    finally:
        (pumps.folder / "trap.py").unlink()


async def test_rows_that_end_worker_after_worker_get_the_safe_answer_and_the_next_ones_theirs(
    pumps: Pumps, trapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST_S", 0.0)
    predictor = await started(pumps, trapped, tmp_path)
    table = read_table(pumps.recording)
    odd = rows(pumps, table, 0, 12)
    try:
        for value, why in ((66.0, "R205"), (67.0, "ValueError: no such day")):
            odd.cells["current_a"].values[0] = value
            (one,) = await predictor.answer(odd)
            assert (one.state, one.answer, one.output) == ("safe", 0.0, ())
            assert why in one.why
        assert predictor.restarts == live.TRIES, "the failure of load alone ends nobody"
        assert (await predictor.answer(rows(pumps, table, 6, 12)))[0].state == "answered"
    finally:
        await predictor.close()


async def test_rows_that_no_message_holds_are_answered_alike(
    pumps: Pumps, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = await started(pumps, release, tmp_path)
    table = read_table(pumps.recording)
    try:
        inline = await predictor.answer(rows(pumps, table, 0, 48))
        monkeypatch.setattr(live, "MAX_INLINE", 100)
        assert plain(await predictor.answer(rows(pumps, table, 0, 48))) == plain(inline)
        assert (tmp_path / "live" / "lent" / "rows").stat().st_size > 4 * 48 * 9
    finally:
        await predictor.close()


async def test_a_worker_that_says_nothing_is_ended(
    pumps: Pumps, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = await started(pumps, release, tmp_path)
    try:
        monkeypatch.setattr(live, "FIRST_S", 0.0)
        monkeypatch.setattr(live, "ANSWER_S", 0.0)
        (one,) = await predictor.answer(rows(pumps, read_table(pumps.recording), 0, 12))
        assert one.state == "safe"
        assert "said nothing" in one.why
    finally:
        await predictor.close()


async def test_columns_that_code_may_not_read_are_missing_in_live_rows_too(
    pumps: Pumps, release: Path, tmp_path: Path
) -> None:
    seen = ("current_a", "temperature_c", "vibration_mm_s", "second", "fault", "flow_m3_h")
    for columns, states in ((seen, {"answered"}), (seen[1:], {"mended"}), (seen[:1], {"safe"})):
        predictor = await Predictor.start(
            release, tmp_path / "live", pumps.node, SandboxLimits(), 0, SystemClock(), columns
        )
        try:
            found = await predictor.answer(rows(pumps, read_table(pumps.recording), 0, 24))
        finally:
            await predictor.close()
        assert {each.state for each in found} == states, "current_a is masked, the others are refused"


async def test_the_self_test_passes_for_a_sound_release_and_says_why_not(
    pumps: Pumps, release: Path, tmp_path: Path
) -> None:
    predictor = await started(pumps, release, tmp_path)
    try:
        assert await predictor.golden() == ""
    finally:
        await predictor.close()


async def test_what_cannot_answer_live_is_refused_before_it_starts(pumps: Pumps, tmp_path: Path) -> None:
    def with_contract(**changes: object) -> Path:
        agreed = msgspec.structs.replace(contract(pumps.settings), **changes)
        settings = {**pumps.settings, "contract": msgspec.json.encode(agreed).decode()}
        return Pumps(pumps.folder, settings, pumps.graph).release(tmp_path / "odd.release")

    for changes, complaint in (
        ({"every_s": None}, "how far apart rows are"),
        ({"signals": ()}, "names no signals"),
        ({"signals": (Signal("shift", type="text"),)}, "'shift' of pumps 1 is text"),
    ):
        with pytest.raises(NotLive, match=complaint):
            live.held_of(live.read_release(with_contract(**changes)))
    with pytest.raises(ReleaseNotFound):
        await started(pumps, tmp_path / "none.release", tmp_path)
    (tmp_path / "bad.release").write_bytes(b"no release")
    with pytest.raises(Untrusted):
        await started(pumps, tmp_path / "bad.release", tmp_path)
    sound = pumps.release(tmp_path / "1.release")
    with pytest.raises(SandboxTooWeak):
        await started(pumps, sound, tmp_path, level=4)
    loose = tmp_path / "loose"
    loose.mkdir()
    (loose / "a.csv").write_text("second\n1\n")
    with pytest.raises(DataError, match="has no folder train"):
        await Predictor.start(sound, tmp_path / "l", loose, SandboxLimits(), 0, SystemClock())


def test_windows_that_were_not_asked_for_are_no_answer() -> None:
    good = Answered(0, 2, Window("good"), [0.5, 0.5])
    assert live._checked(Answer(windows=[good]), range(2, 8, 6)) == [good]
    with pytest.raises(WorkerFailed, match="answered 1 windows, and was asked 2"):
        live._checked(Answer(windows=[good]), range(2, 14, 6))
    many = msgspec.structs.replace(good, output=[0.0] * 5000)
    with pytest.raises(WorkerFailed, match="more than 4096 numbers"):
        live._checked(Answer(windows=[many]), range(2, 8, 6))
