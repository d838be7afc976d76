"""The `Journal` port over DBOS: a run goes on at its last finished step.

DBOS is a library, not a server: its tables lie in one SQLite file in the folder given, or in the
PostgreSQL server given. Everything runs on the event loop that called `DbosHost.start`, runs taken
up again included, so that what a step does may use the connections of the process. Values are
stored as JSON, never pickled.

>>> host = DbosHost(folder)
>>> host.register("train", body)  # async def body(journal, spec) -> plain JSON value
>>> await host.start()            # goes on with every run that was not finished
>>> await host.submit("train", "run-1", spec)
>>> await host.result("run-1")
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

from dbos import DBOS, DBOSConfig, Serializer, SetWorkflowID
from dbos import error as dbos_error
from dbos._migration import get_dbos_migrations, sqlite_migrations
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from reuna.adapters.files import written_how
from reuna.core.errors import (
    Corrupted,
    DiskFull,
    JournalError,
    ReunaError,
    RunFailed,
    RunNotFound,
    Unreachable,
)
from reuna.core.foreign import told
from reuna.core.ports import Journal

T = TypeVar("T")
Body = Callable[[Journal, str], Awaitable[Any]]
APPLICATION = "reuna"
VERSION = "reuna-protocol-1"  #: raised only when journals of old runs cannot be replayed any more
RUN = "train"  #: the kind of runs that were there first
WORKFLOW = "reuna.run"  #: what DBOS calls them; other kinds have names of their own
STATES = {"SUCCESS": "done", "ERROR": "failed", "CANCELLED": "cancelled"}
LONGEST_NAP_S = 60.0  #: wall time is looked at again this often, for clocks that are set right
RETRY_S = 10.0  #: between tries to go on with a run whose journal could not be written
POLL_S = 0.2  #: how late a message may be seen, and how long `DbosHost.stop` takes
THREADS = 32  #: DBOS makes its pool the default of our loop; Python's own bound is 32 as well
DISK_FULL = "53100"  #: what PostgreSQL calls it
GUARD_S = 2.0  #: how often a lease is looked at
SUBSECONDS_SINCE = (3, 42)  #: SQLite's `unixepoch('subsec')`
LIFE = "~"  #: in DBOS's name of a life of a run after the first: run~2; no run's own name holds it
_ERROR_KEY = "reuna-error"

log = logging.getLogger("reuna.journal")


class JsonSerializer(Serializer):
    """Plain JSON; an error becomes its code, words and reason, and comes back as that error."""

    def serialize(self, data: Any) -> str:
        if not isinstance(data, BaseException):
            return json.dumps(data)
        if isinstance(data, DBAPIError):
            raise data  # DBOS would journal that its own write failed, as the result of the step
        if not isinstance(data, ReunaError):
            log.error("a run met an error of a kind that is not ours", exc_info=data)
        return json.dumps({_ERROR_KEY: _error_fields(data)})

    def deserialize(self, serialized_data: str) -> Any:
        data = json.loads(serialized_data)
        if isinstance(data, dict) and _ERROR_KEY in data:
            return _error(data[_ERROR_KEY])
        return data

    def name(self) -> str:
        return "reuna_json"


class Durable(sqlite3.Connection):
    """A connection whose commits are forced to the disk: a journalled step outlives a power cut.

    The file does not remember that: each connection, DBOS's too, says it for itself. And it has the
    time of day as DBOS asks for it, which SQLite itself has from 3.42 on: DBOS goes by Python's version,
    but Debian 12 has Python 3.12 and 3.13 with SQLite 3.40.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA synchronous=FULL")
        if sqlite3.sqlite_version_info < SUBSECONDS_SINCE:
            self.create_function("unixepoch", 1, _now)


class Lease(Protocol):
    """The right to carry out the runs of a server's journal; see `reuna.adapters.postgresql`. Blocking."""

    def take(self) -> None: ...
    def check(self) -> None: ...
    def give(self) -> None: ...


class Server(Protocol):
    """A database on a server, for a journal."""

    where: str

    def engine(self) -> Engine: ...
    def lease(self) -> Lease: ...


