"""A release in a resident worker: the same bits as over files, safe in doubt, back after its end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.sandbox import SandboxLimits
from reuna.adapters.tables import Table, read_table
from reuna.core.contract import contract
from reuna.core.grid import Cells, Rows
from reuna.core.outcomes import Outcome
from reuna.core.project import TASKS
from reuna.core.sources import NS
from reuna.edge import predict as live
from reuna.edge.predict import Predictor
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
    for signal in agreed.signals:
        values = table.columns[signal.name][part].astype(np.float64)
        cells[signal.name] = Cells(values, np.ones(len(values), bool))
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
