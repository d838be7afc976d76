"""An edge that reads its machine: a release on trial, the next as a shadow, then live, and one that goes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.clock import SystemClock
from reuna.adapters.project import pack_bundle
from reuna.cloud.sign import Signing
from reuna.core.project import TASKS
from reuna.edge.releases import STATUS
from reuna.fleet.code import allow_code
from reuna.fleet.layout import make_fleet
from reuna.trust.stages import Stage
from reuna.wire import release as wire
from reuna.wire.build import canonical, sha256
from reuna.wire.release import About
from tests.pumps import RULES, make
from tests.system.test_live import SOURCES

pytestmark = [pytest.mark.system, pytest.mark.timeout(150)]
HEALTH = "\n[operate]\ntrial_s = 1\nmin_windows = 3\nmax_safe = 1.0\nmin_agreement = 0.9\n"


class Edge:
    """A fleet with one edge, what is signed for it, and what it shows."""

    running: subprocess.Popen[bytes]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pumps = make(folder / "pumps", TASKS[0], RULES + HEALTH)
        self.fleet = make_fleet(folder / "line", "local", {"fog-1": {"pump-1": pumps.node}})
        self.first = pumps.release(folder / "1.release").read_bytes()
        allow_code(self.fleet, pack_bundle(pumps.folder), "pumps")
        (folder / "recordings").mkdir()
        (folder / "recordings" / "a.csv").write_bytes(pumps.recording.read_bytes())
        (folder / "sources.toml").write_text(SOURCES.format(folder=folder / "recordings"))
        file = self.fleet.folder / "pump-1" / "edge.toml"
        file.write_text(
            f'sources = "{folder / "sources.toml"}"\n{file.read_text()}\n[live]\nlateness_s = 1.2\n'
        )

    def stop(self) -> None:
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGINT)
            self.running.wait(60)

    def again(self, version: int, **settings: Any) -> bytes:
        """The first release under another number; ``settings``: that its lineage says otherwise."""
        parts = dict(wire.decode(self.first).parts)
        history = msgspec.json.decode(parts[wire.LINEAGE])
        history["settings"] |= settings
        parts[wire.LINEAGE] = canonical(history)
        return wire.encode(About("pumps", version, "r-1", "0" * 64), parts)

    def sign(self, data: bytes, version: int) -> None:
        (self.folder / f"{version}.release").write_bytes(data)
        words = ("trust", "add", f"{version}.release", "--kind", "release", "--name", f"pumps-{version}",
                 "--folder", str(self.fleet.folder / "trust"))  # fmt: skip
        command = [sys.executable, "-m", "reuna.cli", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=self.folder)

    def stage(self, *stages: Stage) -> None:
        Signing(self.fleet.folder / "trust", SystemClock()).stage(stages)

    def shows(self) -> dict[str, Any]:
        file = self.fleet.folder / "pump-1" / "state" / STATUS
        found = json.loads(file.read_bytes())["projects"] if file.exists() else []
        return found[0] if found else {}

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + 60
        while not holds(shown := self.shows()):
            assert time.monotonic() < end, (
                shown,
                (self.fleet.folder / "pump-1" / "place.log").read_text()[-3000:],
            )
            time.sleep(0.05)
        return shown


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    pytest.importorskip("onnxruntime")
    made = Edge(tmp_path)
    made.sign(made.first, 1)
    command = [sys.executable, "-m", "reuna.cli", "up", str(made.fleet.folder / "fleet.toml")]
    with (tmp_path / "up.log").open("wb") as out:
        running = subprocess.Popen(command, stderr=out, stdout=out, start_new_session=True)
    made.running = running
    try:
        yield made
    finally:
        made.stop()


def is_now(version: int, phase: str) -> Callable[[dict[str, Any]], bool]:
    return lambda shown: (shown.get("version"), shown.get("phase")) == (version, phase)


def test_an_edge_tries_releases_on_its_machine_and_keeps_what_is_healthy(edge: Edge) -> None:
    shown = edge.until(is_now(1, "confirmed"))
    two, live = edge.again(2), Stage("pumps", 1, sha256(edge.first))
    edge.stage(Stage("pumps", 2, sha256(two), "shadow", rollout="r-7"), live)
    edge.sign(two, 2)
    shown = edge.until(lambda shown: shown.get("phase") == "shadow" and shown.get("compared", 0) >= 4)
    assert (shown["version"], shown["beside"]) == (1, 2)
    assert shown["agreed"] == shown["compared"], "it is the same model"
    edge.stage(Stage("pumps", 2, sha256(two), rollout="r-7"))
    edge.until(is_now(2, "confirmed"))
    hasty = edge.again(
        3, operate=json.dumps({"trial_s": 60, "min_windows": 3, "max_safe": 1.0, "max_latency_ms": 0.001})
    )
    edge.stage(Stage("pumps", 3, sha256(hasty), rollout="r-8"))
    edge.sign(hasty, 3)
    shown = edge.until(is_now(2, "rolled_back"))
    assert (shown["reason"], shown["gave_up"]) == ("latency", 3)
    assert "windows took over 0.001 ms" in shown["detail"]
    edge.stop()
    (edge.fleet.folder / "pump-1" / "state" / STATUS).unlink()
    command = [
        sys.executable,
        "-m",
        "reuna.cli",
        "edge",
        "--settings",
        str(edge.fleet.folder / "pump-1" / "edge.toml"),
    ]
    with (edge.folder / "alone.log").open("wb") as out:
        edge.running = subprocess.Popen(command, stderr=out, stdout=out)
    shown = edge.until(lambda shown: shown.get("at_work", False))
    assert (shown["version"], shown["phase"]) == (2, "rolled_back"), "alone, without a line to anybody"