class DbosJournal:
    """The journal of the run that is being executed; one commit a step.

    Once a step was carried out nothing after it is journalled. So DBOS, which goes to a thread three times
    for a step, is only told how later ones ended: once.
    """

    def __init__(self, life: int = 1) -> None:
        self.life = life
        self._replayed = False  #: whether all that was journalled is behind

    async def step(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        async def plain_work() -> T:
            self._replayed = True
            return _plain(await work(), name)

        with _own_errors():
            if not self._replayed:
                return await DBOS.run_step_async({"name": name}, plain_work)
            end = await _ended(plain_work())
            return await DBOS.run_step_async({"name": name}, end)

    async def sleep_until(self, when: float) -> None:
        until = await self.step("sleep until", partial(_ready, when))
        while (left := until - time.time()) > 0:  # noqa: ASYNC110  # the clock is what we wait for
            await asyncio.sleep(min(left, LONGEST_NAP_S))

    async def await_event(self, topic: str, timeout_s: float) -> str | None:
        with _own_errors():
            found = await DBOS.recv_async(topic, timeout_s)
        return None if found is None else str(found)


class DbosHost:
    """Runs of one cloud. One started host per process, because DBOS keeps its state in the module.

    A run is executed at least once from its last journalled step on; `stop` and a crash leave it
    to the next start, `cancel` ends it. While the disk takes no journal, a run is interrupted and
    tried again; it does not fail. `resume` gives one that has ended another life: to DBOS a workflow
    of its own, forked where the last one ended, so that nothing that was journalled is rewritten.
    """

    _started: ClassVar[DbosHost | None] = None

    def __init__(self, folder: Path, app_version: str = VERSION, server: Server | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = server
        self._lease = server.lease() if server else None
        self._engine: Engine | None = None
        self._file = folder / "journal.sqlite"
        self._version = app_version
        self._bodies: dict[str, Body] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._working: set[str] = set()  #: workflows whose body has not ended; its end is journalled later
        self._retries: set[asyncio.Task[None]] = set()
        self._workflows: dict[str, Any] = {}
        self._resuming = asyncio.Lock()
        self._lock_fd = -1
        self._dbos: DBOS | None = None

    def register(self, kind: str, body: Body) -> None:
        """What a run of ``kind`` does; before `start`. Its steps must come in the same order."""
        self._bodies[kind] = body

    async def start(self) -> None:
        """Open the journal and go on with every run that was not finished, after about a second.

        Raises `JournalError` when another process or host uses it, `Corrupted`, `Unreachable`.
        """
        self._take_lock()
        try:
            if self._lease is None:
                _make_file(self._file)
            else:
                await asyncio.to_thread(self._lease.take)
        except ReunaError:
            self._give_lock()
            raise
        self._dbos = DBOS(config=self._config())
        _log_as_ours()
        for kind in {RUN, *self._bodies}:
            workflow = DBOS.workflow(name=_workflow(kind), max_recovery_attempts=None)
            self._workflows[kind] = workflow(self._executor())
        # In this thread, although it blocks for 50 ms: DBOS adopts the loop that runs here.
        # Launched from another thread it would carry out recovered runs on a loop of its own.
        try:
            DBOS.launch()
        except DBAPIError as error:
            if self._server is None and not _is_full(error.orig):
                raise
            raise _problem(error, self.where) from error
        # DBOS would try for ever, in threads that no stop ends; we try each run again, as on a full disk.
        self._dbos._sys_db._retry_connection_errors = False

    @property
    def where(self) -> str:
        """The journal, as messages name it."""
        return self._server.where if self._server else f"{self._file.name} in {self._file.parent}"

    async def guard(self) -> None:
        """Look after the right to carry out runs. Raises `JournalError` when another process took it."""
        while True:
            await asyncio.sleep(GUARD_S)
            if self._lease is None:
                continue
            try:
                await asyncio.to_thread(self._lease.check)
            except Unreachable as error:
                log.warning("%s the journal is away, runs wait: %s", error.code, error)

    async def stop(self) -> None:
        """Close the journal; unfinished runs are interrupted and go on at the next start."""
        tasks = [*self._tasks.values(), *self._retries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # DBOS made its pool the default of this loop and is about to close it.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        await asyncio.to_thread(partial(DBOS.destroy, destroy_registry=True))
        if self._engine is not None:
            self._engine.dispose()
        if self._lease is not None:
            self._lease.give()
        self._give_lock()

    def durability(self) -> str:
        """How the open journal writes; after `start`."""
        assert self._dbos is not None
        connection = self._dbos._sys_db.engine.raw_connection()  # DBOS tells it in no other way
        try:
            found: Any = connection.driver_connection
            assert found is not None
            if self._server is None:
                return written_how(found)
            return f"synchronous_commit={found.execute('SHOW synchronous_commit').fetchone()[0]}"
        finally:
            connection.close()

    async def submit(self, kind: str, run: str, spec: str) -> None:
        """Begin a run; nothing happens when there is, or was, one of that name.

        Raises `JournalError` for a kind that was not registered, `DiskFull`.
        """
        self._body(kind)
        with self._asking(), _own_errors(), SetWorkflowID(run):
            await DBOS.start_workflow_async(self._workflows[kind], kind, spec)

    async def status(self, run: str) -> dict[str, Any]:
        """Where a run is, by ``state``: running, done, failed or cancelled. Raises `RunNotFound`.

        A run that is done has its ``result``, one that failed ``message`` and ``code``. Of one that is being
        carried out here no table is read, however often it is asked for.
        """
        if any(_life(workflow)[0] == run for workflow in self._working):
            return {"state": "running"}
        with self._asking():
            found = await DBOS.get_workflow_status_async(await _newest(run))
        if found is None:
            raise _no_run(run)
        state = STATES.get(found.status, "running")
        status: dict[str, Any] = {"state": state}
        if state == "done":
            status["result"] = found.output
        if state == "failed":
            error = found.error
            status["message"] = str(error)
            status["code"] = error.code if isinstance(error, ReunaError) else ""
        return status

    async def runs(self, limit: int, kind: str = RUN) -> list[tuple[str, str, float, str]]:
        """Name, state, begin (seconds since the epoch) and spec of runs of a kind, the newest first.

        One that was resumed began when it was.
        """
        with self._asking():
            found = await DBOS.list_workflows_async(
                name=_workflow(kind), limit=limit, sort_desc=True, load_output=False
            )
        newest: dict[str, Any] = {}
        for each in found:
            run, life = _life(each.workflow_id)
            if run not in newest or life > _life(newest[run].workflow_id)[1]:
                newest[run] = each
        return [
            (run, STATES.get(each.status, "running"), (each.created_at or 0) / 1000, _spec(each))
            for run, each in newest.items()
        ]

    async def spec(self, run: str) -> str:
        """What a run was begun with. Raises `RunNotFound`."""
        with self._asking():
            found = await DBOS.get_workflow_status_async(run)
        if found is None or LIFE in run:
            raise _no_run(run)
        return _spec(found)

    async def resume(self, run: str) -> None:
        """Let a run that was cancelled or failed go on at the first step that was not done; others stay.

        Its body finds in `Journal.life` the how-many-eth life this is. Raises `RunNotFound`, `DiskFull`.
        """
        async with self._resuming:
            state = (await self.status(run))["state"]
            if state not in {"cancelled", "failed"}:
                return
            with self._asking():
                last = await _newest(run)
                steps = await DBOS.list_workflow_steps_async(last)
            end = max(steps, key=lambda step: step["function_id"], default=None)
            again = state == "failed" and end is not None and end["error"] is not None
            start = 1 if end is None else end["function_id"] + (not again)
            with self._asking(), _own_errors(), SetWorkflowID(f"{run}{LIFE}{_life(last)[1] + 1}"):
                await DBOS.fork_workflow_async(last, start, application_version=self._version)

    async def result(self, run: str) -> Any:
        """Wait for a run's end. Raises the error it ended with; `RunFailed` if it was cancelled."""
        await self.status(run)
        with self._asking():
            last = await _newest(run)
        if last in self._tasks:
            await asyncio.wait([self._tasks[last]])
        try:
            with self._asking():
                handle: Any = await DBOS.retrieve_workflow_async(last)
                return await handle.get_result(polling_interval_sec=POLL_S)
        except dbos_error.DBOSAwaitedWorkflowCancelledError as error:
            raise RunFailed(f"the run {run} was cancelled", "Start another run.") from error

    async def send(self, run: str, topic: str, message: str) -> None:
        """Leave a message for `Journal.await_event`, durable on return. Raises `RunNotFound`."""
        try:
            with self._asking():
                await DBOS.send_async(await _newest(run), message, topic)
        except dbos_error.DBOSNonExistentWorkflowError as error:
            raise _no_run(run) from error
        await asyncio.sleep(0.001)  # DBOS orders messages by the millisecond they were sent in

    async def cancel(self, run: str) -> None:
        """End a run until somebody resumes it; ``CancelledError`` reaches its step. Raises `RunNotFound`."""
        await self.status(run)
        with self._asking():
            last = await _newest(run)
            await DBOS.cancel_workflow_async(last)
        if last in self._tasks:
            self._tasks[last].cancel()
            await asyncio.wait([self._tasks[last]])

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Around what somebody waits for. Raises `DiskFull`, `Unreachable`, `JournalError`."""
        try:
            yield
        except DBAPIError as error:
            raise _problem(error, self.where) from error

    def _executor(self) -> Callable[[str, str], Awaitable[Any]]:
        async def execute(kind: str, spec: str) -> Any:
            run, task = DBOS.workflow_id, asyncio.current_task()
            assert run is not None
            assert task is not None
            self._tasks[run] = task
            task.add_done_callback(partial(self._ended, run))
            self._working.add(run)
            try:
                return _plain(await self._body(kind)(DbosJournal(_life(run)[1]), spec), "the run's end")
            except DBAPIError as error:
                self._try_again(run, error)
                raise asyncio.CancelledError from error  # DBOS stores any other end as final
            finally:
                self._working.discard(run)

        return execute

    def _ended(self, run: str, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(run, None)
        if not task.cancelled() and isinstance(error := task.exception(), DBAPIError):
            self._try_again(run, error)  # the run's end could not be journalled

    def _try_again(self, run: str, error: DBAPIError) -> None:
        code = _problem(error, self.where).code
        said = _first_line(error)
        log.error("%s journal of run %s cannot be written, again in %g s: %s", code, run, RETRY_S, said)
        retry = asyncio.ensure_future(_resume(run))
        self._retries.add(retry)
        retry.add_done_callback(self._retries.discard)

    def _body(self, kind: str) -> Body:
        if kind not in self._bodies:
            raise JournalError(f"this version knows no runs of kind {kind!r}")
        return self._bodies[kind]

    def _take_lock(self) -> None:
        """Two processes on one journal would both carry out its runs."""
        if DbosHost._started is not None:
            raise JournalError("this process has already opened a journal")
        self._lock_fd = os.open(self._file.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_fd)
            raise JournalError(
                f"another process uses the journal {self._file}", "Stop the other cloud process first."
            ) from error
        DbosHost._started = self

    def _give_lock(self) -> None:
        os.close(self._lock_fd)
        DbosHost._started = None

    def _config(self) -> DBOSConfig:
        where: DBOSConfig = {
            "system_database_url": f"sqlite:///{self._file}",
            "db_engine_kwargs": {"connect_args": {"factory": Durable}},
        }
        if self._server is not None:
            self._engine = self._server.engine()
            where = {"system_database_engine": self._engine}
        return {
            **where,
            "name": APPLICATION,
            "application_version": self._version,
            "executor_id": "cloud",
            "serializer": JsonSerializer(),
            "max_executor_threads": THREADS,
            "notification_listener_polling_interval_sec": POLL_S,
            "enable_otlp": False,
            "log_level": "WARNING",
        }


def _workflow(kind: str) -> str:
    """What DBOS calls the runs of a kind."""
    return WORKFLOW if kind == RUN else f"reuna.{kind}"


async def _newest(run: str) -> str:
    """DBOS's name of a run's newest life."""
    lives = await DBOS.list_workflows_async(
        workflow_id_prefix=f"{run}{LIFE}", load_input=False, load_output=False
    )
    own = [each.workflow_id for each in lives if _life(each.workflow_id)[0] == run]  # "_" is any sign there
    return max(own, key=lambda name: _life(name)[1], default=run)


def _life(workflow: str) -> tuple[str, int]:
    """The run, and the how-many-eth of its lives."""
    run, _, life = workflow.partition(LIFE)
    return run, int(life or 1)


async def _resume(run: str) -> None:
    """Let DBOS take the run up at its last journalled step, as soon as it can write that down."""
    while True:
        await asyncio.sleep(RETRY_S)
        try:
            await DBOS.resume_workflow_async(run)
        except DBAPIError as error:
            log.warning("journal of run %s still cannot be written: %s", run, _first_line(error))
        else:
            return


def newest_schema(on_server: bool = False) -> int:
    """To which version this DBOS brings the tables of a journal, in a file or on a server."""
    return len(get_dbos_migrations("dbos", True, False)) if on_server else len(sqlite_migrations)


def _make_file(path: Path) -> None:
    """Make or open the journal in WAL mode, which the file remembers: fewer forced writes a step."""
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode=WAL").fetchone()
    except sqlite3.DatabaseError as error:
        if _is_full(error):
            raise DiskFull(f"no space left for {path.name} in {path.parent}") from error
        raise Corrupted(f"{path} cannot be opened as a journal: {error}") from error
    path.chmod(0o600)


def _now(form: str) -> float | None:
    """Seconds since the epoch in milliseconds, in the only form that DBOS asks for; else nothing."""
    return round(time.time(), 3) if form == "subsec" else None


def _is_full(error: object) -> bool:
    return (
        getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        or getattr(error, "sqlstate", None) == DISK_FULL
    )


def _first_line(error: DBAPIError) -> str:
    """What the database said, without the statement."""
    return (str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0]


def _problem(error: DBAPIError, where: str) -> ReunaError:
    """Why a journal cannot be written."""
    if _is_full(error.orig):
        return DiskFull(f"no space left for the journal {where}")
    said = _first_line(error)
    lost = error.connection_invalidated or isinstance(error, OperationalError)
    if lost and not isinstance(error.orig, sqlite3.Error):
        return Unreachable(f"the journal {where} is away: {said}")
    return JournalError(f"the journal {where} cannot be written: {said}")


def _log_as_ours() -> None:
    """Let DBOS's warnings go where the process's log goes, not to the console in its own format."""
    logger = logging.getLogger("dbos")
    logger.handlers.clear()
    logger.propagate = True
    logger.addFilter(_worth_saying)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Runs interrupted by `stop` or `cancel` are no news; of a database's error the first line is."""
    said = record.getMessage()
    record.msg, record.args = said.partition("\n")[0], ()
    return not said.startswith("Asyncio task cancelled")


@contextmanager
def _own_errors() -> Iterator[None]:
    """DBOS's own errors as ours, e.g. when a body takes other steps than those journalled."""
    try:
        yield
    except dbos_error.DBOSException as error:
        raise JournalError(f"the journal refuses: {error}") from error


def _spec(found: Any) -> str:
    """What a run was begun with: the last of its arguments, kind and spec."""
    given = (found.input or {}).get("args") or ("",)
    return str(given[-1])


def _plain(value: T, name: str) -> T:
    """The value as JSON gives it back, so that a first life sees what a replay will see."""
    try:
        plain: T = json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise JournalError(f"{name}: the result is no plain JSON value: {error}") from error
    return plain


async def _ready(value: T) -> T:
    return value


async def _ended(work: Coroutine[Any, Any, T]) -> Callable[[], T]:
    """How work ended: what gives its result again, or raises its error.

    In a context of its own: what it asks of DBOS would else be taken for further steps of the run.
    """
    try:
        result = await asyncio.create_task(work, context=Context())
    except Exception as error:  # noqa: BLE001 - as DBOS, which journals how a step failed
        return partial(_raise, error)
    return partial(_given, result)


def _given(value: T) -> T:
    return value


def _raise(error: Exception) -> NoReturn:
    raise error


def _no_run(run: str) -> RunNotFound:
    return RunNotFound(f"the cloud knows no run {run!r}")


def _error_fields(error: BaseException) -> dict[str, str]:
    if not isinstance(error, ReunaError):
        return {"code": RunFailed.code, "message": f"the run met {type(error).__name__}: {error}"}
    fields = {"code": error.code, "message": error.message, "next_step": error.next_step}
    if reason := getattr(error, "reason", ""):
        fields["reason"] = reason
    return fields


def _error(fields: dict[str, str]) -> ReunaError:
    """The error that was stored; one of a later version's codes as `RunFailed`."""
    code, message, next_step = fields["code"], fields["message"], fields.get("next_step")
    return told(code, message, next_step, fields.get("reason", "")) or RunFailed(message, next_step)
