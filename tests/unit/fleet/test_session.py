"""A run on a fleet of its own: what is looked at before anything is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters import nats_server
from reuna.core.errors import ReunaError, ServerMissing, SettingsError
from reuna.fleet.data import DataNode
from reuna.fleet.layout import make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Job, carry_out
from reuna.fleet.supervise import keep_up, undisturbed
from reuna.template import make_project


def job(tmp_path: Path, node: str = "pump-1") -> Job:
    project = tmp_path / "pumps"
    make_project(project, sample=False)
    return Job(project, open_settings(project, []), [DataNode(node, node, tmp_path)], tmp_path / "runs")


def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(nats_server, "WHEEL", "no-such-wheel")


def ignore(_event: dict[str, Any]) -> None:
    """Nobody watches."""


def test_without_a_nats_server_a_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = job(tmp_path)
    no_server(monkeypatch)
    with pytest.raises(ServerMissing):
        asyncio.run(carry_out(wanted, ignore))
    assert not wanted.runs.exists()


def test_without_a_nats_server_a_fleet_starts_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(tmp_path / "fleet", "local", {"fog-1": {"edge-1": tmp_path}})
    no_server(monkeypatch)
    with pytest.raises(ServerMissing):
        asyncio.run(keep_up(fleet))
    assert not list(fleet.folder.rglob("*.log"))


def test_a_run_refused_for_its_names_leaves_no_folder(tmp_path: Path) -> None:
    wanted = job(tmp_path, node="cloud")
    with pytest.raises(SettingsError):
        asyncio.run(carry_out(wanted, ignore))
    assert not wanted.runs.exists()


def test_a_folder_of_runs_that_was_there_stays(tmp_path: Path) -> None:
    wanted = job(tmp_path, node="cloud")
    wanted.runs.mkdir()
    with pytest.raises(ReunaError):
        asyncio.run(carry_out(wanted, ignore))
    assert list(wanted.runs.iterdir()) == []


def test_work_that_is_not_to_be_disturbed_ends_before_its_cancellation_is_heard() -> None:
    done: list[str] = []

    async def tidy(free: asyncio.Event) -> None:
        await free.wait()
        done.append("tidied")

    async def whole() -> None:
        free = asyncio.Event()
        task = asyncio.create_task(undisturbed(tidy(free)))
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        free.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == ["tidied"]

    asyncio.run(whole())
