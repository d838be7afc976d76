"""The `Journal` port over DBOS on SQLite: a run goes on at its last finished step.

DBOS is a library, not a server: its tables lie in one SQLite file beside the cloud's state. Step
results are stored as JSON, never pickled. The application version is our protocol number, so an
upgrade within a protocol picks up running work. A recovered run may execute on a loop of DBOS's
own; what a step does always runs on the host's loop, where the coordinator's connections live.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from dbos import DBOS, DBOSConfig, Serializer, SetWorkflowID

from reuna.core import errors
from reuna.core.errors import JournalError, ReunaError, RunNotFound
from reuna.core.ports import Journal

T = TypeVar("T")
Body = Callable[[Journal, str], Awaitable[Any]]
APPLICATION = "reuna"
VERSION = "reuna-protocol-1"
WORKFLOW = "reuna.run"
STATES = {"SUCCESS": "done", "ERROR": "failed", "CANCELLED": "cancelled"}
_ERROR_KEY = "reuna-error"


class JsonSerializer(Serializer):
    """Plain JSON; an error becomes its code and message."""

    def serialize(self, data: Any) -> str:
        if isinstance(data, BaseException):
            code = data.code if isinstance(data, ReunaError) else type(data).__name__
            return json.dumps({_ERROR_KEY: [code, str(data)]})
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        data = json.loads(serialized_data)
        if isinstance(data, dict) and _ERROR_KEY in data:
            return _error(*data[_ERROR_KEY])
        return data

    def name(self) -> str:
        return "reuna_json"


class DbosJournal:
    """The journal of the run that is being executed."""

    def __init__(self, host: DbosHost) -> None:
        self._host = host

    async def step(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        return await DBOS.run_step_async({"name": name}, self._host.on_own_loop, work)

    async def sleep_until(self, when: float) -> None:
        left = await self.step("time to wait", lambda: _ready(max(0.0, when - time.time())))
        if left > 0:
            await DBOS.sleep_async(left)

    async def await_event(self, topic: str, timeout_s: float) -> str | None:
        found = await DBOS.recv_async(topic, timeout_s)
        return None if found is None else str(found)


class DbosHost:
    """Runs of one cloud. One host per process, because DBOS keeps its state in the module."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._bodies: dict[str, Body] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._workflow: Any = None

    def register(self, kind: str, body: Body) -> None:
        """What a run of ``kind`` does; before `start`."""
        self._bodies[kind] = body

    async def start(self) -> None:
        """Open the journal and go on with every run that was not finished."""
        self._loop = asyncio.get_running_loop()
        _be_quiet()
        DBOS(config=self._config())

        async def execute(kind: str, spec: str) -> Any:
            return await self._bodies[kind](DbosJournal(self), spec)

        self._workflow = DBOS.workflow(name=WORKFLOW)(execute)
        await asyncio.to_thread(DBOS.launch)

    async def stop(self) -> None:
        """Close the journal; unfinished runs go on at the next start."""
        await asyncio.to_thread(lambda: DBOS.destroy(workflow_completion_timeout_sec=0))

    async def submit(self, kind: str, run: str, spec: str) -> None:
        """Begin a run; nothing happens when there is one of that name. Raises `JournalError`."""
        if kind not in self._bodies:
            raise JournalError(f"no runs of kind {kind!r}")
        with SetWorkflowID(run):
            await DBOS.start_workflow_async(self._workflow, kind, spec)

    async def status(self, run: str) -> dict[str, Any]:
        """``state`` running, done (with ``result``), failed (with ``message``) or cancelled.

        Raises `RunNotFound`.
        """
        found = await DBOS.get_workflow_status_async(run)
        if found is None:
            raise RunNotFound(f"the cloud knows no run {run!r}")
        state = STATES.get(found.status, "running")
        status: dict[str, Any] = {"state": state}
        if state == "done":
            status["result"] = found.output
        if state == "failed":
            error = found.error
            status["message"] = str(error)
            status["code"] = error.code if isinstance(error, ReunaError) else ""
        return status

    async def result(self, run: str) -> Any:
        """Wait for a run's end. Raises the error it ended with."""
        handle: Any = await DBOS.retrieve_workflow_async(run)
        return await handle.get_result()

    async def send(self, run: str, topic: str, message: str) -> None:
        """Leave a message for `Journal.await_event`."""
        await DBOS.send_async(run, message, topic)

    async def cancel(self, run: str) -> None:
        """End a run before its next step."""
        await DBOS.cancel_workflow_async(run)

    async def on_own_loop(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do a step's work on the loop that `start` ran on."""
        assert self._loop is not None
        if asyncio.get_running_loop() is self._loop:
            return await work()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_await(work), self._loop))

    def _config(self) -> DBOSConfig:
        return {
            "name": APPLICATION,
            "system_database_url": f"sqlite:///{self._folder / 'journal.sqlite'}",
            "application_version": VERSION,
            "executor_id": "cloud",
            "serializer": JsonSerializer(),
            "enable_otlp": False,
            "log_level": "WARNING",
            "console_log_level": "WARNING",
        }


def _be_quiet() -> None:
    logging.getLogger("dbos").setLevel(logging.WARNING)


async def _await(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


async def _ready(value: T) -> T:
    return value


def _error(code: str, message: str) -> Exception:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, ReunaError) and kind.code == code:
            return kind(message)
    return JournalError(f"{code}: {message}")
