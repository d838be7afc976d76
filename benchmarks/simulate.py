"""Virtual clients a second, on the real round logic: logistic regression 100 x 50.

    python -m benchmarks.simulate --clients 1000 --processes 2 --json

``numpy_clients_per_s`` is the limit: the same training in a plain loop, nothing else. Where other
programs run beside it, ``clients_per_cpu_s`` tells more: by the seconds that all processes computed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time

import numpy as np

import reuna
from benchmarks.arguments import at_least
from reuna.adapters.linear import SoftmaxClassifier
from reuna.core.data import Dataset, Samples, no_samples

ROWS, FEATURES = 100, 50


def data_of(seed: int) -> Dataset:
    """One client's rows."""
    rng = np.random.default_rng(seed)
    samples = Samples(rng.normal(size=(ROWS, FEATURES)).astype(np.float32), rng.integers(0, 2, ROWS))
    return Dataset(samples, no_samples(FEATURES), no_samples(FEATURES))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=at_least(1), default=1000)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--processes", type=at_least(1), default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="accepted for scripts; the output is JSON")
    return parser.parse_args(words)


def computed_s() -> float:
    """Seconds that this process and its children, which ended, have computed."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(args: argparse.Namespace) -> dict[str, int]:
    """The figures."""
    learner = SoftmaxClassifier(FEATURES, 2)
    nodes = {f"client-{i:05d}": data_of(i) for i in range(args.clients)}
    settings = {"rate": 0.1, "epochs": 1}
    reuna.simulate(learner, dict(list(nodes.items())[:50]), 1, settings=settings, evaluate=False)
    began, before = time.perf_counter(), computed_s()
    reuna.simulate(learner, nodes, args.rounds, settings=settings, evaluate=False, processes=args.processes)
    ours, computed = time.perf_counter() - began, computed_s() - before
    model = learner.init(1)
    began = time.perf_counter()
    for number in range(args.rounds):
        for data in nodes.values():
            learner.fit(model, data, settings, number)
    plain = time.perf_counter() - began
    work = args.clients * args.rounds
    return {
        "clients_per_s": round(work / ours),
        "clients_per_cpu_s": round(work / computed),
        "numpy_clients_per_s": round(work / plain),
        "clients": args.clients,
        "rounds": args.rounds,
        "processes": args.processes,
    }


def main() -> None:
    """Measure and print one JSON line."""
    print(json.dumps(measure(arguments())))


if __name__ == "__main__":
    main()
