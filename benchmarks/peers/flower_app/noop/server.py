"""Flower's own averaging over all clients; each round's seconds go to a file beside the numbers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):  # type: ignore[misc]  # it is not there when types are checked
    """Averages, and notes when a round began and when its mean was there."""

    def __init__(self, nodes: int) -> None:
        super().__init__(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes
        )
        self.seconds: list[float] = []
        self._began = 0.0

    def configure_train(self, *words: Any, **named: Any) -> Any:
        self._began = time.perf_counter()
        return super().configure_train(*words, **named)

    def aggregate_train(self, *words: Any, **named: Any) -> Any:
        found = super().aggregate_train(*words, **named)
        self.seconds.append(time.perf_counter() - self._began)
        return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    """So many rounds; the model and the seconds stay in the folder."""
    config = context.run_config
    folder, strategy = Path(str(config["folder"])), Timed(int(config["nodes"]))
    start = ArrayRecord([np.zeros(int(config["params"]), np.float32)])
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=int(config["rounds"]))
    (model,) = result.arrays.to_numpy_ndarrays()
    np.save(folder / "model.npy", model)
    (folder / "seconds.tmp").write_text(json.dumps(strategy.seconds), encoding="utf-8")
    (folder / "seconds.tmp").rename(folder / "seconds.json")
