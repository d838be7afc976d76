"""What `test_on_ray` asserts about, done in a process of its own over one local cluster: one JSON line.

Ray leaves processes and sockets to the interpreter's end, where the suite takes warnings for errors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ray

import reuna
from reuna.core.errors import ReunaError
from tests.unit.sim.test_processes import LARGE, Steps, essence, run


def same() -> dict[str, bool]:
    """Whether runs on Ray have the results of runs without, by strategy and size of the model."""
    found = {}
    for strategy, values, processes in (("fedavgm", 20, 1), ("fedavgm", LARGE, 2), ("krum", 20, 2)):
        there, alone = (run(processes, values, strategy=strategy, on=on) for on in ("ray", "here"))
        found[f"{strategy} {values}"] = essence(there) == essence(alone)
    return found


def refusal(processes: int, at: Path | None = None, how: str = "") -> str:
    """What a run on Ray raises."""
    try:
        run(processes, at=at, how=how, on="ray")
    except ReunaError as error:
        return f"{error.code} {error.message}"
    return ""


def travels() -> bool:
    """Whether a class that only this process knows can be trained, as one of a notebook's cell."""

    class Own(Steps):
        """Nobody else has it."""

    nodes = {f"node-{number}": number for number in range(4)}
    there, alone = (reuna.simulate(Own(), nodes, 2, fogs=2, processes=2, on=on) for on in ("ray", "here"))
    return there.digest == alone.digest


def main(folder: Path) -> None:
    """All cases over one cluster of two CPUs."""
    ray.init(
        "local", num_cpus=2, include_dashboard=False, object_store_memory=128 * 2**20, log_to_driver=False
    )
    found: dict[str, Any] = {"same": same(), "travels": travels()}
    found["lost once"] = essence(run(2, at=folder, how="once", on="ray"))[:3] == essence(run(1))[:3]
    found["was lost"] = (folder / "ended").exists()
    found["raises"] = refusal(2, folder, "raise")
    found["too many"] = refusal(4)
    ray.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
