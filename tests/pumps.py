"""A project of pumps with sample data, releases of it, and recordings that were changed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from reuna.adapters.conformity import judge_folder
from reuna.adapters.project import load_entry, pack_bundle
from reuna.core.bins import as_fields, merged
from reuna.core.contract import contract
from reuna.core.outcomes import Outcome
from reuna.core.records import Setting
from reuna.fleet.open_project import open_settings
from reuna.fleet.predict import Asked, as_dict, predict
from reuna.fleet.release import KEPT
from reuna.template import make_project
from reuna.wire import release as wire
from reuna.wire.build import SBOM, canonical
from reuna.wire.release import About
from tests.finished import finished
from tests.made_releases import bill

RULES = """
[fallback]
safe = 0
[fallback.signals.flow_m3_h]
rule = "hold"
hold_rows = 2
[fallback.signals.current_a]
rule = "mask"
value = 7
"""
Row = dict[str, str]
Change = Callable[[list[Row]], list[Row]]


@dataclass(frozen=True)
class Pumps:
    """A project with its sample data, and a model that knows nothing."""

    folder: Path
    settings: Mapping[str, Setting]
    graph: bytes

    @property
    def node(self) -> Path:
        return self.folder / "data" / "pump-1"

    @property
    def recording(self) -> Path:
        return min((self.node / "test").iterdir())

    def release(self, file: Path, code: bytes | None = None, project: str = "pumps", **more: bytes) -> Path:
        """A release of it, as `reuna release make` writes them; ``more``: other parts, without their ending."""
        agreed, result = contract(self.settings), finished()
        told = as_fields(agreed.version, judge_folder(self.node, agreed).bins)
        parts = {
            wire.BINS: canonical(merged(agreed, [told])),
            wire.CARD: b"# pumps\n",
            wire.CODE: code or pack_bundle(self.folder),
            wire.CONTRACT: canonical(msgspec.to_builtins(agreed)),
            wire.GATES: canonical({"decision": "pass"}),
            wire.LINEAGE: canonical(
                {**{name: result[name] for name in KEPT}, "source": {}, "settings": dict(self.settings)}
            ),
            wire.MODEL: self.graph,
            SBOM: bill(numpy="2.1.0"),
        }
        parts |= {f"{name}.json": content for name, content in more.items()}
        file.write_bytes(wire.encode(About(project, 1, "r-1", "0" * 64), parts))
        return file


def make(folder: Path, task: str, rules: str = "", seed: int = 1) -> Pumps:
    """``seed``: of what the model does not know."""
    make_project(folder, sample=True, task=task)
    file = folder / "reuna.toml"
    file.write_text(file.read_text() + rules)
    told = open_settings(folder, [])
    learner = load_entry(folder, told.entry).learner(told.settings)
    chance = np.random.default_rng(seed)
    tensors = {
        name: chance.normal(size=value.shape).astype(np.float32) for name, value in learner.init(1).items()
    }
    return Pumps(folder, told.settings, learner.export(tensors))


def rows_of(file: Path) -> list[Row]:
    with file.open() as opened:
        return list(csv.DictReader(opened))


def write(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def changed(into: Path, file: Path, change: Change) -> Path:
    """A folder with that recording, changed."""
    write(into / "a.csv", change(rows_of(file)))
    return into


def emptied(name: str, *numbers: int) -> Change:
    return lambda rows: [{**row, name: ""} if number in numbers else row for number, row in enumerate(rows)]


async def offline(release: Path, recordings: Path, node: Path) -> list[Outcome]:
    """What `reuna predict` says of recordings, as outcomes without times."""
    found = as_dict(await predict(Asked(release, recordings, node)))
    return [
        Outcome("", 0, "", 0, 0, each["state"], each["answer"], tuple(each["output"]), each["why"])
        for each in found["windows"]
    ]
