"""The edge's workshop: what a worker is lent, what is taken from it, and how confined it must be."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reuna.adapters import fingerprint
from reuna.adapters.files import FileBlob, FileBlobs, HeldBlob
from reuna.adapters.fingerprint import DATA_KEY, window_of
from reuna.adapters.project import pack_bundle
from reuna.adapters.sandbox import HIGHEST, SandboxLimits, probe
from reuna.adapters.worker import Worker
from reuna.core.contract import Contract, Line, Signal, as_settings
from reuna.core.errors import ContractBroken, DataError, LearnerError, SandboxTooWeak
from reuna.core.fingerprint import Window
from reuna.core.records import Setting, Terms
from reuna.core.tensors import pack, unpack
from reuna.edge.settings import EDGE
from reuna.edge.workshop import TRAINED, WorkerWorkshop, give_back, given, take
from reuna.exchange.sandbox_settings import sandbox_limits

MODEL = """
import os
import numpy as np

def load(folder, settings):
    return float((folder / "rows.txt").read_text())

class Adds:
    def fit(self, model, data, settings, seed):
        if settings.get("what") == "large":
            return {"w": np.zeros(1 << 20, np.float32)}, 1, {}
        return {"w": model["w"] + np.float32(data)}, 5, {}

    def evaluate(self, model, data, settings):
        if settings.get("what") == "process":
            return {"pid": os.getpid()}
        return {"sum": model["w"].sum()}

def learner(settings):
    return Adds()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A node's data, and a project."""
    for name in ("data", "project"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "rows.txt").write_text("2.5")
    (tmp_path / "project" / "model.py").write_text(MODEL)
    return tmp_path


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "state" / "blobs")


def workshop_in(
    site: Path, min_level: int = 0, limits: SandboxLimits | None = None, idle_s: float = 60.0
) -> WorkerWorkshop:
    limits = limits or SandboxLimits()
    return WorkerWorkshop(site / "state" / "work", site / "data", idle_s, limits, min_level)


@pytest.fixture
async def workshop(site: Path) -> AsyncIterator[WorkerWorkshop]:
    made = workshop_in(site)
    yield made
    await made.close()


SETTINGS = {"entry": "model"}


