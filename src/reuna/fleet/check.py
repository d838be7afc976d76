"""Checks a project without training: settings, code, and that every node's data can be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reuna.adapters.project import blame_project, load_entry
from reuna.core.errors import DataError, ReunaError
from reuna.core.tensors import layout_of
from reuna.fleet.data import find_nodes
from reuna.fleet.open_project import open_settings

CORRECT = "Correct the data of the nodes named, or leave their folders out."


def check_project(folder: Path, data: Path | None) -> dict[str, Any]:
    """What the project is. Raises the first mistake of the project, or all of the nodes' together."""
    settings = open_settings(folder, [])
    entry = load_entry(folder, settings.entry)
    with blame_project(folder, "making the learner"):
        learner = entry.learner(settings.settings)
        params = layout_of(learner.init(settings.seed)).params
    found = data or (folder / "data" if (folder / "data").is_dir() else None)
    nodes: dict[str, str] = {}
    wrong: list[str] = []
    steps: set[str] = set()
    for node in find_nodes(found) if found else []:
        try:
            with blame_project(folder, f"loading {node.name}"):
                loaded = entry.load(node.folder, settings.settings)
            nodes[node.name] = _size(loaded)
        except ReunaError as error:
            wrong.append(f"{node.name}: {error.message}")
            steps.add(error.next_step)
    if wrong:
        raise DataError("\n".join(wrong), steps.pop() if len(steps) == 1 else CORRECT)
    return {"project": settings.name, "params": params, "rounds": settings.rounds, "nodes": nodes}


def _size(loaded: Any) -> str:
    train = getattr(loaded, "train", None)
    return f"{len(train)} training samples" if train is not None else "loaded"
