"""What one live window takes, from being whole to the answer that is written down, and what it takes all the time.

    python -m benchmarks.live --windows 200 --json
    python -m benchmarks.live --tags 200 --hertz 10 --windows 100 --json

Without ``--tags`` it is the demo's project, with a plant's own tables: 53 signals, windows of an hour. With it, a
project of that many signals, windows of ``--seconds``, one a second, and ``core_share`` is the computing of the agent
and the worker together for each second of data. Readings come as from a reader, one append for each row or each
second; that process is measured by `benchmarks.store`. The clock is set by hand, so it runs as fast as it can. The
store and the answers lie on the disk, forced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import at_least
from reuna.adapters.answer_store import AnswerStore
from reuna.adapters.data_folder import folder_tables
from reuna.adapters.linear import SoftmaxClassifier
from reuna.adapters.local_store import LocalStore
from reuna.adapters.processes import pss_mib
from reuna.adapters.project import load_entry, pack_bundle
from reuna.adapters.sandbox import SandboxLimits
from reuna.adapters.tables import read_table
from reuna.core import contract as contracts
from reuna.core.contract import Contract, Signal, Windows, contract
from reuna.core.outcomes import Outcome, percentiles
from reuna.core.records import Setting
from reuna.core.source_settings import SourceSettings, StoreSettings, TagSettings
from reuna.core.sources import NS, Batch, Tag, column
from reuna.demo.job import PROJECT
from reuna.demo.plants import write_plant_folder
from reuna.edge.live import Live, LiveSettings
from reuna.exchange.predict import Predictor
from reuna.fleet.open_project import open_settings
from reuna.wire import release as wire
from reuna.wire.build import SBOM, canonical
from reuna.wire.release import About

BEGAN_NS = 1_800_000_000 * NS
OWN_ROWS = 2000  #: of the table by which the project of many signals scales
CODE = """
import numpy as np
from reuna import Dataset, Samples, SoftmaxClassifier, contract, per_table, read_folder

@per_table
def cut(table, names, rows, step):
    values = table.filled(names)
    starts = range(0, len(values) - rows + 1, step)
    parts = [values[start:start + rows] for start in starts]
    return np.array([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in parts])

def load(folder, settings):
    agreed, tables = contract(settings), read_folder(folder)
    names, (rows, step) = tuple(each.name for each in agreed.signals), agreed.window_rows
    found = {split: np.concatenate([cut(t, names, rows, step) for t in some]) for split, some in tables.items()}
    mean, spread = found["train"].mean(axis=0), found["train"].std(axis=0) + 1e-6
    samples = {s: Samples(((x - mean) / spread).astype(np.float32), np.zeros(len(x), int)) for s, x in found.items()}
    return Dataset(samples["train"], samples["train"], samples["test"])

def learner(settings):
    return SoftmaxClassifier(2 * len(contract(settings).signals), 2)
"""


@dataclass
class Hand:
    """A clock that is set by hand."""

    ns: int = BEGAN_NS
    waited: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.ns / NS

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Case:
    """A release, the node's own folder, values (rows, signals) that come, and rows of a second."""

    release: Path
    node: Path
    agreed: Contract
    values: np.ndarray
    together: int


def demo(folder: Path, windows: int) -> Case:
    """The demo's first plant and its project, with a model that knows nothing."""
    told = open_settings(PROJECT, [])
    write_plant_folder(0, 0, folder / "node")
    agreed = contract(told.settings)
    learner = load_entry(PROJECT, told.entry).learner(told.settings)
    graph = learner.export(learner.init(1))
    table = read_table(folder_tables(folder / "node")["train"][0])
    names = [each.name for each in agreed.signals]
    length, step = agreed.window_rows
    rows = np.arange(length + windows * step) % len(table)
    release = written(folder, told.settings, graph, pack_bundle(PROJECT))
    return Case(
        release, folder / "node", agreed, np.stack([table.columns[n] for n in names], axis=1)[rows], 1
    )


def many(folder: Path, tags: int, hertz: int, seconds: int, windows: int) -> Case:
    """A project of many signals, mean and deviation of each."""
    signals = tuple(Signal(f"tag_{number:04d}", unit="bar") for number in range(tags))
    cut = Windows(rows=seconds * hertz, step=hertz)
    agreed = Contract(every_s=1 / hertz, signals=signals, windows=cut)
    rng = np.random.default_rng(0)
    values = np.round(500 + np.cumsum(rng.normal(0, 0.1, (OWN_ROWS, tags)), axis=0), 2)
    (folder / "node" / "train").mkdir(parents=True)
    lines = [",".join(each.name for each in signals), *(",".join(map(str, row)) for row in values.tolist())]
    (folder / "node" / "train" / "a.csv").write_text("\n".join(lines) + "\n")
    (folder / "project").mkdir()
    (folder / "project" / "model.py").write_text(CODE)
    learner = SoftmaxClassifier(2 * tags, 2)
    settings = {"entry": "model", **contracts.as_settings(agreed)}
    graph = learner.export(learner.init(1))
    release = written(folder, settings, graph, pack_bundle(folder / "project"))
    rows = np.arange((seconds + windows) * hertz) % OWN_ROWS
    return Case(release, folder / "node", agreed, values[rows], hertz)


