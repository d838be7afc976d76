"""The training process: resident, alone, and clear about what went wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import reuna
from reuna.adapters.framed import Frames
from reuna.adapters.sandbox import Level, worker_environment
from reuna.adapters.worker import (
    Desk,
    FitResult,
    Worker,
    __main__,
    messages,
    parent,
)
from reuna.adapters.worker.bench import Bench, write_model
from reuna.adapters.worker.messages import MAX_FRAME
from reuna.adapters.worker.parent import last_lines
from reuna.core.errors import (
    BadMessage,
    Corrupted,
    DataError,
    ExtraMissing,
    LearnerError,
    NotUsable,
    ProjectError,
    WorkerFailed,
)
from reuna.core.gates import Gate, as_settings
from reuna.core.tensors import pack, unpack

MODEL = """
import os, sys, time
import numpy as np
from reuna.core.errors import DataError, ExtraMissing

LOADED = 0

def load(folder, settings):
    global LOADED
    LOADED += 1
    if settings.get("rows") == "none":
        raise DataError("this node has no rows", "Ask the plant.")
    return float((folder / "rows.txt").read_text())

class Adds:
    def init(self, seed):
        return {"w": np.zeros(3, np.float32)}

    def fit(self, model, data, settings, seed):
        what = settings.get("what", "")
        if what == "die":
            print("the last words of a worker")
            sys.stdout.flush()
            os._exit(7)
        if what == "exit":
            sys.exit("enough")
        if what == "raise":
            return 1 / 0
        if what == "scream":
            raise ValueError("x" * 10_000_000)
        if what == "sleep":
            time.sleep(60)
        if what == "extra":
            raise ExtraMissing("pictures are missing", "Install pictures.")
        if what == "doubles":
            return {"w": np.zeros(3)}, 1, {}
        if what == "grow":
            return {"w": np.zeros(4, np.float32)}, 1, {}
        if what == "in place":
            model["w"][0] = 1
        metrics = {"threads": float(os.environ["OMP_NUM_THREADS"]), "loaded": float(LOADED), "seed": float(seed)}
        if what == "nan":
            metrics["bad"] = float("nan")
        if what == "many":
            metrics = {str(number): 0.0 for number in range(65)}
        if what == "text":
            metrics = {"loss": "low"}
        if what == "none":
            metrics = None
        weight = {"weightless": 0, "half": 1.5}.get(what, 5)
        return {"w": model["w"] + np.float32(data)}, weight, metrics

    def evaluate(self, model, data, settings):
        return {"sum": model["w"].sum(), "secret": float("SECRET_TOKEN" in os.environ)}

    def export(self, model):
        return b""

def learner(settings):
    return Adds()
"""


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A project, a node's data, and a model."""
    for name in ("project", "data", "lent"):
        (tmp_path / name).mkdir()
    (tmp_path / "project" / "model.py").write_text(MODEL)
    (tmp_path / "data" / "rows.txt").write_text("2.5")
    (tmp_path / "lent" / "base").write_bytes(pack({"w": np.ones(3, np.float32)}))
    return tmp_path


def desk_in(places: Path) -> Desk:
    """The folders of a worker."""
    return Desk(places / "project", places / "data", places / "lent", places / "made")


@pytest.fixture
async def worker(places: Path) -> AsyncIterator[Worker]:
    made = await Worker.start(desk_in(places), places / "worker.log")
    yield made
    await made.close()


