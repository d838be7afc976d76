"""Reads the demo's six plants: runs of the Tennessee Eastman process, one operating mode each.

What lives here: the reader of ``plants.npz`` (made by examples/tennessee_eastman/generate.py) and
the three committed splits. What must never: simulation, features, models.

A run is a row every 3 minutes of 53 signals (41 measurements and 12 valves, see `signals`). A
fault begins at ``onset_min`` and stays. Of a plant's development runs a split trains on two of
three and validates on the third; it sees only four of the seven faults. Test runs have other seeds
and other onsets, show all seven faults, and are the same in all splits. ``extra`` runs are for
reporting apart: faults that are hard to name, and 3, 9, 15, which nobody detects.

>>> data = load_plant(plant=0, split=0)
>>> data.faults
(1, 2, 4, 7)
>>> data.train[0].values.shape, data.train[0].values.dtype
((800, 53), dtype('float32'))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLANTS = 6
SPLITS = 3
MINUTES = 3  # between two samples
NORMAL = 0
FAULTS = (1, 2, 4, 6, 7, 14, 17)
EXTRA_FAULTS = (8, 10, 11, 12, 13, 20)
UNDETECTABLE_FAULTS = (3, 9, 15)
# Which of the seven faults plant 0 trains on, as places in FAULTS; plant p: shifted by p. So each
# fault is seen by three or four of the six plants, and no two plants of a split see the same four.
SEEN_BY_SPLIT = ((0, 1, 2, 4), (0, 3, 5, 6), (0, 1, 2, 3))
FOLDERS = ("train", "validation", "test", "extra")

_DEVELOPMENT, _TEST, _EXTRA = 0, 1, 2


@dataclass(frozen=True)
class Signal:
    """A column: its name, its unit, and its tag in the literature."""

    name: str
    unit: str
    tag: str


@dataclass(frozen=True)
class Run:
    """One recording. ``onset_min`` is -1 for a normal run; ``tripped``: the plant shut itself down.

    values: (samples, 53) float32 in the signals' units, a row every 3 minutes
    minutes: (samples,) int32 since the start of the recording
    labels: (samples,) int32, 0 while normal, from the onset on the fault's number
    """

    plant: int
    fault: int
    index: int
    seed: int
    onset_min: int
    tripped: bool
    minutes: NDArray[np.int32]
    values: NDArray[np.float32]

    @property
    def name(self) -> str:
        """Name of the run, unique within its part of a plant's data."""
        kind = f"fault-{self.fault:02d}" if self.fault else "normal"
        return f"{kind}-{self.index}"

    @property
    def labels(self) -> NDArray[np.int32]:
        """The state of the plant at every sample."""
        active = (self.minutes > self.onset_min) & (self.fault != NORMAL)
        return np.where(active, self.fault, NORMAL).astype(np.int32)


@dataclass(frozen=True)
class PlantData:
    """What one site holds in one split; ``faults`` are the four that it trains on."""

    plant: int
    split: int
    faults: tuple[int, ...]
    train: tuple[Run, ...]
    validation: tuple[Run, ...]
    test: tuple[Run, ...]
    extra: tuple[Run, ...]


@dataclass(frozen=True)
class Archive:
    """The file's content. ``runs`` hold plant, role, fault, index, onset, seed, start, samples."""

    signals: tuple[Signal, ...]
    integers: NDArray[np.int16]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    runs: dict[str, NDArray[Any]]


def read_archive() -> Archive:
    """Unpack the whole data set (about 0.2 s, 18 MiB)."""
    with as_file(files(__package__) / "plants.npz") as file, np.load(file, allow_pickle=False) as z:
        steps = z["high"].astype(np.uint16) << 8 | z["low"]
        named = zip(z["names"], z["units"], z["tags"], strict=True)
        return Archive(
            signals=tuple(Signal(str(name), str(unit), str(tag)) for name, unit, tag in named),
            integers=np.cumsum(steps.view(np.int16), axis=1, dtype=np.int16),
            scale=z["scale"],
            offset=z["offset"],
            runs={key.removeprefix("run_"): z[key] for key in z.files if key.startswith("run_")},
        )


