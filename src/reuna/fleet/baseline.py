"""The centralised baseline: one process reads every node's rows and trains on all of them.

Only possible because here one machine holds all the folders; nothing of it passes a network.
Same learner, same features, same epochs, same settings; evaluated on each node's own test data.
Each site's rows are loaded by the project's own ``load``, so scaling per site stays per site.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuna.adapters.processes import own_peak_mib
from reuna.adapters.project import Entry, load_entry
from reuna.core.errors import DataError
from reuna.fleet.aside import aside

if TYPE_CHECKING:
    from reuna.fleet.session import Job


@dataclass(frozen=True)
class Centralised:
    """What the baseline gave: metrics of each node, seconds, MiB."""

    scores: dict[str, dict[str, float]]
    wall_s: float
    peak_mib: float


async def run_centralised(job: Job, folder: Path) -> Centralised:
    """Run the baseline in a process of its own, so that its memory can be told."""
    request = {
        "project": str(job.project.absolute()),
        "entry": job.settings.entry,
        "settings": dict(job.settings.settings),
        "rounds": job.settings.rounds,
        "seed": job.settings.seed,
        "nodes": {node.name: str(node.folder.absolute()) for node in job.nodes},
    }
    return Centralised(**await aside("reuna.fleet.baseline", request, "the centralised baseline"))


def compute(request: dict[str, Any]) -> Centralised:
    """Load all, train on all, evaluate on each."""
    from reuna.sim.baseline import centralised

    began = time.monotonic()
    entry = load_entry(Path(request["project"]), request["entry"])
    settings = request["settings"]
    data = dict(_sound(entry, request["nodes"], settings))
    scores = centralised(entry.learner(settings), data, settings, request["rounds"], request["seed"])
    return Centralised(scores, time.monotonic() - began, own_peak_mib())


def _sound(entry: Entry, nodes: dict[str, str], settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each node's data, but of those that sit out because of them: they are in no other way of training.

    Raises `DataError` when there is none.
    """
    wrong = []
    for name, path in nodes.items():
        try:
            yield name, entry.load(Path(path), settings)
        except DataError as error:
            wrong.append(f"{name}: {error.message}")
    if len(wrong) == len(nodes):
        raise DataError("\n".join(wrong))


def main() -> int:
    """Read the request from standard input, print the result as one JSON line."""
    result = compute(json.load(sys.stdin))
    print(json.dumps({"scores": result.scores, "wall_s": result.wall_s, "peak_mib": result.peak_mib}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
