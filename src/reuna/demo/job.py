"""The demo as a job: six plants' folders written for the occasion, the project beside this file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reuna.demo import plants
from reuna.fleet.data import DataNode
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Job

PROJECT = Path(__file__).parent / "project"


#: One site tells nobody how well its own training goes: its policy does not list that metric.
SECRETIVE = {"plant-3": ('"loss", ', "")}


@contextmanager
def demo_job(split: int, rounds: int | None, runs: Path) -> Iterator[Job]:
    """The job of one of the splits 1, 2, 3; the plants' folders are removed at the end."""
    flags = [] if rounds is None else [f"strategy.rounds={rounds}"]
    settings = open_settings(PROJECT, flags)
    with tempfile.TemporaryDirectory(prefix="reuna-demo-") as folder:
        nodes = write_plants(Path(folder), split - 1)
        yield Job(
            PROJECT,
            settings,
            nodes,
            runs,
            fogs=2,
            notes={"split": split},
            preset="company",
            amend=SECRETIVE,
            scaling=True,
        )


def write_plants(folder: Path, split: int) -> list[DataNode]:
    """A folder for each plant, as a user's node would have it."""
    archive = plants.read_archive()
    nodes = []
    for plant in range(plants.PLANTS):
        name = f"plant-{plant + 1}"
        plants.write_plant_folder(plant, split, folder / name, archive)
        nodes.append(DataNode(name, name, folder / name))
    return nodes
