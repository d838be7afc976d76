"""Ctrl-C while a run is watched: what goes on without whoever watched is said, with what to type."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reuna.cli.run import _watched
from reuna.fleet.data import DataNode
from reuna.fleet.ending import ENDING
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Finished, Job, Watch, handed_over
from reuna.template import make_project


@pytest.fixture
def job(tmp_path: Path) -> Job:
    project = tmp_path / "my plant" / "pumps"
    project.parent.mkdir()
    make_project(project, sample=False)
    return Job(
        project, open_settings(project, []), [DataNode("pump-1", "pump-1", tmp_path)], tmp_path / "runs"
    )


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Who is stopped hears no further signal until it has ended; here it goes on."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stopped(job: Job, at: str | None, told: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said when Ctrl-C comes after such events."""

    async def work(watch: Watch) -> Finished:
        for event in told:
            watch(event)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(KeyboardInterrupt):
        _watched(job, True, work, at)
    return capsys.readouterr().err


def test_a_run_that_goes_on_at_its_fleet_is_named_with_what_fetches_and_what_ends_it(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    said = stopped(job, "line/fleet.toml", [handed_over("r-1")], capsys)
    assert "r-1 goes on at the fleet without you" in said
    assert f"reuna fetch r-1 --fleet line/fleet.toml --project '{job.project}'" in said
    assert "reuna stop r-1 --fleet line/fleet.toml\n" in said


@pytest.mark.parametrize(
    ("at", "told"),
    [("line/fleet.toml", []), (None, [handed_over("r-1")])],
    ids=["nothing is handed over yet", "the fleet ends with the run"],
)
def test_nothing_is_said_to_go_on_when_nothing_does(
    job: Job, at: str | None, told: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "goes on" not in stopped(job, at, told, capsys)
