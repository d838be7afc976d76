"""What the demo's plants say with ``--mix``: stretches of recordings, of what each plant is like now."""

from __future__ import annotations

from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pytest

from reuna.demo.opcua_server import STRETCH, Mixed, Now, Row, stretch, write_now
from reuna.demo.plants import NORMAL, Archive, load_plant, read_archive


@pytest.fixture(scope="module")
def archive() -> Archive:
    return read_archive()


def test_a_stretch_is_of_one_state_that_the_plant_has_trained_on(archive: Archive) -> None:
    data = load_plant(2, 0, archive)
    rng = np.random.default_rng(1)
    found = [stretch(data, rng) for _ in range(60)]
    assert {values.shape for values, _ in found} == {(STRETCH, 53)}
    assert {fault for _, fault in found} <= {NORMAL, *data.faults}
    assert 0.1 < np.mean([fault != NORMAL for _, fault in found]) < 0.5
    recorded = {run.values[at].tobytes() for run in data.test for at in range(len(run.values))}
    assert all(row.tobytes() in recorded for values, _ in found for row in values)


def test_the_same_seed_plays_the_same(archive: Archive) -> None:
    def rows(seed: int) -> list[Row]:
        return list(islice(Mixed(1, archive, seed, None).feed(), 100))

    one, again, other = rows(1), rows(1), rows(2)
    assert all(np.array_equal(a.values, b.values) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a.values, b.values) for a, b in zip(one, other, strict=True))


def test_a_change_of_mode_shows_in_the_next_row_and_begins_a_stretch(
    tmp_path: Path, archive: Archive
) -> None:
    file = tmp_path / "now.json"
    write_now(file, Now())
    feed = Mixed(0, archive, 1, file).feed()
    before = list(islice(feed, 7))
    write_now(file, Now(modes=(3, 1, 2, 3, 4, 5)))
    after = list(islice(feed, STRETCH + 1))
    assert [row.stretch for row in (before[-1], after[0], after[-1])] == [0, 1, 2]
    of = {run.values[at].tobytes() for run in load_plant(3, 0, archive).test for at in range(len(run.values))}
    assert all(row.values.tobytes() in of for row in after)
    assert not any(row.values.tobytes() in of for row in before)
    assert len({key for key, _ in groupby(row.fault for row in after[:STRETCH])}) == 1
