"""A run on a fleet of its own: what is looked at before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters import nats_server
from reuna.core.errors import ReunaError, RunFailed, ServerMissing, SettingsError, Unreachable
from reuna.fleet import session
from reuna.fleet.data import DataNode
from reuna.fleet.layout import make_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Job, carry_out, follow
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


class Answers:
    """A cloud whose run goes on for so many looks, with an event at each; ``late`` comes as it ends."""

    def __init__(self, looks: int, status: dict[str, Any], late: int = 0, cut: int = 0) -> None:
        self.events: list[dict[str, Any]] = []
        self.left, self.end, self.late, self.cut = looks, status, late, cut
        self.asked: list[str] = []

    @contextmanager
    def staying(self) -> Iterator[Answers]:
        yield self

    def timeline(self, _run: str, after: int) -> list[dict[str, Any]]:
        self.asked.append("events")
        if self.cut:
            self.cut -= 1
            raise Unreachable("cut")
        if self.left:
            self.left -= 1
            self.events.append({"seq": len(self.events)})
        return self.events[after:]

    def status(self, _run: str) -> dict[str, Any]:
        self.asked.append("status")
        self.events += [{"seq": len(self.events) + each} for each in range(self.late)]
        return self.end


def followed(answers: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    monkeypatch.setattr(session, "POLL_S", 0.0)
    told: list[dict[str, Any]] = []
    return asyncio.run(follow(answers, "r-1", told.append)), told


def test_a_run_is_asked_for_its_state_only_when_nothing_new_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers(3, {"state": "done", "result": {"model": "m"}})
    outcome, told = followed(answers, monkeypatch)
    assert outcome == {"model": "m"}
    assert [event["seq"] for event in told] == [0, 1, 2]
    assert answers.asked == ["events"] * 4 + ["status", "events"]


def test_what_happened_just_before_a_run_ended_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = followed(Answers(1, {"state": "done", "result": {}}, late=2), monkeypatch)
    assert [event["seq"] for event in told] == [0, 1, 2]


def test_a_cloud_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _, told = followed(Answers(2, {"state": "done", "result": {}}, cut=2), monkeypatch)
    assert [event["seq"] for event in told] == [0, 1]


def test_a_cloud_that_stays_away_is_spoken_of_once_and_again_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "AWAY_S", 0.0)
    _, told = followed(Answers(1, {"state": "done", "result": {}}, cut=3), monkeypatch)
    assert told == [{"what": "away"}, {"what": "back"}, {"seq": 0}]


def test_a_run_that_was_stopped_or_failed_has_no_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    for status, said in (({"state": "cancelled"}, "stopped"), ({"state": "failed", "message": "why"}, "why")):
        with pytest.raises(RunFailed, match=said):
            followed(Answers(0, status), monkeypatch)
