"""The journal on a real PostgreSQL: the server goes and comes back, another cloud wants it, its disk is full."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from contextlib import asynccontextmanager, closing

import pytest

from reuna.adapters import journal_dbos
from reuna.adapters.journal_dbos import DbosHost
from reuna.adapters.journal_state import OpenRun, on_server
from reuna.adapters.postgresql import PostgresqlDatabase
from reuna.core.errors import JournalError, Unreachable
from tests.servers.postgresql import PASSWORD


@asynccontextmanager
async def hosting(folder, server, body):
    with closing(PostgresqlDatabase(server.url(), "journal")) as database:
        host = DbosHost(folder, server=database)
        host.register("kind", body)
        await host.start()
        try:
            yield host
        finally:
            await host.stop()


async def _result(host, run):
    while (await host.status(run))["state"] == "running":  # its end may be written down a moment later
        await asyncio.sleep(0.02)
    return await host.result(run)


async def test_a_run_goes_on_at_its_last_journalled_step_when_its_server_was_killed_and_is_back(
    tmp_path, postgresql, monkeypatch
):
    monkeypatch.setattr(journal_dbos, "RETRY_S", 0.2)
    done, gone = [], asyncio.Event()

    async def work(name):
        done.append(name)
        if name == "two" and not gone.is_set():
            await asyncio.to_thread(postgresql.stop)
            gone.set()
        return name

    async def body(journal, spec):
        return [await journal.step(name, lambda name=name: work(name)) for name in ("one", "two", "three")]

    async with hosting(tmp_path, postgresql, body) as host:
        await host.submit("kind", "run", "")
        await gone.wait()
        beats = 0
        starting = asyncio.create_task(asyncio.to_thread(postgresql.start))
        while not starting.done():  # the loop of the cloud goes on meanwhile
            await asyncio.sleep(0.01)
            beats += 1
        await starting
        assert beats > 3
        assert await _result(host, "run") == ["one", "two", "three"]
        assert done == ["one", "two", "two", "three"]


async def test_two_clouds_never_carry_out_the_runs_of_one_journal(tmp_path, postgresql):
    async def body(journal, spec):
        return None

    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from reuna.adapters.journal_dbos import DbosHost\nfrom reuna.adapters.postgresql import PostgresqlDatabase\n"
        "asyncio.run(DbosHost(Path(sys.argv[1]), server=PostgresqlDatabase(sys.argv[2], 'journal')).start())"
    )
    async with hosting(tmp_path / "one", postgresql, body):
        command = [sys.executable, "-c", script, str(tmp_path / "two"), postgresql.url()]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert "another process uses the journal in PostgreSQL 127.0.0.1" in done.stderr
        assert PASSWORD not in done.stderr + done.stdout


async def test_the_lease_comes_back_with_the_server_unless_another_took_it(tmp_path, postgresql, monkeypatch):
    monkeypatch.setattr(journal_dbos, "GUARD_S", 0.05)

    async def body(journal, spec):
        return None

    async with hosting(tmp_path, postgresql, body) as host:
        guard = asyncio.create_task(host.guard())
        await asyncio.to_thread(postgresql.stop)
        await asyncio.to_thread(postgresql.start)
        with closing(PostgresqlDatabase(postgresql.url(), "other")) as database:
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            while database.rows(held)[0][0] == 0:
                await asyncio.sleep(0.02)
            thief = database.lease()
            with pytest.raises(JournalError):
                thief.take()
            postgresql.sql(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reuna lease'",
            )
            try:
                thief.take()
            except JournalError:
                pass  # the host was faster: it may have it
            else:
                with pytest.raises(JournalError, match="another process uses the journal"):
                    await guard
            thief.give()
        guard.cancel()


async def test_a_journal_that_is_away_at_the_start_is_said_to_be(tmp_path, postgresql):
    with closing(PostgresqlDatabase(postgresql.url(), "journal")) as database:
        host = DbosHost(tmp_path, server=database)
        postgresql.stop()
        try:
            with pytest.raises(Unreachable, match="PostgreSQL 127.0.0.1:"):
                await host.start()
        finally:
            postgresql.start()
        await host.start()
        await host.stop()


async def test_what_a_server_cannot_take_is_tried_again_until_it_can(
    tmp_path, postgresql, monkeypatch, caplog
):
    """Its disk cannot be filled here without filling ours; a table that refuses says the same, by that code."""
    monkeypatch.setattr(journal_dbos, "RETRY_S", 0.2)
    full = (
        "CREATE FUNCTION dbos.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON dbos.operation_outputs EXECUTE FUNCTION dbos.full_disk()"
    )
    begun = asyncio.Event()

    async def one():
        if not begun.is_set():
            await asyncio.to_thread(postgresql.sql, "reuna", full)
            begun.set()
        return 1

    async def body(journal, spec):
        return await journal.step("round 1", one)

    with caplog.at_level(logging.ERROR, "reuna.journal"):
        async with hosting(tmp_path, postgresql, body) as host:
            await host.submit("kind", "run", "")
            await begun.wait()
            while "R401" not in caplog.text:
                await asyncio.sleep(0.01)
            with closing(PostgresqlDatabase(postgresql.url(), "look", looks=True)) as database:
                state = on_server(database.rows)
            assert state.runs == [OpenRun("run", 0, journal_dbos.VERSION)]
            assert state.schema == journal_dbos.newest_schema(on_server=True)
            await asyncio.to_thread(
                postgresql.sql, "reuna", "DROP TRIGGER full_disk ON dbos.operation_outputs"
            )
            assert await _result(host, "run") == 1
