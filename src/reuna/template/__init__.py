"""What `reuna init` makes: a small project that trains at once, and sample data to train on.

The sample: a few pumps, each at its own load, with vibration, temperature, flow and current every
ten seconds. ``fault`` is 0 (normal), 1 (worn bearing), 2 (blocked inlet) or 3 (cavitation); each
pump has seen only two of the three faults. Seeded; made of sines and noise, not of a real pump.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reuna.core.errors import ProjectError, SettingsError
from reuna.fleet.data import node_name

HERE = Path(__file__).parent / "project"
SKIPPED = shutil.ignore_patterns("__pycache__")
PUMPS = 4
SAMPLES = 240  #: rows of a recording, one every ten seconds
ONSET = 60  #: row at which a recording's fault begins
FAULTS = (1, 2, 3)
RECORDINGS = {"train": 3, "validation": 1, "test": 2}  #: of each kind, by split
COLUMNS = ("second", "vibration_mm_s", "temperature_c", "flow_m3_h", "current_a", "fault")


def make_project(folder: Path, sample: bool) -> list[Path]:
    """Write the project; the files made. Raises `ProjectError` when the folder is not empty."""
    if folder.exists() and any(folder.iterdir()):
        raise ProjectError(f"{folder} is not empty", "Name a folder that does not exist yet.")
    name = folder.absolute().name
    if node_name(Path(name)) != name:
        raise SettingsError(f"{name!r} is no project name", "Use a-z, 0-9 and -.")
    shutil.copytree(HERE, folder, ignore=SKIPPED, dirs_exist_ok=True)
    settings = folder / "reuna.toml"
    settings.write_text(settings.read_text().replace("my-detector", name))
    if sample:
        write_sample(folder / "data")
    (folder / ".gitignore").write_text("data/\nruns/\n__pycache__/\n")
    return sorted(path for path in folder.rglob("*") if path.is_file() and "data" not in path.parts)


def write_sample(folder: Path) -> None:
    """A sub-folder of CSV files for each pump; about 3 MB."""
    for pump in range(PUMPS):
        for split, count in RECORDINGS.items():
            place = folder / f"pump-{pump + 1}" / split
            place.mkdir(parents=True)
            seen = FAULTS if split == "test" else tuple(f for f in FAULTS if f != FAULTS[pump % 3])
            for fault in (0, *seen):
                for index in range(count):
                    rows = recording(pump, fault, f"{split}/{index}")
                    _write(place / f"fault-{fault}-{index}.csv", rows)


def recording(pump: int, fault: int, which: str) -> NDArray[np.float64]:
    """(`SAMPLES`, 6) rows in the order of `COLUMNS`; the fault begins at row `ONSET`."""
    rng = np.random.default_rng([pump, fault, *which.encode()])
    time = 10.0 * np.arange(SAMPLES)
    load = 1.0 + 0.25 * pump + 0.1 * np.sin(2 * np.pi * time / 900 + rng.uniform(0, 6))
    active = (np.arange(SAMPLES) >= ONSET) & (fault > 0)
    noise = rng.normal(size=(SAMPLES, 4)) * [0.12, 0.4, 0.5, 0.2]
    signals = np.stack([1.2 * load, 40 + 9 * load, 24 * load, 8 * load], axis=1) + noise
    signals[active] += EFFECTS[fault] * load[active, None]
    signals[active, 0] += abs(rng.normal(size=int(active.sum()))) * SHAKES[fault]
    return np.column_stack([time, signals, np.where(active, fault, 0)])


EFFECTS = np.array([[0, 0, 0, 0], [0.6, 2.5, 0, 0.3], [0.1, 0.8, -4.0, -0.9], [0.3, 0.2, -1.2, 0.2]])
SHAKES = (0.0, 0.1, 0.0, 1.1)  #: cavitation shakes


def _write(path: Path, rows: NDArray[np.float64]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(
            [f"{second:.0f}", *(f"{v:.3f}" for v in row), int(fault)] for second, *row, fault in rows
        )
