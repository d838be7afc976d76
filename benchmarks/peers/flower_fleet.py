"""Flower as it is deployed: a SuperLink, N SuperNodes, apps in processes of theirs; one JSON line.

    .venv-flower/bin/python -m benchmarks.peers.flower_fleet --params 10000 --nodes 8 --rounds 3

Its HTTP interface with TLS; the node's own interface to its app stays on loopback without, as by default.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peers import looking, work
from benchmarks.peers.certificates import make

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
UP_S = 180.0  #: for servers and nodes to come up
ROUNDS_S = 600.0
WARM_UP = 1


def main() -> None:
    """Measure and print one line."""
    looking.driven(__doc__, ("params", "nodes", "rounds"), in_a_folder)


def in_a_folder(args: argparse.Namespace) -> dict[str, object]:
    """The figures; what the logs say last, where there are none."""
    with tempfile.TemporaryDirectory(prefix="flower-", ignore_cleanup_errors=True) as name:
        try:
            return measure(args, Path(name))
        except Exception:
            for log in sorted(Path(name).glob("*.log"))[:3]:
                sys.stderr.write(f"{log.name}: {looking.told(log)}\n")
            raise
        finally:
            looking.end_below(os.getpid())


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Start, run, look; the figures."""
    fleet = Started(folder)
    began = time.monotonic()
    fleet.link()
    fleet.nodes(args.nodes)
    up_s = time.monotonic() - began
    idle = looking.settled_pss_mib(fleet.client_processes)
    servers = Sides(fleet.server)
    watch = looking.Watch(servers.is_server)
    work.draw(folder / "drawn.npy", args.params)
    began = time.monotonic()
    fleet.run(args.params, args.nodes, args.rounds + WARM_UP)
    seconds_file = folder / "seconds.json"
    looking.until(seconds_file.exists, ROUNDS_S, "the end of the rounds")
    whole_s = time.monotonic() - began
    seconds = json.loads(seconds_file.read_text(encoding="utf-8"))[WARM_UP:]
    wanted = work.expected(folder / "drawn.npy", args.params, args.nodes, range(1, args.rounds + WARM_UP + 1))
    return {
        "median_s": round(statistics.median(seconds), 4),
        "seconds": [round(each, 4) for each in seconds],
        "client_idle_pss_mib": round(idle / args.nodes, 1),
        **watch.stop(),
        "up_s": round(up_s, 1),
        "whole_s": round(whole_s, 1),
        "right": work.is_right(np.load(folder / "model.npy"), wanted),
        "mode": "SuperLink and SuperNodes, TLS",
    }


class Sides:
    """Which side a process is of: the SuperLink and what it started, or a node."""

    def __init__(self, server: int) -> None:
        self._server = server

    def is_server(self, pid: int) -> bool:
        """Whether it descends from the SuperLink; the ServerApp does."""
        return pid == self._server or pid in looking.below(self._server)


class Started:
    """The processes of a fleet, with files of theirs in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = 0
        self.clients: list[int] = []
        self._port = free_port()
        home = folder / "home"
        home.mkdir()
        self._ca, self._certificate, self._key = make(folder)
        connection = f'address = "127.0.0.1:{self._port}"\nroot-certificates = "{self._ca}"\n'
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\n{connection}', encoding="utf-8"
        )
        self._env = {
            **os.environ,
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PYTHONPATH": str(HERE.parents[1]),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def link(self) -> None:
        """The SuperLink; returns when it listens."""
        words = ["--port", str(self._port), "--disable-runtime-dependency-installation"]
        words += [
            "--ssl-ca-certfile",
            self._ca,
            "--ssl-certfile",
            self._certificate,
            "--ssl-keyfile",
            self._key,
        ]
        self.server = self._start("superlink", "flower-superlink", *words)
        looking.until(lambda: listens(self._port), UP_S, "the SuperLink listening")

    def nodes(self, count: int) -> None:
        """So many SuperNodes; returns when all are registered."""
        for place in range(count):
            words = ["--superlink", f"127.0.0.1:{self._port}", "--root-certificates", self._ca]
            words += ["--port", str(free_port()), "--node-config", f"partition-id={place}"]
            self.clients.append(self._start(f"node-{place}", "flower-supernode", *words))
        for place in range(count):
            looking.until(partial(self._is_there, place), UP_S, f"SuperNode {place} being up")

    def _is_there(self, place: int) -> bool:
        return len(looking.below(self.clients[place])) >= 1  # it starts the one that runs apps when it is up

    def client_processes(self) -> list[int]:
        """All processes of all nodes."""
        return [pid for root in self.clients for pid in (root, *looking.below(root))]

    def run(self, params: int, nodes: int, rounds: int) -> None:
        """Submit the app."""
        config = f'params={params} nodes={nodes} rounds={rounds} folder="{self.folder}"'
        done = subprocess.run(
            [BIN / "flwr", "run", str(HERE / "flower_app"), "bench", "--run-config", config],
            env=self._env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=UP_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"flwr run: {done.stdout[-800:]} {done.stderr[-800:]}")

    def _start(self, name: str, program: str, *words: str) -> int:
        with (self.folder / f"{name}.log").open("wb") as out:
            return subprocess.Popen([BIN / program, *words], env=self._env, stdout=out, stderr=out).pid


def free_port() -> int:
    """A port nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody accepts there."""
    with socket.socket() as asking:
        asking.settimeout(0.5)
        return asking.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
