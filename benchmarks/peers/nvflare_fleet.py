"""NVFlare as it is deployed: its provisioned server and N sites (POC), mutual TLS; one JSON line.

    .venv-nvflare/bin/python -m benchmarks.peers.nvflare_fleet --params 10000 --nodes 8 --rounds 3

A round's seconds are the time from one task's arrival at the first site to the next.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import looking, work
from benchmarks.peers.flower_fleet import free_port

CLIENT = Path(__file__).parent / "nvflare_app" / "noop_client.py"
UP_S = 180.0
ROUNDS_S = 600.0
WRITTEN_S = 60.0
WARM_UP = 1


def main() -> None:
    """Measure and print one line."""
    looking.driven(__doc__, ("params", "nodes", "rounds"), in_a_folder)


def in_a_folder(args: argparse.Namespace) -> dict[str, object]:
    """The figures; nothing of NVFlare's goes to the user's own settings."""
    with tempfile.TemporaryDirectory(prefix="nvflare-", ignore_cleanup_errors=True) as name:
        os.environ |= {
            "HOME": name,
            "NVFLARE_POC_WORKSPACE": f"{name}/poc",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        try:
            with contextlib.redirect_stdout(sys.stderr):
                return measure(args, Path(name))
        finally:
            looking.end_below(os.getpid())


def is_server(pid: int) -> bool:
    """The server, or the process it started for the job."""
    return "nvflare.private.fed.app.server" in looking.command(pid)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Start, run, look; the figures."""
    from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe

    work.draw(folder / "drawn.npy", args.params)
    np.save(folder / "start.npy", np.zeros(args.params, np.float32))
    rounds = args.rounds + WARM_UP
    recipe = NumpyFedAvgRecipe(
        name="noop",
        initial_ckpt=str(folder / "start.npy"),
        min_clients=args.nodes,
        num_rounds=rounds + 1,
        train_script=str(CLIENT),
        train_args=str(folder),
    )
    env = environment(args.nodes, folder)
    watch = looking.Watch(is_server)
    began = time.monotonic()
    recipe.run(env)
    times = folder / "times"
    looking.until(lambda: len(arrivals(times)) > rounds, ROUNDS_S, "the end of the rounds")
    whole_s = time.monotonic() - began
    seconds = [after - before for before, after in pairwise(arrivals(times))][WARM_UP:rounds]
    figures = watch.stop()
    return {
        "median_s": round(statistics.median(seconds), 4),
        "seconds": [round(each, 4) for each in seconds],
        "client_idle_pss_mib": round(env.idle_mib / args.nodes, 1),
        **figures,
        "up_s": round(env.up_s, 1),
        "whole_s": round(whole_s, 1),
        "right": is_right(folder, args.params, args.nodes, rounds + 1),
        "mode": "POC, mutual TLS",
    }


def arrivals(path: Path) -> list[float]:
    """When tasks came to the first site."""
    with contextlib.suppress(OSError):
        return [float(line) for line in path.read_text(encoding="ascii").split()]
    return []


def is_right(folder: Path, params: int, nodes: int, rounds: int) -> bool | None:
    """Whether the server's last model is what it must be; None when the server has not written one in time."""
    wanted, found = work.expected(folder / "drawn.npy", params, nodes, range(rounds)), False

    def written() -> bool:
        nonlocal found
        for path in folder.rglob("server.npy"):
            with contextlib.suppress(OSError, ValueError, EOFError):  # half of it
                model, found = np.load(path), True
                if work.is_right(model, wanted):
                    return True
        return False

    with contextlib.suppress(TimeoutError):
        looking.until(written, WRITTEN_S, "the right model")
        return True
    return False if found else None


def environment(nodes: int, folder: Path) -> Any:
    """NVFlare's own, on free ports, which looks at idle sites before it takes the job."""
    from importlib.resources import files

    from nvflare.recipe.poc_env import PocEnv

    text = files("nvflare.lighter").joinpath("dummy_project.yml").read_text(encoding="utf-8")
    for usual in ("8002", "8003"):
        text = text.replace(usual, str(free_port()))
    (folder / "poc").mkdir()
    (folder / "poc" / "project.yml").write_text(text, encoding="utf-8")

    class Idle(PocEnv):  # type: ignore[misc]  # it is not there when types are checked
        idle_mib = up_s = 0.0

        def _get_session_manager(self) -> Any:
            if not self.up_s:
                began = time.monotonic()
                looking.until(lambda: registered(folder) >= nodes, UP_S, "all sites being registered")
                self.up_s = time.monotonic() - began + 3.0  # which it waits before it asks for this
                self.idle_mib = looking.settled_pss_mib(sites)
            return super()._get_session_manager()

    return Idle(num_clients=nodes)


def registered(folder: Path) -> int:
    """How many sites say in their logs that the server has them."""
    logs = folder.glob("poc/*/prod_00/site-*/log.txt")
    return sum("Successfully registered" in path.read_text(errors="replace") for path in logs)


def sites() -> list[int]:
    """Processes of sites that wait for a job."""
    running = looking.below(os.getpid())
    return [pid for pid in running if "nvflare.private.fed.app.client.client_train" in looking.command(pid)]


if __name__ == "__main__":
    main()
