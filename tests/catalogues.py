"""Releases as small as they may be, and a catalogue of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reuna.fleet.release import Catalogue
from reuna.wire import release as wire

PROJECT = "Pumps, hall 2"
MODEL = "1" * 64


def history(run: str, version: int) -> dict[str, Any]:
    """What `lineage` reads."""
    site = {"site": "pump-1", "nodes": ["pump-1"], "federated": {"all": 0.9}}
    return {
        "run": run, "project": PROJECT, "task": "fault-classification", "metric": "all", "rounds": 3,
        "strategy": "fedavg", "model_digest": MODEL, "version": version, "sites": [site],
        "worst_site": {"site": "pump-1", "metric": "all", "value": 0.9},
        "source": {"code": "2" * 64, "commit": "3" * 40},
    }  # fmt: skip


def release(version: int = 1, project: str = PROJECT, run: str = "r-1", **parts: bytes) -> bytes:
    """The file. ``parts``: others in the place of its own, by their names without an ending."""
    own = {name: f"{name} of {version}\n".encode() for name in wire.NEEDED}
    own[wire.LINEAGE] = json.dumps(history(run, version)).encode()
    own |= {name: parts[name.partition(".")[0]] for name in wire.NEEDED if name.partition(".")[0] in parts}
    return wire.encode(wire.About(project, version, run, MODEL), own)


def add(releases: Path, data: bytes) -> Catalogue:
    """Keep it as its project's next challenger."""
    found = wire.decode(data)
    catalogue = Catalogue.of(releases, found.manifest.about.project)
    catalogue.add(found, data)
    return catalogue
