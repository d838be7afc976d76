"""Flower's simulation (Ray): virtual clients a second, the same logistic regression as `benchmarks.simulate`.

    .venv-flower/bin/python -m benchmarks.peers.flower_simulate --clients 100 --rounds 3

The first round starts Ray and is told apart. Rows are made in the client, from its number: what is counted is
dominated by what surrounds a fit, which takes a tenth of a millisecond.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from typing import Any

import numpy as np

from benchmarks.peers import looking, work

DATA: dict[int, Any] = {}  #: a worker's clients, made once


def main() -> None:
    """Measure and print one line."""
    looking.driven(__doc__, ("clients", "rounds", "processes"), at_home)


def at_home(args: argparse.Namespace) -> dict[str, object]:
    """With settings of its own, which are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True) as home:
        os.environ |= {
            "FLWR_HOME": home,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        return measure(args)


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Run the rounds; the figures."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    from benchmarks.peers.flower_app.noop.server import Timed

    client, server, strategy = ClientApp(), ServerApp(), Timed(args.clients)
    watch = looking.Watch(lambda _pid: True)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        rows, labels = DATA.setdefault(place, work.client_rows(place))
        weight, bias = message.content["arrays"].to_numpy_ndarrays()
        model = work.fit(weight, bias, rows, labels)
        told = {"arrays": ArrayRecord(list(model)), "metrics": MetricRecord({"num-examples": len(labels)})}
        return Message(content=RecordDict(told), reply_to=message)

    @server.main()
    def run(grid: Grid, context: Context) -> None:
        start = [np.zeros((work.FEATURES, work.CLASSES), np.float32), np.zeros(work.CLASSES, np.float32)]
        strategy.start(grid=grid, initial_arrays=ArrayRecord(start), num_rounds=args.rounds + 1)

    run_simulation(
        server,
        client,
        args.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": args.processes, "include_dashboard": False},
        },
    )
    first, *steady = strategy.seconds
    peak = watch.stop()
    return {
        "clients_per_s": round(args.clients / statistics.median(steady), 1),
        "first_round_s": round(first, 1),
        "all_peak_mib": peak["server_all_peak_mib"],
        "processes": peak["processes"],
        "mode": f"Simulation Runtime on Ray, {args.processes} actors",
    }


if __name__ == "__main__":
    main()
