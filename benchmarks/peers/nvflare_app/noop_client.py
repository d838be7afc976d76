"""NVFlare's side of the benchmark: a client that gives the benchmark's update and notes when tasks came."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nvflare.client as flare

from benchmarks.peers.work import update


def main(folder: Path) -> None:
    """Answer every task; one site notes the times of its tasks beside the numbers."""
    flare.init()
    site = flare.get_site_name()
    while flare.is_running():
        task = flare.receive()
        if task is None:
            break
        if site == "site-1":
            with (folder / "times").open("a", encoding="ascii") as times:
                times.write(f"{time.monotonic()}\n")
        ((name, weights),) = task.params.items()
        mine = update(folder / "drawn.npy", weights.size, int(site.split("-")[1]) - 1, task.current_round)
        told = {name: weights + mine.reshape(weights.shape)}
        flare.send(flare.FLModel(params=told, metrics={"accuracy": 0.0}, meta={"NUM_STEPS_CURRENT_ROUND": 1}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
