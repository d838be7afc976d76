"""Hostile project code in a real worker: every attempt is refused, and gets out where its layers are missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from drills import escapes, planted_worker, sandbox
from reuna.adapters.sandbox import HIGHEST, Room, SandboxLimits, probe, sentence
from reuna.adapters.worker import Worker

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module", autouse=True)
def whole() -> None:
    """These tests say something on a machine that gives every level."""
    level = probe()
    if level.number < HIGHEST:
        pytest.skip(f"the sandbox reaches level {level.number} here: {sentence(level)}")


@pytest.fixture
def yard() -> Iterator[sandbox.Yard]:
    with sandbox.yard() as made:
        yield made


@pytest.fixture
async def worker(yard: sandbox.Yard) -> AsyncIterator[Worker]:
    async with sandbox.worker_in(yard) as made:
        yield made


def test_there_are_many_attempts_and_each_names_layers_that_exist() -> None:
    assert len(escapes.ATTEMPTS) >= 40
    names = {name for name, _ in planted_worker.ALL(Room((), "."), SandboxLimits(), ())}
    assert all(set(attempt.layers) <= names for attempt in escapes.ATTEMPTS.values())


async def test_a_worker_reports_the_whole_level(worker: Worker) -> None:
    assert worker.level.number == HIGHEST


@pytest.mark.parametrize("name", escapes.ATTEMPTS)
async def test_an_attempt_is_refused(worker: Worker, yard: sandbox.Yard, name: str) -> None:
    assert not await sandbox.escaped(worker, yard, name)
    assert worker.alive


@pytest.mark.parametrize("name", [name for name in escapes.ATTEMPTS if sandbox.shown(name)])
async def test_without_its_layers_the_attempt_escapes(yard: sandbox.Yard, name: str) -> None:
    assert await sandbox.escapes_without_its_layers(yard, name)


async def test_processes_without_end_are_limited_where_the_filter_is_missing(yard: sandbox.Yard) -> None:
    with sandbox.without(["seccomp"]):
        async with sandbox.worker_in(yard) as worker:
            assert not await sandbox.escaped(worker, yard, "start processes without end")


async def test_two_workers_do_not_reach_each_other(yard: sandbox.Yard) -> None:
    async with sandbox.worker_in(yard) as first:
        with sandbox.yard() as other:
            async with sandbox.worker_in(other) as second:
                yard.aims["victim"] = second.pid
                assert not await sandbox.escaped(first, yard, "kill a process of the node")
                yard.aims["neighbour"] = second.pid
                assert not await sandbox.escaped(first, yard, "trace a process of the node")
                users = [Path(f"/proc/{worker.pid}/status").read_text() for worker in (first, second)]
                ids = {next(line for line in text.splitlines() if line.startswith("Uid")) for text in users}
                assert len(ids) == (2 if "own user" in first.level.layers else 1)


def drill(*arguments: str) -> tuple[int, dict[str, int]]:
    done = subprocess.run(
        [sys.executable, "-m", "drills.sandbox", "--json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_the_drill_holds_at_its_minimum() -> None:
    status, result = drill()
    count = len(escapes.ATTEMPTS)
    assert result == {"level": 3, "policy_minimum": 3, "escapes_tried": count, "refused": count}
    assert status == 0


def test_the_drill_fails_below_its_minimum() -> None:
    status, result = drill("--minimum", "4")
    assert result["policy_minimum"] == 4
    assert status == 1