async def test_a_fit_writes_the_new_model_where_it_was_asked_to(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    result = await worker.fit(places / "lent" / "base", {}, 9, places / "made" / "out")
    assert unpack((places / "made" / "out").read_bytes())["w"].tolist() == [3.5, 3.5, 3.5]
    assert isinstance(result, FitResult)
    assert result.weight == 5
    assert result.metrics == {"threads": 1.0, "loaded": 1.0, "seed": 9.0}
    assert result.peak_mib > 10
    assert 0 <= result.cpu_s < 10
    assert not list(places.glob("made/*.part"))


async def test_a_small_model_comes_and_goes_in_the_message_itself(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    base = (places / "lent" / "base").read_bytes()
    result = await worker.fit(base, {}, 9, places / "made" / "out")
    assert unpack(result.model)["w"].tolist() == [3.5, 3.5, 3.5]
    assert (await worker.evaluate(result.model, {}))["sum"] == 10.5
    assert (await worker.evaluate(base, {}))["sum"] == 3.0
    assert not list(places.glob("made/*"))


async def test_code_and_data_stay_loaded(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    (places / "data" / "rows.txt").unlink()
    for seed in range(3):
        result = await worker.fit(places / "lent" / "base", {}, seed, places / "made" / "out")
        assert result.metrics["loaded"] == 1.0
    assert (await worker.evaluate(places / "made" / "out", {}))["sum"] == 10.5


READS = """
import numpy as np
import reuna

def load(folder, settings):
    return np.concatenate([table.matrix(["flow", "heat"]) for table in reuna.read_folder(folder)["train"]])

class Means:
    def evaluate(self, model, data, settings):
        flow, heat = data.mean(axis=0)
        return {"flow": flow, "heat": heat}

def learner(settings):
    return Means()
"""


async def test_a_gate_on_a_missing_sensor_is_measured_with_that_sensor_stuck(
    worker: Worker, places: Path
) -> None:
    (places / "project" / "reads.py").write_text(READS)
    (places / "data" / "train").mkdir()
    (places / "data" / "train" / "a.csv").write_text("flow [m3/h],heat\n10,1\n40,2\n")
    (places / "data" / "train" / "b.csv").write_text("flow [m3/h],heat\n20,5\n50,6\n")
    asked = as_settings([Gate(f"{name} without {name}", "min", 0) for name in ("flow", "heat", "salt")])
    await worker.open("reads", asked)
    found = await worker.evaluate(places / "lent" / "base", asked)
    assert (found["flow"], found["flow without flow"]) == (30, 15)
    assert (found["heat"], found["heat without heat"]) == (3.5, 3)
    assert not [name for name in found if "salt" in name], "no table has that sensor"
    assert (await worker.evaluate(places / "lent" / "base", {})).keys() == {"flow", "heat"}


@pytest.mark.parametrize("asked", [{"model_kib"}, {"latency_ms"}, {"model_kib", "latency_ms"}, set()])
async def test_gates_on_size_and_latency_are_measured_on_the_graph_and_no_others(
    worker: Worker, places: Path, asked: set[str]
) -> None:
    pytest.importorskip("onnxruntime")
    (places / "project" / "linear.py").write_text(
        "import reuna\n\ndef load(folder, settings):\n    return None\n\n"
        "class Quiet(reuna.LinearRegressor):\n"
        "    def evaluate(self, model, data, settings):\n        return {'rmse': 1.0}\n\n"
        "def learner(settings):\n    return Quiet(3)\n"
    )
    learner = reuna.LinearRegressor(3)
    (places / "lent" / "linear").write_bytes(pack(learner.init(1)))
    settings = as_settings([Gate(name, "max", 1) for name in asked])
    await worker.open("linear", settings)
    found = await worker.evaluate(places / "lent" / "linear", settings)
    assert found.keys() == {"rmse", *asked}
    assert found.get("model_kib", 0) * 1024 == (
        len(learner.export(learner.init(1))) if "model_kib" in asked else 0
    )
    assert 0 < found.get("latency_ms", 1) < 1000


async def test_a_project_that_reads_by_itself_measures_no_missing_sensor(
    worker: Worker, places: Path
) -> None:
    asked = as_settings([Gate("sum without flow", "min", 0)])
    await worker.open("model", asked)
    assert (await worker.evaluate(places / "lent" / "base", asked)).keys() == {"sum", "secret"}


async def test_a_model_that_changed_under_its_name_is_read_again(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    assert (await worker.evaluate(places / "lent" / "base", {}))["sum"] == 3.0
    await worker.fit(places / "lent" / "base", {}, 1, places / "made" / "out")
    assert (await worker.evaluate(places / "made" / "out", {}))["sum"] == 10.5
    await worker.fit(places / "made" / "out", {}, 1, places / "made" / "out")
    assert (await worker.evaluate(places / "made" / "out", {}))["sum"] == 18.0


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise", r"training: model\.py:\d+: ZeroDivisionError: division by zero"),
        ("exit", r"training: model\.py:\d+: SystemExit: enough"),
        ("in place", r"training: model\.py:\d+: ValueError: assignment destination is read-only"),
        ("doubles", "'w' is float64, expected float32"),
        ("grow", "other names or shapes"),
        ("weightless", "fit returned 0 samples"),
        ("half", "fit returned 1.5 samples"),
        ("nan", "metric 'bad' is nan"),
        ("many", "65 metrics, 64 are allowed"),
        ("text", "metrics must be numbers"),
        ("none", "metrics must be numbers"),
    ],
)
async def test_a_learners_fault_is_told_and_the_worker_goes_on(
    worker: Worker, places: Path, what: str, said: str
) -> None:
    await worker.open("model", {})
    with pytest.raises(LearnerError, match=said):
        await worker.fit(places / "lent" / "base", {"what": what}, 1, places / "made" / "out")
    assert not (places / "made" / "out").exists()
    assert worker.alive
    assert (await worker.fit(places / "lent" / "base", {}, 1, places / "made" / "out")).weight == 5


async def test_an_endless_message_is_cut(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    with pytest.raises(LearnerError, match="ValueError: xxx") as caught:
        await worker.fit(places / "lent" / "base", {"what": "scream"}, 1, places / "made" / "out")
    assert len(caught.value.message) <= messages.MAX_MESSAGE


async def test_an_error_of_ours_keeps_its_kind_and_its_advice(worker: Worker, places: Path) -> None:
    with pytest.raises(DataError, match="^this node has no rows$") as caught:
        await worker.open("model", {"rows": "none"})
    assert caught.value.next_step == "Ask the plant."
    await worker.open("model", {})
    with pytest.raises(ExtraMissing) as missing:
        await worker.fit(places / "lent" / "base", {"what": "extra"}, 1, places / "made" / "out")
    assert missing.value.next_step == "Install pictures."


async def test_what_cannot_be_opened_is_the_projects_fault(worker: Worker, places: Path) -> None:
    with pytest.raises(ProjectError, match="there is no such module"):
        await worker.open("nothing", {})
    (places / "data" / "rows.txt").write_text("many")
    with pytest.raises(LearnerError, match=r"loading this node's data: model\.py:\d+: ValueError"):
        await worker.open("model", {})


async def test_a_worker_that_was_not_opened_says_so(worker: Worker, places: Path) -> None:
    with pytest.raises(LearnerError, match="before its project was opened"):
        await worker.fit(places / "lent" / "base", {}, 1, places / "made" / "out")


async def test_a_model_that_is_none_or_gone_is_told_apart(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    (places / "lent" / "bad").write_bytes(b"no model")
    with pytest.raises(BadMessage):
        await worker.evaluate(places / "lent" / "bad", {})
    with pytest.raises(Corrupted, match="absent"):
        await worker.evaluate(places / "lent" / "absent", {})


async def test_a_folder_that_is_gone_is_the_disks_fault(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    with pytest.raises(Corrupted, match="No such file"):
        await worker.fit(places / "lent" / "base", {}, 1, places / "made" / "nowhere" / "out")


# --- the process -----------------------------------------------------------------------------------


async def test_a_worker_that_dies_leaves_its_last_words(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    with pytest.raises(WorkerFailed, match="the last words of a worker"):
        await worker.fit(places / "lent" / "base", {"what": "die"}, 1, places / "made" / "out")
    assert not worker.alive
    with pytest.raises(WorkerFailed):
        await worker.evaluate(places / "lent" / "base", {})


async def test_a_killed_worker_is_noticed_at_once(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    work = asyncio.create_task(
        worker.fit(places / "lent" / "base", {"what": "sleep"}, 1, places / "made" / "out")
    )
    await asyncio.sleep(0.05)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerFailed):
        await asyncio.wait_for(work, 5)


def framed(message: object) -> bytes:
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(4, "little") + data


async def to_a_worker(log: Path, most: int = MAX_FRAME) -> tuple[parent._Line, socket.socket]:
    ours, theirs = socket.socketpair()
    return parent._Line(await Frames.over(ours, most), log), theirs


async def test_a_worker_that_says_what_nobody_asked_for_is_not_listened_to_any_more(tmp_path: Path) -> None:
    """Else its next answer would be taken for that to another question, and it could fill our memory."""
    line, theirs = await to_a_worker(tmp_path / "log")
    with theirs:
        theirs.sendall(framed(messages.Answer(weight=1)))
        assert (await line.message(messages.Answer)).weight == 1
        theirs.sendall(framed(messages.Answer(weight=2)))
        assert await asyncio.to_thread(theirs.recv, 1) == b"", "the line ended"
        assert not line.is_open
        with pytest.raises(WorkerFailed, match="the worker ended"):
            await line.message(messages.Answer, b"fit")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"\xff\xff\xff\xff", "sent a frame of 4294967295 bytes"),
        (b"\1\0\0\0\xc1", "the worker ended"),
        (b"", "ended"),
    ],
)
async def test_what_is_no_answer_is_the_workers_failure(tmp_path: Path, said: bytes, why: str) -> None:
    line, theirs = await to_a_worker(tmp_path / "log")
    with theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(WorkerFailed, match=why):
            await line.message(messages.Answer)
    line.close()


async def test_a_worker_whose_answer_nobody_awaited_takes_no_more_requests(
    worker: Worker, places: Path
) -> None:
    await worker.open("model", {})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(
            worker.fit(places / "lent" / "base", {"what": "sleep"}, 1, places / "made" / "out"), 0.1
        )
    assert not worker.alive


async def test_closing_ends_a_worker_in_the_middle_of_work(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    work = asyncio.create_task(
        worker.fit(places / "lent" / "base", {"what": "sleep"}, 1, places / "made" / "out")
    )
    await asyncio.sleep(0.05)
    await asyncio.wait_for(worker.close(), 5)
    with pytest.raises(WorkerFailed):
        await work
    assert not Path(f"/proc/{worker.pid}").exists()
    await worker.close()


async def test_a_worker_sees_no_secrets_of_the_environment(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s")
    worker = await Worker.start(desk_in(places), places / "worker.log")
    try:
        await worker.open("model", {})
        assert (await worker.evaluate(places / "lent" / "base", {}))["secret"] == 0.0
    finally:
        await worker.close()
    made = worker_environment({"SECRET_TOKEN": "s", "PATH": "p", "OMP_NUM_THREADS": "8"})
    assert "SECRET_TOKEN" not in made
    assert (made["PATH"], made["OMP_NUM_THREADS"], made["OPENBLAS_NUM_THREADS"]) == ("p", "1", "1")


async def test_modules_of_the_folder_we_stand_in_are_not_found(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (places / "elsewhere").mkdir()
    (places / "elsewhere" / "msgspec.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(places / "elsewhere")
    monkeypatch.setenv("PYTHONPATH", str(Path(reuna.__file__).parents[1]))
    worker = await Worker.start(desk_in(places), places / "worker.log")
    try:
        await worker.open("model", {})
    finally:
        await worker.close()


async def test_too_long_a_request_is_refused_before_it_is_sent(worker: Worker, places: Path) -> None:
    await worker.open("model", {})
    with pytest.raises(LearnerError, match="a request takes"):
        await worker.fit(places / "lent" / "base", {"text": "x" * MAX_FRAME}, 1, places / "made" / "out")
    assert worker.alive
    assert (await worker.evaluate(places / "lent" / "base", {}))["sum"] == 3.0


def test_a_frame_that_announces_too_much_ends_the_worker(places: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.sendall((MAX_FRAME + 1).to_bytes(4, "little"))
    __main__.serve(theirs, Bench(places, places), Level(0))
    ours.close()
    theirs.close()


def test_a_worker_ends_with_a_parent_that_was_killed(places: Path) -> None:
    script = f"""
        import asyncio, os, pathlib
        from reuna.adapters.worker import Desk, Worker
        async def main():
            place = pathlib.Path({str(places)!r})
            worker = await Worker.start(Desk(*(place / name for name in ("project", "data", "lent", "made"))), place / "worker.log")
            await worker.open("model", {{}})
            print(worker.pid, flush=True)
            await worker.fit(place / "lent" / "base", {{"what": "sleep"}}, 1, place / "made" / "out")
        asyncio.run(main())
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(reuna.__file__).parents[1])},
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while _runs(pid):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    """Whether it is there and no zombie that nobody has buried yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- parts -----------------------------------------------------------------------------------------


def test_a_model_over_the_sandboxs_limit_is_the_learners_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reuna.core.tensors.packed_parts", lambda _tensors: TooLarge())
    with pytest.raises(LearnerError, match="larger than a file may be"):
        write_model(tmp_path / "m", {})
    assert not list(tmp_path.iterdir())


class TooLarge:
    """Parts of a model that no file takes."""

    def __iter__(self) -> Iterator[bytes]:
        raise OSError(errno.EFBIG, "File too large")


def test_a_model_is_whole_under_its_name_or_not_there(tmp_path: Path) -> None:
    tensors = {"b": np.arange(4, dtype=np.float32)[::2], "a": np.zeros((), np.float32)}
    (tmp_path / "m.part").write_bytes(bytes(9999))
    write_model(tmp_path / "m", tensors)
    assert (tmp_path / "m").read_bytes() == pack(tensors), "nothing is left of what was written over"
    (tmp_path / "full").mkdir()
    with pytest.raises(NotUsable):
        write_model(tmp_path / "full", tensors)
    assert not (tmp_path / "full.part").exists()


def test_only_the_end_of_a_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log) == ""
    log.write_bytes(b"\xff\n" * 100_000 + b"one\ntwo\n")
    lines = last_lines(log).splitlines()
    assert len(lines) == parent.LOG_LINES
    assert lines[-2:] == ["one", "two"]
