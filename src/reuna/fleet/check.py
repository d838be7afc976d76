"""Checks a project without training: settings, code, and every node's data; what `run` looks at first too."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from reuna.adapters.project import blame_project, load_entry
from reuna.core.cohort import least
from reuna.core.contract import contract
from reuna.core.data import Dataset, Samples
from reuna.core.errors import DataError, ReunaError, SettingsError
from reuna.core.gates import CONTRACT, measured_as
from reuna.core.ports import Learner, Tensors
from reuna.core.project import ProjectSettings
from reuna.core.settings import locating
from reuna.core.tensors import layout_of
from reuna.fleet.data import DataNode, find_nodes, spread
from reuna.fleet.layout import check_names
from reuna.fleet.open_project import open_settings
from reuna.learn.grid import check_grid
from reuna.learn.rounding import check_encoding
from reuna.learn.strategies import client_settings, strategy

FEW = 64  #: samples on which the learner is tried

CORRECT = "Correct the data of the nodes named, or leave their folders out."


def check_project(folder: Path, data: Path | None) -> dict[str, Any]:
    """What the project is. Raises the first mistake of the project, or all of the nodes' together."""
    settings = open_settings(folder, [])
    found = data or (folder / "data" if (folder / "data").is_dir() else None)
    return check_all(folder, settings, find_nodes(found) if found else [])


def check_all(
    folder: Path,
    settings: ProjectSettings,
    data: list[DataNode],
    fogs: int | None = None,
    quorum: float = 1.0,
) -> dict[str, Any]:
    """The same for settings that are read and nodes that are found. Nothing is started for it.

    ``quorum``: the fraction of nodes whose data must be sound; a run goes on without the others.
    """
    with locating(settings.places):
        return _check(folder, settings, data, fogs, quorum)


def _check(
    folder: Path, settings: ProjectSettings, data: list[DataNode], fogs: int | None, quorum: float
) -> dict[str, Any]:
    check_names(["cloud", *spread(data, fogs), *(node.name for node in data)])
    check_grid(settings.grid, settings.max_weight, max(1, len(data)))
    check_encoding(settings.encoding, settings.grid)
    chosen = strategy(settings.strategy)
    chosen.check_encoding(settings.encoding)
    if data:
        chosen.check_rows(settings.settings, least(settings.quorum, len(data), settings.asking))
    entry = load_entry(folder, settings.entry)
    with blame_project(folder, "making the learner"):
        learner = entry.learner(settings.settings)
        model = learner.init(settings.seed)
        params = layout_of(model).params
    nodes: dict[str, str] = {}
    wrong: list[str] = []
    steps: set[str] = set()
    metrics: set[str] = set()
    for node in data:
        try:
            with blame_project(folder, f"loading {node.name}"):
                loaded = entry.load(node.folder, settings.settings)
            nodes[node.name] = _size(loaded)
        except ReunaError as error:
            wrong.append(f"{node.name}: {error.message}")
            steps.add(error.next_step)
            continue
        if _unmeasured(settings, metrics):
            with blame_project(folder, f"trying the learner on {node.name}"):
                metrics |= _tried(learner, model, loaded, settings)
    if len(nodes) < math.ceil(quorum * len(data) - 1e-9):
        raise DataError("\n".join(wrong), steps.pop() if len(steps) == 1 else CORRECT)
    if nodes and (unmeasured := _unmeasured(settings, metrics)):
        raise SettingsError("\n".join(unmeasured))
    return {"project": settings.name, "params": params, "rounds": settings.rounds, "nodes": nodes}


def _unmeasured(settings: ProjectSettings, metrics: set[str]) -> list[str]:
    """Which settings name a metric that no node measures."""
    known = f"but no node measures that; measured are {', '.join(sorted(metrics))}"
    said = [f"project.metric is {settings.metric!r}, {known}"] if settings.metric not in metrics else []
    gated = {each.metric: measured_as(each.metric) for each in settings.gates}
    if CONTRACT in gated and not contract(settings.settings).looks:
        said.append(f"gates.{CONTRACT} needs a data contract: [signals] or [label]")
    return said + [
        f"gates.{name} is a gate on {of!r}, {known}" for name, of in gated.items() if of and of not in metrics
    ]


def _tried(learner: Learner, model: Tensors, data: Any, settings: ProjectSettings) -> set[str]:
    """What the learner measures after one pass over a few samples. Raises what it raises."""
    own = {**client_settings(settings.strategy, settings.settings), "rounds": settings.rounds, "epochs": 1}
    if isinstance(data, Dataset) and len(data.train) > 0:
        model, _, _ = learner.fit(model, replace(data, train=_few(data.train)), own, settings.seed)
    return set(learner.evaluate(model, data, own))


def _few(samples: Samples) -> Samples:
    """Samples from all over, for labels may come in order."""
    chosen = slice(None, None, max(1, len(samples) // FEW))
    return Samples(samples.x[chosen], samples.y[chosen])


def _size(loaded: Any) -> str:
    train = getattr(loaded, "train", None)
    return f"{len(train)} training samples" if train is not None else "loaded"
