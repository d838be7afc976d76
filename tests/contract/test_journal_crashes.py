"""A life that ends at any moment of any step: simulated, and by SIGKILL of a process with DBOS."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from reuna.sim.clock import run_virtual
from reuna.sim.journal import JournalStore, SimJournal

STEPS = ("first", "second", "third")
MOMENTS = ("before", "during", "done", "after")


async def three_steps(journal, crash, effect):
    """Each step does its effect halfway; ``crash`` may end the process at each moment."""
    total = 0
    for number, name in enumerate(STEPS, 1):

        async def work(name=name, number=number, total=total):
            effect(name)
            await asyncio.sleep(0)
            crash("during", name)
            return {"total": total + number}

        total = (await journal.step(name, work))["total"]
    return total


class Crash(BaseException):
    """Ends a life in the simulator."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("step", STEPS)
def test_simulated_crashes_end_in_the_same_result(moment, step):
    store, effects = JournalStore(), []

    def crash(at, name):
        if (at, name) == (moment, step):
            raise Crash

    with pytest.raises(Crash):
        run_virtual(three_steps(SimJournal(store, hook=crash), crash, effects.append))
    calm = three_steps(SimJournal(store), lambda at, name: None, effects.append)
    assert run_virtual(calm) == 6
    _check_lives(moment, step, effects, [name for name, _ in store.results])


#: Makes one process of its own for each life, without importing DBOS in each anew.
_LIVES = """
    import asyncio, os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from reuna.adapters.journal_dbos import DbosHost
    from test_journal_crashes import MOMENTS, STEPS, three_steps

    async def life(folder, moment, step):
        def crash(at, name):
            if (at, name) == (moment, step):
                os.kill(os.getpid(), signal.SIGKILL)

        def effect(name):
            with open(folder / "effects", "a") as file:
                file.write(name + "\\n")

        class Crashing:
            def __init__(self, journal):
                self._journal = journal

            async def step(self, name, work):
                async def whole():
                    result = await work()
                    crash("done", name)
                    return result
                crash("before", name)
                result = await self._journal.step(name, whole)
                crash("after", name)
                return result

        host = DbosHost(folder)
        host.register("kind", lambda journal, spec: three_steps(Crashing(journal), crash, effect))
        await host.start()
        await host.submit("kind", "run", "")
        (folder / "result").write_text(str(await host.result("run")))
        await host.stop()

    def fork(*arguments):
        child = os.fork()
        if child == 0:
            asyncio.run(life(*arguments))
            os._exit(0)
        return child

    cases = [(moment, step) for moment in MOMENTS for step in STEPS]
    folders = [Path(sys.argv[1]) / "-".join(case) for case in cases]
    for folder in folders:
        folder.mkdir()
    for ends, killed in ((-signal.SIGKILL, True), (0, False)):
        for half in (slice(0, 6), slice(6, 12)):
            children = [
                fork(folder, *(case if killed else (None, None)))
                for folder, case in zip(folders[half], cases[half])
            ]
            for child in children:
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert status == ends, (status, ends)
"""


def test_real_kills_end_in_the_same_result(tmp_path):
    script = textwrap.dedent(_LIVES).format(tests=str(Path(__file__).parent))
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=True, timeout=90, env=os.environ.copy()
    )
    for moment in MOMENTS:
        for step in STEPS:
            folder = tmp_path / f"{moment}-{step}"
            assert (folder / "result").read_text() == "6"
            _check_lives(moment, step, (folder / "effects").read_text().split(), _journalled(folder))


def _journalled(folder):
    database = sqlite3.connect(folder / "journal.sqlite")
    rows = database.execute("SELECT function_name FROM operation_outputs ORDER BY function_id").fetchall()
    database.close()
    return [name for (name,) in rows]


def _check_lives(moment, step, effects, journalled):
    """Each effect is journalled once; only a step that was cut off is done again."""
    assert journalled == list(STEPS)
    again = {step} if moment in ("during", "done") else set()
    assert {name: effects.count(name) for name in STEPS} == {
        name: 2 if name in again else 1 for name in STEPS
    }