def signals(archive: Archive | None = None) -> tuple[Signal, ...]:
    """The 53 columns in order: 41 measurements, 12 valves."""
    return (archive or read_archive()).signals


def seen_faults(plant: int, split: int) -> tuple[int, ...]:
    """The four faults that the plant trains on. Raises `ValueError` for an unknown plant or split."""
    if not (0 <= plant < PLANTS and 0 <= split < SPLITS):
        raise ValueError(f"there are plants 0-{PLANTS - 1} and splits 0-{SPLITS - 1}")
    return tuple(sorted(FAULTS[(place + plant) % len(FAULTS)] for place in SEEN_BY_SPLIT[split]))


def load_plant(plant: int, split: int, archive: Archive | None = None) -> PlantData:
    """A plant's runs in a split. Give ``archive`` to unpack the file only once for many plants."""
    faults = seen_faults(plant, split)
    source = archive or read_archive()
    seen = [run for run in _runs(source, plant, _DEVELOPMENT) if run.fault in (NORMAL, *faults)]
    return PlantData(
        plant=plant,
        split=split,
        faults=faults,
        train=tuple(run for run in seen if run.index != split),
        validation=tuple(run for run in seen if run.index == split),
        test=tuple(_runs(source, plant, _TEST)),
        extra=tuple(_runs(source, plant, _EXTRA)),
    )


def _runs(archive: Archive, plant: int, role: int) -> Iterable[Run]:
    table = archive.runs
    for row in np.flatnonzero((table["plant"] == plant) & (table["role"] == role)):
        yield _run(archive, {key: column[row] for key, column in table.items()})


def _run(archive: Archive, row: dict[str, Any]) -> Run:
    start, samples = int(row["start"]), int(row["samples"])
    integers = archive.integers[:, start : start + samples].T
    return Run(
        plant=int(row["plant"]),
        fault=int(row["fault"]),
        index=int(row["index"]),
        seed=int(row["seed"]),
        onset_min=int(row["onset_min"]),
        tripped=bool(row["tripped"]),
        minutes=np.arange(1, samples + 1, dtype=np.int32) * MINUTES,
        values=(archive.offset + archive.scale * integers).astype(np.float32),
    )


def write_plant_folder(plant: int, split: int, folder: Path, archive: Archive | None = None) -> None:
    """Write what a user's own node folder looks like: a Parquet file per run. Needs pyarrow.

    ``folder``/train, /validation, /test and /extra hold ``normal-0.parquet``,
    ``fault-06-1.parquet``, …: the 53 signals as float32 (unit and tag are in the field's
    metadata), ``minute`` and ``fault`` (0 while normal) as int32.
    """
    from pyarrow import parquet

    source = archive or read_archive()
    data = load_plant(plant, split, source)
    for part in FOLDERS:
        place = folder / part
        place.mkdir(parents=True, exist_ok=True)
        for run in getattr(data, part):
            table = _table(run, source.signals)
            parquet.write_table(
                table, place / f"{run.name}.parquet", use_dictionary=False, write_statistics=False
            )


def _table(run: Run, columns: tuple[Signal, ...]) -> Any:
    import pyarrow as arrow

    fields = [
        arrow.field(signal.name, arrow.float32(), metadata={"unit": signal.unit, "tag": signal.tag})
        for signal in columns
    ]
    fields += [arrow.field("minute", arrow.int32(), metadata={"unit": "min"})]
    fields += [arrow.field("fault", arrow.int32())]
    arrays = [arrow.array(column) for column in (*run.values.T, run.minutes, run.labels)]
    return arrow.Table.from_arrays(arrays, schema=arrow.schema(fields))
