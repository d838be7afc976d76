"""The source `replay`: a recording in the time of now."""

from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters.replay_source import ReplaySource
from reuna.core.errors import DataError
from reuna.core.source_settings import SourceSettings, TagSettings
from reuna.core.sources import NS, Batch, check_batch
from reuna.sim.clock import EPOCH, InPlace, SimClock, run_virtual

START = int(EPOCH) * NS


def played(folder: Path, most: int = 100, **settings) -> list[tuple[float, Batch]]:
    """Batches, each with how many seconds after the start it came."""

    async def play() -> list[tuple[float, Batch]]:
        clock = SimClock()
        source = ReplaySource(
            SourceSettings(
                "press", "replay", str(folder), "minute", (TagSettings("oil", "oil", "bar"),), **settings
            ),
            clock,
            InPlace(),
        )
        found = []
        batches = source.batches()
        async for batch in batches:
            check_batch(batch, source.tags)
            found.append((clock.now() - EPOCH, batch))
            if len(found) == most:
                break
        await batches.aclose()
        return found

    return run_virtual(play())


def write(folder: Path, name: str, *rows: str) -> None:
    (folder / name).write_text("minute,oil\n" + "\n".join(rows) + "\n")


def test_readings_come_when_they_are_due_with_times_of_now(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "100,1", "101,2", "103,3")
    found = played(tmp_path)
    assert [at for at, _ in found] == [0, 60, 180]
    assert [int(batch.columns["oil"].times[0]) - START for _, batch in found] == [0, 60 * NS, 180 * NS]


def test_it_can_be_faster_and_gives_what_is_due_in_a_second_together(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", *(f"{n},{n}" for n in range(4)))
    found = played(tmp_path, speed=120.0)
    assert [batch.columns["oil"].values.tolist() for _, batch in found] == [[0, 1], [2, 3]]
    assert [at for at, _ in found] == [0.5, 1.5]


def test_files_follow_each_other_with_a_gap(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "0,1", "1,2")
    write(tmp_path, "b.csv", "0,3")
    found = played(tmp_path)
    assert [at for at, _ in found] == [0, 60, 61]
    assert [[gap.reason for gap in batch.gaps] for _, batch in found] == [[], [], ["b.csv begins"]]


def test_it_begins_again_only_when_it_is_told_to(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "0,1", "1,2")
    assert len(played(tmp_path)) == 2
    found = played(tmp_path, most=5, repeat=True)
    assert [at for at, _ in found] == [0, 60, 61, 121, 122]


def test_a_wrong_time_in_a_recording_takes_no_memory(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "0,1", "5e7,2")
    assert len(played(tmp_path)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hour,oil\n0,1\n", "has no column 'minute'"),
        ("minute,x\n0,1\n", "has no reading of the tags of the source press"),
        ("minute,oil [kPa]\n0,1\n", "'oil' is in kPa, not in bar"),
    ],
)
def test_a_recording_that_cannot_be_played_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        played(tmp_path)
