"""A simulated fleet over several processes: the same bits, and nothing left when one of them is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reuna
from reuna.core.errors import LearnerError, PlanError, WorkerFailed
from reuna.core.ports import Tensors
from reuna.core.records import Metrics, Setting
from reuna.loop.plan import INLINE_LIMIT
from reuna.sim.crew import MOST_LOSSES, dealt

LARGE = INLINE_LIMIT // 4 + 1  #: values of a model that no longer rides in the plan
ROOT = Path(__file__).parents[3]


class Steps:
    """Counts; where its data are a path, the process ends once, or each time, that it is trained there."""

    def __init__(self, values: int = 20) -> None:
        self._values = values

    def init(self, seed: int) -> Tensors:
        return {"w": np.full(self._values, seed, np.float32)}

    def fit(
        self, model: Tensors, data: Any, settings: Mapping[str, Setting], seed: int
    ) -> tuple[Tensors, int, Metrics]:
        if isinstance(data, Path):
            self._end(data, str(settings["how"]))
        steps = np.arange(self._values, dtype=np.float32) % 7 + seed % 100
        return {"w": model["w"] + steps / 2**10}, 1 + seed % 5, {"loss": float(os.getpid() > 0)}

    def _end(self, marks: Path, how: str) -> None:
        if how == "raise":
            raise ValueError("no such thing")
        if how == "always" or (how == "once" and not (marks / "ended").exists()):
            (marks / "ended").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def evaluate(self, model: Tensors, data: Any, settings: Mapping[str, Setting]) -> Metrics:
        return {"all": float(model["w"].sum())}

    def export(self, model: Tensors) -> bytes:
        return b""


def run(
    processes: int, values: int = 20, at: Path | None = None, how: str = "", **changes: Any
) -> reuna.Result:
    nodes: dict[str, Any] = {f"node-{number}": number for number in range(9)}
    if at is not None:
        nodes["node-4"] = at
    asked = {"rounds": 3, "fogs": 4, "settings": {"how": how}, **changes}
    return reuna.simulate(Steps(values), nodes, processes=processes, **asked)


def essence(result: reuna.Result) -> tuple[object, ...]:
    rounds = [{key: value for key, value in each.items() if key != "seconds"} for each in result.rounds]
    kinds = {kind: size for kind, size in result.bytes_by_kind.items() if kind != "presence"}
    return (result.digest, result.scores, rounds, result.local, kinds)  # presence is said as time passes


def children() -> set[int]:
    """Processes below this one."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for each in tasks for pid in each.read_text().split()}


@pytest.mark.parametrize("values", [20, LARGE])
@pytest.mark.parametrize("strategy", ["fedavgm", "trimmed-mean"])
def test_any_number_of_processes_gives_the_same_result(strategy: str, values: int) -> None:
    alone = run(1, values, strategy=strategy)
    for processes in (2, 9):
        assert essence(run(processes, values, strategy=strategy)) == essence(alone)


def test_who_is_silent_in_a_round_is_so_in_any_number_of_processes() -> None:
    took_part = [("node-1", "node-8"), ("node-2",), tuple(f"node-{number}" for number in range(9))]
    alone, many = (run(processes, took_part=took_part) for processes in (1, 3))
    assert essence(many) == essence(alone)
    assert many.took_part == took_part


def test_a_process_that_is_killed_once_is_begun_again_and_changes_no_bit(tmp_path: Path) -> None:
    before = children()
    assert essence(run(3, at=tmp_path, how="once"))[:3] == essence(run(1))[:3]
    assert (tmp_path / "ended").exists()
    assert children() == before


def test_a_process_that_is_killed_each_time_ends_the_run_and_says_how(tmp_path: Path) -> None:
    before, memory = children(), sorted(Path("/dev/shm").iterdir())
    with pytest.raises(WorkerFailed, match=f"was lost {MOST_LOSSES} times in a row: it was ended by SIGKILL"):
        run(3, at=tmp_path, how="always")
    assert children() == before
    assert sorted(Path("/dev/shm").iterdir()) == memory


def test_what_a_learner_raises_in_another_process_ends_the_run_and_names_the_node(tmp_path: Path) -> None:
    before = children()
    said = "node-4, training: ValueError: no such thing"
    for processes in (1, 3):
        with pytest.raises(LearnerError, match=said):
            run(processes, at=tmp_path, how="raise")
    assert children() == before


def test_no_processes_at_all_are_refused() -> None:
    with pytest.raises(PlanError, match="processes is 0; it must be at least 1"):
        run(0)


def test_fogs_are_dealt_so_that_each_process_has_as_many_edges() -> None:
    fogs: dict[str, dict[str, Any]] = {
        f"fog-{n}": {f"{n}-{e}": None for e in range(size)} for n, size in enumerate((5, 1, 1, 3))
    }
    parts = dealt(fogs, 2, {})
    assert [sum(len(fogs[fog]) for fog in part) for part in parts] == [5, 5]
    assert len(dealt(fogs, 9, {})) == 4
    under = dealt(fogs, 9, {"fog-3": "fog-1", "fog-1": "fog-0"})
    assert [sorted(part) for part in under] == [["fog-0", "fog-1", "fog-3"], ["fog-2"]]


STOPPED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.unit.sim.test_processes import Steps, children
import reuna

class Waits(Steps):
    def fit(self, model, data, settings, seed):
        os.write(1, b"%d\\n" % os.getpid())  # at once: two processes write to one pipe
        signal.pause()

try:
    reuna.simulate(Waits(), {{"a": 1, "b": 2}}, 3, fogs=2, processes=2)
except KeyboardInterrupt:
    print("stopped", children(), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_who_stops_a_run_or_is_killed_leaves_no_process(how: signal.Signals) -> None:
    program = STOPPED.format(root=str(ROOT))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline()) for _ in range(2)]
        watched = [os.pidfd_open(pid) for pid in pids]
        process.send_signal(how)
        rest = process.stdout.read()
    assert rest == ("stopped set()\n" if how == signal.SIGINT else "")
    for fd in watched:  # readable once it has ended
        assert _ended(fd)
        os.close(fd)


def _ended(fd: int) -> bool:
    import select

    return bool(select.select([fd], [], [], 10)[0])


async def test_in_a_notebooks_event_loop_processes_work_as_well(tmp_path: Path) -> None:
    assert essence(run(2, at=tmp_path, how="once"))[:3] == essence(run(1))[:3]