async def test_a_model_is_lent_trained_and_taken_out_of_the_workers_reach(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    base = blobs.put(pack({"w": np.ones(2, np.float32)}))
    await workshop.open("r-1", blobs.put(pack_bundle(site / "project")), SETTINGS, Terms())
    fitted = await workshop.fit(base, SETTINGS, 1)
    assert fitted.weight == 5
    assert unpack(fitted.weights.read(0, fitted.weights.size))["w"].tolist() == [3.5, 3.5]
    assert (site / "state" / "work" / TRAINED).is_file()
    assert not list((site / "state" / "work" / "made").glob("*.safetensors"))
    assert await workshop.evaluate(fitted.weights, SETTINGS) == {"sum": 7.0}
    assert [path.name for path in (site / "state" / "work" / "lent").iterdir()] == ["own"]
    assert await workshop.evaluate(base, SETTINGS) == {"sum": 2.0}
    assert [path.name for path in (site / "state" / "work" / "lent").iterdir()] == [base.digest]


async def test_a_model_in_memory_is_trained_without_a_file(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    base = HeldBlob(pack({"w": np.ones(2, np.float32)}), "")
    await workshop.open("r-1", blobs.put(pack_bundle(site / "project")), SETTINGS, Terms())
    fitted = await workshop.fit(base, SETTINGS, 1)
    assert unpack(fitted.weights.read(0, fitted.weights.size))["w"].tolist() == [3.5, 3.5]
    assert await workshop.evaluate(fitted.weights, SETTINGS) == {"sum": 7.0}
    assert not [*(site / "state" / "work" / "lent").iterdir(), *(site / "state" / "work" / "made").iterdir()]


def test_a_model_that_a_worker_gives_is_as_large_as_the_one_it_was_given() -> None:
    """What the project's code makes larger would not fit into the frame to the egress."""
    assert given(b"abc", 3).data == b"abc"
    for made in (b"", b"abcd"):
        with pytest.raises(LearnerError, match=f"a model of {len(made)} bytes for one of 3"):
            given(made, 3)


async def test_a_model_on_another_file_system_is_copied(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(os, "link", refuse)
    await workshop.open("r-1", blobs.put(pack_bundle(site / "project")), SETTINGS, Terms())
    assert await workshop.evaluate(blobs.put(pack({"w": np.ones(2, np.float32)})), SETTINGS) == {"sum": 2.0}


async def test_a_sandbox_below_what_the_node_asks_for_trains_nothing(site: Path, blobs: FileBlobs) -> None:
    (site / "project" / "model.py").write_text("raise RuntimeError('a line of the project ran')")
    workshop = workshop_in(site, min_level=HIGHEST + 1)
    with pytest.raises(
        SandboxTooWeak, match=r"reaches level \d, this node and its policy ask for 4"
    ) as caught:
        await workshop.open("r-1", blobs.put(pack_bundle(site / "project")), SETTINGS, Terms())
    assert "reuna sandbox" in caught.value.next_step
    assert not (site / "state" / "work" / "worker.log").read_text()
    await workshop.close()


async def test_a_sandbox_below_what_the_sites_policy_asks_for_trains_nothing(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    (site / "project" / "model.py").write_text("raise RuntimeError('a line of the project ran')")
    bundle = blobs.put(pack_bundle(site / "project"))
    with pytest.raises(SandboxTooWeak, match=r"reaches level \d, this node and its policy ask for 4"):
        await workshop.open("r-1", bundle, SETTINGS, Terms(HIGHEST + 1))
    assert not (site / "state" / "work" / "worker.log").read_text()
    assert workshop.level == 0, "the worker is gone"


async def process_of(workshop: WorkerWorkshop, run: str, bundle: FileBlob, blobs: FileBlobs) -> int:
    """Process in which the project's code runs for a run and bundle."""
    await workshop.open(run, bundle, SETTINGS, Terms())
    asked = {**SETTINGS, "what": "process"}
    found = await workshop.evaluate(blobs.put(pack({"w": np.ones(2, np.float32)})), asked)
    return int(found["pid"])


def ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_worker_stays_for_its_run_and_another_run_has_a_fresh_one(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    bundle = blobs.put(pack_bundle(site / "project"))
    first = await process_of(workshop, "r-1", bundle, blobs)
    assert await process_of(workshop, "r-1", bundle, blobs) == first
    second = await process_of(workshop, "r-2", bundle, blobs)
    assert second != first
    assert ended(first)
    assert not ended(second)


async def test_another_bundle_has_a_fresh_worker_with_its_own_code(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    first = await process_of(workshop, "r-1", blobs.put(pack_bundle(site / "project")), blobs)
    (site / "project" / "model.py").write_text(MODEL.replace(".sum()", ".sum() * 100"))
    other = blobs.put(pack_bundle(site / "project"))
    assert await process_of(workshop, "r-1", other, blobs) != first
    assert ended(first)
    assert await workshop.evaluate(blobs.put(pack({"w": np.ones(2, np.float32)})), SETTINGS) == {"sum": 200.0}


async def test_a_worker_is_idle_since_its_last_work_and_never_while_it_works(site: Path) -> None:
    workshop, ended, now_s = workshop_in(site, idle_s=50.0), list[bool](), asyncio.get_running_loop().time()
    workshop._end_idle = lambda: ended.append(True)  # type: ignore[method-assign]
    workshop._rest()
    workshop._busy()
    workshop._look_idle()
    assert (ended, workshop._idle) == ([], None), "who works is looked at again when it has done"
    workshop._rest()
    workshop._rests_s = now_s + 10  # it has worked once more
    workshop._look_idle()
    assert workshop._idle is not None
    assert workshop._idle.when() == now_s + 60
    assert not ended
    workshop._rests_s = now_s - 50
    workshop._look_idle()
    assert ended


async def test_an_idle_worker_ends_and_the_next_work_begins_another(site: Path, blobs: FileBlobs) -> None:
    workshop, bundle = workshop_in(site, idle_s=0.01), blobs.put(pack_bundle(site / "project"))
    first = await process_of(workshop, "r-1", bundle, blobs)
    async with asyncio.timeout(60):
        while not ended(first):  # another process is what we wait for
            await asyncio.sleep(0.01)
    assert workshop.level == 0
    assert await process_of(workshop, "r-1", bundle, blobs) != first
    await workshop.close()


async def test_the_level_this_machine_reaches_is_enough_when_it_is_asked_for(
    site: Path, blobs: FileBlobs
) -> None:
    workshop = workshop_in(site, min_level=probe().number)
    await workshop.open("r-1", blobs.put(pack_bundle(site / "project")), SETTINGS, Terms())
    await workshop.close()


async def test_a_model_larger_than_a_file_may_be_is_the_projects_fault(site: Path, blobs: FileBlobs) -> None:
    workshop = workshop_in(site, limits=SandboxLimits(file_mib=1))
    base = blobs.put(pack({"w": np.zeros(1 << 20, np.float32)}))
    settings = {**SETTINGS, "what": "large"}
    await workshop.open("r-1", blobs.put(pack_bundle(site / "project")), settings, Terms())
    with pytest.raises(LearnerError, match="larger than a file may be"):
        await workshop.fit(base, settings, 1)
    await workshop.close()


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "pipe", "folder", "nothing"])
def test_only_a_plain_file_of_one_name_is_taken_for_a_model(tmp_path: Path, kind: str) -> None:
    (tmp_path / "key").write_text("the node's key")
    made, kept = tmp_path / "made", tmp_path / "kept"
    match kind:
        case "symbolic link":
            made.symlink_to(tmp_path / "key")
        case "hard link":
            made.hardlink_to(tmp_path / "key")
        case "pipe":
            os.mkfifo(made)
        case "folder":
            made.mkdir()
    with pytest.raises(LearnerError, match="left no model|other than a plain file"):
        take(made, kept)
    assert not os.path.lexists(kept)


def test_a_plain_file_is_taken_and_the_one_before_is_gone(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("before")
    (tmp_path / "made").write_text("model")
    taken = take(tmp_path / "made", tmp_path / "kept")
    assert isinstance(taken, FileBlob)
    assert taken.read(0, 99) == b"model"
    assert not (tmp_path / "made").exists()


async def test_a_worker_writes_over_what_it_made_before_and_another_worker_does_not(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    base, bundle = blobs.put(pack({"w": np.ones(2, np.float32)})), blobs.put(pack_bundle(site / "project"))
    seen = []
    with ExitStack() as held:  # open, so that no number is given twice
        for run in ("r-1", "r-1", "r-2"):
            await workshop.open(run, bundle, SETTINGS, Terms())
            fitted = await workshop.fit(base, SETTINGS, 1)
            assert unpack(fitted.weights.read(0, fitted.weights.size))["w"].tolist() == [3.5, 3.5]
            file = held.enter_context((site / "state" / "work" / TRAINED).open("rb"))
            seen.append(os.fstat(file.fileno()).st_ino)
    assert seen[0] == seen[1] != seen[2]


def test_a_worker_that_puts_something_else_in_the_way_trains_no_worse(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("before")
    (tmp_path / "made.part").mkdir()
    give_back(tmp_path / "kept", tmp_path / "made.part")
    assert (tmp_path / "kept").read_text() == "before"
    give_back(tmp_path / "nothing", tmp_path / "made.part")


def test_a_node_asks_for_the_highest_level_unless_its_settings_say_less() -> None:
    defaults = {option.name: option.default for option in EDGE}
    assert defaults["sandbox.min_level"] == HIGHEST
    assert sandbox_limits(defaults) == SandboxLimits()
    levels = next(option.check for option in EDGE if option.name == "sandbox.min_level")
    assert levels is not None
    assert levels(HIGHEST + 1)


READS = """
from reuna import read_folder

def load(folder, settings):
    (table,) = read_folder(folder)["all"]
    return table.matrix(settings["signals"].split(","))

class Sums:
    def fit(self, model, data, settings, seed):
        return model, len(data), {}

    def evaluate(self, model, data, settings):
        return {"sum": data.sum()}

def learner(settings):
    return Sums()
"""


def reading(signals: str) -> dict[str, Setting]:
    return {"entry": "model", "signals": signals}


@pytest.fixture
def pumps(site: Path) -> Path:
    (site / "data" / "pump.csv").write_text("flow,leader\n1,7\n2,7\n")
    (site / "data" / "note.txt").write_text("press operator: Ann")
    (site / "project" / "model.py").write_text(READS)
    return site


@pytest.mark.skipif(probe().number < HIGHEST, reason="this machine's sandbox hides no files")
async def test_code_reads_the_columns_that_its_site_lets_it_and_no_other(
    workshop: WorkerWorkshop, pumps: Path, blobs: FileBlobs
) -> None:
    bundle = blobs.put(pack_bundle(pumps / "project"))
    base = blobs.put(pack({"w": np.ones(2, np.float32)}))
    await workshop.open("r-1", bundle, reading("flow"), Terms(columns=("flow",)))
    assert await workshop.evaluate(base, reading("flow")) == {"sum": 3.0}
    with pytest.raises(DataError, match=r"no column 'leader'.*policy lets code read only flow"):
        await workshop.open("r-2", bundle, reading("leader"), Terms(columns=("flow",)))
    shown = pumps / "state" / "work" / "shown"
    assert [path.name for path in shown.iterdir()] == ["pump.csv"]
    await workshop.open("r-2", bundle, reading("leader"), Terms())
    assert await workshop.evaluate(base, reading("leader")) == {"sum": 14.0}
    assert not shown.exists()


@pytest.mark.skipif(probe().number < HIGHEST, reason="this machine's sandbox hides no files")
async def test_code_that_knows_where_the_data_lies_cannot_open_it_beside_the_copy(
    workshop: WorkerWorkshop, pumps: Path, blobs: FileBlobs
) -> None:
    beside = f"def load(folder, settings):\n    return open({str(pumps / 'data' / 'pump.csv')!r}).read()\n"
    (pumps / "project" / "model.py").write_text(READS + beside)
    bundle = blobs.put(pack_bundle(pumps / "project"))
    with pytest.raises(LearnerError, match="PermissionError"):
        await workshop.open("r-1", bundle, reading("flow"), Terms(columns=("flow",)))


async def test_other_terms_in_the_same_run_begin_a_new_worker(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reuna.edge.workshop.HIGHEST", 0)
    bundle = blobs.put(pack_bundle(site / "project"))
    base = blobs.put(pack({"w": np.ones(2, np.float32)}))
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    assert await workshop.evaluate(base, SETTINGS) == {"sum": 2.0}
    with pytest.raises(LearnerError, match="rows.txt"):
        await workshop.open("r-1", bundle, SETTINGS, Terms(columns=("flow",)))


async def test_where_the_sandbox_hides_no_files_no_code_runs_that_may_read_some_columns_alone(
    site: Path, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reuna.edge.workshop.HIGHEST", HIGHEST + 1)
    workshop = workshop_in(site)
    with pytest.raises(SandboxTooWeak, match="hide columns"):
        await workshop.open(
            "r-1", blobs.put(pack_bundle(site / "project")), SETTINGS, Terms(columns=("flow",))
        )
    await workshop.close()


WRONG = """
from reuna.adapters import conformity
conformity.judge_folder = lambda *_: conformity.Judged()
raise RuntimeError("a line of the project ran")
"""


async def test_data_that_break_the_contract_are_seen_by_no_line_of_the_project(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    (site / "data" / "t.csv").write_text("t\n1\n99\n")
    (site / "project" / "model.py").write_text(WRONG)
    agreed = Contract(signals=(Signal("t", max=50, max_bad=0.1),))
    with pytest.raises(ContractBroken, match=r"range of 't': 1 of 2 fail, 10 % may; .*t\.csv"):
        await workshop.open(
            "r-1", blobs.put(pack_bundle(site / "project")), {**SETTINGS, **as_settings(agreed)}, Terms()
        )
    assert Line("range", "t", 1, 1) in workshop.lines
    assert "a line of the project ran" not in (site / "state" / "work" / "worker.log").read_text()


async def test_data_that_keep_the_contract_are_counted_and_trained_on(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    (site / "data" / "t.csv").write_text("t\n1\n99\n")
    bundle = blobs.put(pack_bundle(site / "project"))
    agreed = Contract(signals=(Signal("t", max=50, max_bad=0.5),))
    await workshop.open("r-1", bundle, {**SETTINGS, **as_settings(agreed)}, Terms())
    assert Line("range", "t", 1, 1) in workshop.lines
    await workshop.open("r-2", bundle, SETTINGS, Terms())
    assert workshop.lines == (), "another run has another contract"


async def test_the_data_that_a_run_is_opened_on_have_a_fingerprint_that_no_code_of_the_project_had_a_part_in(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs
) -> None:
    bundle = blobs.put(pack_bundle(site / "project"))
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    first = workshop.window
    found = window_of(site / "data", site / "state" / DATA_KEY)
    assert first
    assert found
    assert (first.fingerprint, first.files, first.bytes) == (found.fingerprint, found.files, found.bytes)
    assert first.setup
    (site / "data" / "t.csv").write_text("t\n5\n")
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    assert workshop.window is first, "the worker has what it loaded"
    await workshop.close()
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    assert workshop.window
    assert workshop.window.fingerprint != first.fingerprint, "the next one loads others"
    assert workshop.window.setup == first.setup


async def test_after_a_survey_the_run_that_follows_reads_no_byte_again_unless_something_changed(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SETTLED_NS", -(10**15))
    looked: list[Path] = []
    monkeypatch.setattr(
        fingerprint, "window_of", lambda data, key: looked.append(data) or window_of(data, key)
    )
    bundle = blobs.put(pack_bundle(site / "project"))
    asked = await workshop.survey(Terms())
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    assert workshop.window == asked
    assert len(looked) == 1
    assert await workshop.survey(Terms()) == asked
    assert len(looked) == 2, "who is asked reads every byte"
    assert await workshop.survey(Terms(columns=("t",))) != asked, "other columns are another setup"
    (site / "data" / "t.csv").write_text("t\n5\n")
    await workshop.open("r-2", bundle, SETTINGS, Terms())
    assert workshop.window != asked
    assert len(looked) == 4


async def test_who_is_cancelled_while_the_data_are_read_leaves_that_to_the_next(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, reads, goes_on = blobs.put(pack_bundle(site / "project")), threading.Event(), threading.Event()
    looked: list[Path] = []

    def slow(data: Path, key: Path) -> Window | None:
        looked.append(data)
        reads.set()
        goes_on.wait(20)
        return window_of(data, key)

    monkeypatch.setattr(fingerprint, "window_of", slow)
    first = asyncio.create_task(workshop.open("r-1", bundle, SETTINGS, Terms()))
    await asyncio.to_thread(reads.wait, 20)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    goes_on.set()
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    assert workshop.window
    assert len(looked) == 1


async def test_of_data_that_change_while_a_worker_loads_them_nothing_is_told_in_that_run(
    workshop: WorkerWorkshop, site: Path, blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = blobs.put(pack_bundle(site / "project"))
    opens = Worker.open

    async def changing(worker: Worker, *given: Any) -> None:
        await opens(worker, *given)
        (site / "data" / "t.csv").write_text("t\n6\n")

    monkeypatch.setattr(Worker, "open", changing)
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    assert workshop.window is None
    monkeypatch.undo()
    await workshop.close()
    await workshop.open("r-1", bundle, SETTINGS, Terms())
    assert workshop.window is None, "it has trained on what nobody can tell"
    await workshop.open("r-2", bundle, SETTINGS, Terms())
    assert workshop.window
