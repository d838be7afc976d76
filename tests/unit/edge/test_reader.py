"""The reader: another one when it ends, a source that fails is begun again, and it ends with its agent."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.local_store import StoredReadings
from reuna.adapters.processes import children
from reuna.core.errors import NotUsable, SettingsError
from reuna.edge import reader
from reuna.edge.reader import declared, serve
from reuna.edge.reading import Job, ReaderProcess
from reuna.exchange.kept import Companions

SOURCES = """
[sources.{name}]
kind = "replay"
folder = "{folder}"
time = "t"
tags = {{ a = {{ unit = "bar" }} }}
"""


def job(folder: Path, text: str) -> Job:
    (folder / "sources.toml").write_text(text)
    return Job("pump-1", str(folder / "sources.toml"), str(folder / "state"))


def recording(folder: Path) -> Path:
    (folder / "rec").mkdir()
    (folder / "rec" / "a.csv").write_text("t,a\n0,1\n0.1,2\n0.2,3\n")
    return folder / "rec"


def newest(folder: Path, source: str) -> int | None:
    try:
        store = StoredReadings(folder / "state" / "store")
    except NotUsable:
        return None
    try:
        return store.newest_ns(source)
    finally:
        store.close()


async def until(holds: Any) -> Any:
    async with asyncio.timeout(30):
        while not (found := holds()):
            await asyncio.sleep(0.02)
        return found


def test_a_store_that_is_not_named_is_in_the_state_folder(tmp_path: Path) -> None:
    sources, kept = declared(job(tmp_path, SOURCES.format(name="x", folder="/f") + "[store]\ndays = 3\n"))
    assert [each.name for each in sources] == ["x"]
    assert (kept.folder, kept.days) == (str(tmp_path / "state" / "store"), 3.0)
    with pytest.raises(SettingsError, match="sources is empty"):
        declared(job(tmp_path, ""))


async def test_a_source_that_fails_is_begun_again_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reader, "AGAIN_S", (0.05, 0.1))
    folder = recording(tmp_path)
    text = SOURCES.format(name="here", folder=folder) + SOURCES.format(name="later", folder=tmp_path / "l")
    ours, theirs = socket.socketpair()
    with ours, theirs, caplog.at_level(logging.INFO):
        task = asyncio.create_task(serve(job(tmp_path, text), theirs))
        await until(lambda: "source later: R103" in caplog.text and newest(tmp_path, "here"))
        (tmp_path / "l").symlink_to(folder)
        await until(lambda: newest(tmp_path, "later"))
        assert not task.done(), "sources that have no more are no reason to end"
        ours.close()
        await asyncio.wait_for(task, 10)


async def test_a_reader_keeps_itself_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = asyncio.Event()

    async def keep_small(_clock: object, busy_s: float) -> None:
        assert busy_s == math.inf, "also while it reads"
        kept.set()

    monkeypatch.setattr(reader, "keep_small", keep_small)
    ours, theirs = socket.socketpair()
    with theirs:
        task = asyncio.create_task(serve(job(tmp_path, SOURCES.format(name="x", folder=tmp_path)), theirs))
        await asyncio.wait_for(kept.wait(), 10)
        ours.close()
        await asyncio.wait_for(task, 10)


async def test_a_reader_that_is_killed_comes_back_and_ends_with_its_agent(tmp_path: Path) -> None:
    process = ReaderProcess(job(tmp_path, SOURCES.format(name="x", folder=recording(tmp_path))))
    before = set(children(os.getpid()))
    async with Companions([process]):
        (starter,) = set(children(os.getpid())) - before
        first = await until(lambda: newest(tmp_path, "x"))
        (pid,) = children(starter)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: children(starter) not in ([], [pid]) and newest(tmp_path, "x") != first)
        (pid,) = children(starter)
    assert not Path(f"/proc/{pid}").exists()


def test_settings_with_a_mistake_end_it_with_their_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        told = f'{{"node":"n","sources":"{tmp_path / "none.toml"}","folder":"{tmp_path}"}}'
        monkeypatch.setattr("sys.argv", ["reader", str(theirs.detach()), str(os.getppid()), told])
        monkeypatch.setattr(reader, "end_with_parent", lambda: None)
        monkeypatch.setattr(reader, "no_core_files", lambda: None)
        monkeypatch.setattr(reader, "become", lambda _part: None)  # this process stays what it is
        with caplog.at_level(logging.ERROR):
            assert reader.main() == SettingsError.exit_status
    assert "there is no file" in caplog.text
