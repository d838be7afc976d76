"""Bytes of a round against what the model loses, on the demo's task and the real round logic.

    python -m benchmarks.encodings --json

Each encoding trains the demo's project over its six plants, two fogs, in one process. The same seeds, so all
differences are the encoding's. Bytes are of whole bodies as the outboxes keep them, without manifests and
handshakes: ``up_edge`` of an edge's update, ``up_fog`` of a fog's sum, the mean over rounds and nodes.

``limit_edge`` is the physical limit in the same run: the order-0 entropy of all integers that edges sent, which no
code that looks at one integer at a time beats. Where there are too many different ones to count, the entropy of their
high bits, and their low bits whole.

``step`` is what the difference to the model before takes, packed, and ``model`` the model: this one is so small that
it rides in the plan, so no step is sent of it; for larger ones the ratio is what counts.

``score`` is the mean over plants and splits of macro-F1 on the test runs, ``worst`` that of the worst plant,
``lost`` the mean difference to 32 bits over plants and splits, and ``lost_sd`` its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.arguments import at_least, between
from reuna.adapters.project import load_entry
from reuna.core.ports import Blob
from reuna.core.records import Contribution, Encoding, Grid, RunSpec
from reuna.demo.job import PROJECT, demo_job
from reuna.exchange.bodies import integers
from reuna.exchange.steps import make_step
from reuna.fleet.scenarios import asked_of
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks
from reuna.sim.storage import MemoryBlob, MemoryBlobs, MemorySpool

PLAIN = Encoding(packed=False)
PACKED = Encoding()
KEEPING = Encoding(feedback=True)


class Case(NamedTuple):
    """One way to send updates."""

    grid: Grid
    encoding: Encoding

    def told(self) -> dict[str, Any]:
        """As `reuna.toml` says it."""
        asked = self.encoding
        return {
            "bits": self.grid.bits,
            "exponent": None if asked.follow else self.grid.exponent,
            "packed": asked.packed,
            "rounding": "stochastic" if asked.stochastic else "nearest",
            "feedback": asked.feedback,
            "keep": asked.keep,
        }


def changed(encoding: Encoding, **changes: Any) -> Encoding:
    """An encoding with something else."""
    return msgspec.structs.replace(encoding, **changes)


CASES = (
    Case(Grid(32, -24), PLAIN),
    Case(Grid(32, -24), PACKED),
    Case(Grid(16, -14), PLAIN),
    Case(Grid(16, -14), PACKED),
    Case(Grid(16, -10), PACKED),
    Case(Grid(8, -8), PACKED),
    Case(Grid(8, -8), KEEPING),
    Case(Grid(8, -8), changed(KEEPING, stochastic=True)),
    Case(Grid(4, -6), PACKED),
    Case(Grid(4, -6), KEEPING),
    Case(Grid(4, -6), changed(KEEPING, stochastic=True)),
    Case(Grid(16, -16), changed(PACKED, follow=True)),
    Case(Grid(16, -16), changed(KEEPING, follow=True)),
    Case(Grid(16, -16), changed(KEEPING, follow=True, stochastic=True)),
    Case(Grid(8, -16), changed(KEEPING, follow=True)),
    Case(Grid(4, -16), changed(KEEPING, follow=True)),
    Case(Grid(16, -16), changed(KEEPING, follow=True, keep=0.1)),
    Case(Grid(16, -16), changed(KEEPING, follow=True, keep=0.03)),
    Case(Grid(16, -16), changed(KEEPING, follow=True, keep=0.01)),
)


class Noting(MemorySpool):
    """An outbox or spool that notes each body that is committed."""

    def __init__(self, kind: str, bodies: list[int], values: list[np.ndarray]) -> None:
        super().__init__()
        self._kind, self._noted, self._values = kind, bodies, values

    def commit(self, manifest: Contribution, body: Blob | None) -> None:
        super().commit(manifest, body)
        if manifest.kind == self._kind and body is not None:
            self._noted.append(manifest.size)
            self._values += [np.array(each, np.int64) for each in integers(manifest, body)]


class Steps(MemoryBlobs):
    """The cloud's models, and what the step to each from the one before takes."""

    def __init__(self, model_size: int) -> None:
        super().__init__()
        self._size = model_size
        self._before: MemoryBlob | None = None
        self.sizes: list[int] = []

    def keep(self, blob: MemoryBlob) -> MemoryBlob:
        kept = super().keep(blob)
        if kept.size == self._size:
            if self._before is not None:
                step = make_step(self._before, kept, MemoryBlobs())
                self.sizes.append(step.size if step else kept.size)
            self._before = kept
        return kept