def written(folder: Path, settings: Mapping[str, Setting], graph: bytes, code: bytes) -> Path:
    """A release's file, as much of one as is needed to answer."""
    parts = dict.fromkeys(wire.NEEDED, canonical({}))
    parts |= {
        wire.CODE: code,
        wire.MODEL: graph,
        wire.LINEAGE: canonical({"settings": dict(settings)}),
        SBOM: b"{}",
    }
    file = folder / "1.release"
    file.write_bytes(wire.encode(About("bench", 1, "r-1", "0" * 64), parts))
    return file


async def measure(case: Case, folder: Path) -> dict[str, Any]:
    """The figures."""
    clock = Hand()
    store = LocalStore(StoreSettings(str(folder / "store"), 30.0, 1024))
    answers = AnswerStore(folder / "answers", 30.0, 64)
    signals = case.agreed.signals
    source = SourceSettings(
        "plant", "files", "", "t", tuple(TagSettings(s.name, s.name, s.unit) for s in signals)
    )
    told: list[Outcome] = []
    live = Live(
        folder / "store",
        [source],
        answers,
        LiveSettings(0.0),
        clock,
        lambda one, _: told.append(one),
        clock.now,
    )
    began = time.perf_counter()
    predictor = await Predictor.start(case.release, folder / "live", case.node, SandboxLimits(), 0, clock)
    started_s = time.perf_counter() - began
    await live.use(predictor)
    behind, computed = await fed(case, clock, store, live, told)
    computed += children_s(predictor.pid)
    found = figures(told, behind)
    memory = {"worker_pss_mib": round(pss_mib(predictor.pid), 1)}
    await predictor.close()
    answers.close()
    store.close()
    data_s = len(case.values) * (case.agreed.every_s or 1.0)
    return {**found, **memory, "start_s": round(started_s, 2), "core_share": round(computed / data_s, 5)}


async def fed(
    case: Case, clock: Hand, store: LocalStore, live: Live, told: list[Outcome]
) -> tuple[list[float], float]:
    """Give the readings, a second's at once; milliseconds behind of each window, and seconds computed meanwhile."""
    every_ns = round((case.agreed.every_s or 1.0) * NS)
    tags = [Tag(each.name, each.unit) for each in case.agreed.signals]
    behind, computed = [], 0.0
    for start in range(0, len(case.values), case.together):
        some = case.values[start : start + case.together]
        times = BEGAN_NS + (start + np.arange(len(some))) * every_ns
        columns = {tag.name: column(times, some[:, place]) for place, tag in enumerate(tags)}
        store.append("plant", tags, Batch(columns, clock.ns), clock.ns)
        clock.ns = BEGAN_NS + (start + len(some)) * every_ns
        used = time.process_time()
        while True:
            before, began = len(told), time.perf_counter()
            wait = await live.turn()
            if len(told) > before:
                behind.append((time.perf_counter() - began) * 1000 / (len(told) - before))
            if wait:
                break
        computed += time.process_time() - used
    return behind, computed


def figures(told: list[Outcome], behind: list[float]) -> dict[str, Any]:
    """Percentiles of the whole, and what its parts take, without the first ten windows."""
    told, behind = told[10:], behind[10:]
    parts = {
        "behind_ms": behind,
        "asked_ms": [each.took_ms for each in told],
        "features_ms": [each.features_ms for each in told],
        "graph_ms": [each.graph_ms for each in told],
    }
    found = {name: {p: round(v, 3) for p, v in percentiles(values).items()} for name, values in parts.items()}
    return {**found, "windows": len(told)}


def children_s(pid: int) -> float:
    """Seconds that a process has computed."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(stat[11]) + int(stat[12])) / 100


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=at_least(20), default=200)
    parser.add_argument("--tags", type=at_least(0), default=0)
    parser.add_argument("--hertz", type=at_least(1), default=10)
    parser.add_argument("--seconds", type=at_least(1), default=60)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reuna-bench-") as name:
        folder = Path(name)
        if args.tags:
            case = many(folder, args.tags, args.hertz, args.seconds, args.windows)
        else:
            case = demo(folder, args.windows)
        print(json.dumps(asyncio.run(measure(case, folder))))


if __name__ == "__main__":
    main()
