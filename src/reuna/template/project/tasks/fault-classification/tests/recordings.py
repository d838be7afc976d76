"""Four pumps, each at its own load. ``fault`` is 0 (normal), 1 (worn bearing), 2 (blocked inlet) or 3
(cavitation); each pump has seen only two of the three faults before its test recordings.
"""

from collections.abc import Iterator

import numpy as np

COLUMNS = ("second", "vibration_mm_s", "temperature_c", "flow_m3_h", "current_a", "fault")
DIGITS = (0, 3, 3, 3, 3, 0)  # behind the point, by column
PUMPS = 4
ROWS = 240  # of a recording, one every ten seconds
ONSET = 60  # row at which a recording's fault begins
FAULTS = (1, 2, 3)
COUNTS = {"train": 3, "validation": 1, "test": 2}  # recordings of each kind
EFFECTS = np.array([[0, 0, 0, 0], [0.6, 2.5, 0, 0.3], [0.1, 0.8, -4.0, -0.9], [0.3, 0.2, -1.2, 0.2]])
SHAKES = (0.0, 0.1, 0.0, 1.1)  # cavitation shakes


def recordings(pump: int, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows, (`ROWS`, columns), of each recording."""
    seen = FAULTS if split == "test" else tuple(f for f in FAULTS if f != FAULTS[pump % 3])
    for fault in (0, *seen):
        for index in range(COUNTS[split]):
            yield f"fault-{fault}-{index}", recording(pump, fault, f"{split}/{index}")


def recording(pump: int, fault: int, which: str) -> np.ndarray:
    """(`ROWS`, columns); the fault begins at row `ONSET`."""
    rng = np.random.default_rng([pump, fault, *which.encode()])
    time = 10.0 * np.arange(ROWS)
    load = 1.0 + 0.25 * pump + 0.1 * np.sin(2 * np.pi * time / 900 + rng.uniform(0, 6))
    active = (np.arange(ROWS) >= ONSET) & (fault > 0)
    noise = rng.normal(size=(ROWS, 4)) * [0.12, 0.4, 0.5, 0.2]
    signals = np.stack([1.2 * load, 40 + 9 * load, 24 * load, 8 * load], axis=1) + noise
    signals[active] += EFFECTS[fault] * load[active, None]
    signals[active, 0] += abs(rng.normal(size=int(active.sum()))) * SHAKES[fault]
    return np.column_stack([time, signals, np.where(active, fault, 0)])