def entropy(values: np.ndarray) -> float:
    """Order-0 entropy of integers, bits each."""
    low = 0
    while len(np.unique(values >> low)) > max(16, len(values) // 16):
        low += 1
    _, counts = np.unique(values >> low, return_counts=True)
    parts = counts / counts.sum()
    return float(-(parts * np.log2(parts)).sum()) + low


class Task:
    """The demo's plants of one split, loaded once."""

    def __init__(self, split: int, rounds: int | None) -> None:
        with tempfile.TemporaryDirectory() as folder, demo_job(split, rounds, Path(folder)) as job:
            self.settings = job.settings
            self.entry = load_entry(PROJECT, job.settings.entry)
            told = dict(job.settings.settings)
            self.data = {node.name: self.entry.load(node.folder, told) for node in job.nodes}

    def fleet(self) -> dict[str, dict[str, SimEdge]]:
        """Every second plant under each of two fogs."""
        learner = self.entry.learner(self.settings.settings)
        edges = {name: SimEdge(learner, data) for name, data in self.data.items()}
        names = sorted(edges)
        return {f"fog-{fog + 1}": {name: edges[name] for name in names[fog::2]} for fog in range(2)}

    def run(self, case: Case) -> dict[str, Any]:
        """One training run; bytes, and each plant's score."""
        spread = self.fleet()
        encoding = None if case.encoding == PLAIN else case.encoding
        asked = {**asked_of(self.settings), "grid": case.grid, "encoding": encoding}
        rounds = asked.pop("rounds")
        learner = self.entry.learner(self.settings.settings)
        spec, model, bundle = make_spec(spread, learner, rounds, **asked)
        return run_virtual(_run(spread, spec, model, bundle), adopting_tasks)


async def _run(
    spread: Mapping[str, Mapping[str, SimEdge]], spec: RunSpec, model: bytes, bundle: bytes
) -> dict[str, Any]:
    store = JournalStore()
    fleet = SimFleet(spread, SimClock(), lambda: SimJournal(store), FairWeather())
    edges: tuple[list[int], list[np.ndarray]] = ([], [])
    fogs: tuple[list[int], list[np.ndarray]] = ([], [])
    fleet.disks["cloud"].blobs = steps = Steps(len(model))
    for fog, names in spread.items():
        fleet.disks[fog].spool = Noting("partial", *fogs)
        for name in names:
            fleet.disks[name].outbox = Noting("update", *edges)
    outcome = await fleet.run(spec, model, bundle)
    return {
        "up_edge": float(np.mean(edges[0])),
        "limit_edge": entropy(np.concatenate(edges[1])) * spec.params / 8,
        "up_fog": float(np.mean(fogs[0])),
        "limit_fog": entropy(np.concatenate(fogs[1])) * spec.params / 8,
        "step": float(np.mean(steps.sizes)),
        "model": len(model),
        "loss": float(fleet.timeline["round", spec.rounds]["loss"]),
        "clipped": sum(
            int(fields["saturated"]) for (what, _), fields in fleet.timeline.items() if what == "round"
        ),
        "scores": [outcome["federated"][name][spec.metric] for name in sorted(outcome["federated"])],
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All cases over all splits."""
    tasks = [Task(split, args.rounds) for split in range(1, args.splits + 1)]
    chosen = [CASES[0], *(CASES[1 : args.cases] if args.cases else CASES[1:])]
    lines, plain = [], None
    for case in chosen:
        runs = [task.run(case) for task in tasks]
        scores = np.array([run["scores"] for run in runs])
        plain = scores if plain is None else plain
        lost = plain - scores
        means = {
            key: float(f"{np.mean([run[key] for run in runs]):.5g}") for key in runs[0] if key != "scores"
        }
        lines.append(
            {
                **case.told(),
                **means,
                "score": round(float(scores.mean()), 4),
                "worst": round(float(scores.min(axis=1).mean()), 4),
                "lost": round(float(lost.mean()), 4),
                "lost_sd": round(float(lost.std(ddof=1)) / math.sqrt(lost.size), 4),
            }
        )
        if not args.json:
            print(json.dumps(lines[-1]), flush=True)
    return {"splits": len(tasks), "rounds": tasks[0].settings.rounds, "encodings": lines}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splits", type=between(1, 3), default=3, help="splits of the demo's data")
    parser.add_argument("--rounds", type=at_least(1), default=None, help="rounds, else the demo's")
    parser.add_argument("--cases", type=at_least(2), default=None, help="only so many of the encodings")
    parser.add_argument("--json", action="store_true", help="one line at the end, else one each")
    return parser.parse_args(words)


if __name__ == "__main__":
    found = measure(arguments())
    print(json.dumps(found))
