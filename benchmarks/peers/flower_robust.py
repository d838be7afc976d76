"""Flower's robust strategies, in one process: seconds and memory of each fold, as in `benchmarks.robust`.

.venv-flower/bin/python -m benchmarks.peers.flower_robust --params 1000000 --nodes 32
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np  # after the threads are settled

TIMES = 2


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    print(json.dumps(measure(parser.parse_args())), flush=True)


def measure(args: argparse.Namespace) -> dict[str, object]:
    """The figures, the best of two tries."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg, Krum, MultiKrum
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # a message is of some run

    trim, liars = (args.nodes - 1) // 8, (args.nodes - 1) // 8
    rows = np.random.default_rng(1).normal(size=(args.nodes, args.params)).astype(np.float32)

    def replies() -> list[Any]:
        """New ones for each fold, which empties them."""
        return [
            Message(
                RecordDict({"arrays": ArrayRecord([row]), "metrics": MetricRecord({"num-examples": 1})}),
                dst_node_id=1,
                message_type="train",
            )
            for row in rows
        ]

    strategies = {
        "median": FedMedian(),
        "trimmed_mean": FedTrimmedAvg(beta=(trim + 0.01) / args.nodes),
        "krum": Krum(num_malicious_nodes=liars),
        "multi_krum": MultiKrum(num_malicious_nodes=liars, num_nodes_to_select=args.nodes - liars),
    }
    found: dict[str, object] = {"params": args.params, "nodes": args.nodes, "trim": trim}
    for name, strategy in strategies.items():

        def fold(given: list[Any], strategy: Any = strategy) -> Any:
            return strategy.aggregate_train(1, given)[0].to_numpy_ndarrays()

        found[f"{name}_s"] = min(seconds(fold, replies()) for _ in range(TIMES))
        found[f"{name}_mib"] = memory(fold, replies())
        if name == "median":
            found["same_bits"] = fold(replies())[0].tobytes() == np.median(rows, axis=0).tobytes()
    return found | {"mode": "aggregate_train in one process"}


def seconds(work: Callable[[list[Any]], Any], given: list[Any]) -> float:
    """By the clock."""
    began = time.perf_counter()
    work(given)
    return round(time.perf_counter() - began, 4)


def memory(work: Callable[[list[Any]], Any], given: list[Any]) -> float:
    """The most that was taken on the way, MiB."""
    tracemalloc.start()
    work(given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 2**20, 1)


if __name__ == "__main__":
    main()
