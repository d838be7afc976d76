"""A fleet that is kept up: by one process at a time, and what ends says why."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from reuna.core.errors import NotUsable
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.supervise import ROOM, Supervisor, keep_up, log_path, why_ended


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return make_fleet(tmp_path / "fleet", "local", {"fog-1": {"edge-1": tmp_path}})


def test_a_fleet_that_is_up_is_not_started_once_more(fleet: Fleet) -> None:
    other = os.open(fleet.folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    said: list[str] = []
    try:
        with pytest.raises(NotUsable, match="is up already"):
            asyncio.run(asyncio.wait_for(keep_up(fleet, lambda: said.append("up")), 20))
    finally:
        os.close(other)
    assert not said
    assert not list(fleet.folder.rglob("*.log")), "no place was begun"


def test_a_full_disk_is_spoken_of_once_and_again_when_there_is_space(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor, left = Supervisor(fleet), [ROOM, ROOM - 1, 0, ROOM, ROOM]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=left.pop(0)))
    with caplog.at_level(logging.WARNING):
        while left:
            supervisor.look_at_disk()
    full, over = (record.getMessage() for record in caplog.records)
    assert full == f"no space left for {fleet.folder}; free some, and work goes on by itself"
    assert over == f"there is space for {fleet.folder} again"


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ("stopping\nerror: cannot listen on 127.0.0.1:1\nnext:  Stop that process.  [R203]\n",
         "cannot listen on 127.0.0.1:1"),
        ("error: of a life before\nnext:  Stop that process.  [R203]\n2026 INFO reuna.fog up\n", ""),
        ("", ""),
    ],
    ids=["an error", "killed after a life that ended by one", "nothing"],
)  # fmt: skip
def test_a_place_that_ended_says_why(fleet: Fleet, log: str, why: str) -> None:
    (place,) = fleet.of("fog")
    log_path(place).write_text(log)
    assert why_ended(place) == why
