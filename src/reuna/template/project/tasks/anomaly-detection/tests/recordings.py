"""Four pumps, each at its own load. ``fault`` is 0 (normal) or 1 (something is wrong: a bearing, the
inlet or cavitation); training and validation recordings are all normal, as they mostly are in a plant.
"""

from collections.abc import Iterator

import numpy as np

COLUMNS = ("second", "vibration_mm_s", "temperature_c", "flow_m3_h", "current_a", "fault")
DIGITS = (0, 3, 3, 3, 3, 0)  # behind the point, by column
PUMPS = 4
ROWS = 240  # of a recording, one every ten seconds
ONSET = 120  # row at which a recording's fault begins
NORMAL = {"train": 2, "validation": 2, "test": 2}  # normal recordings
EFFECTS = np.array([[0, 0, 0, 0], [0.5, 2.4, 0, 0.2], [0.1, 0.5, -4.0, 0.7], [0.7, 0.2, -1.4, 0.2]])


def recordings(pump: int, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows, (`ROWS`, columns), of each recording."""
    for index in range(NORMAL[split]):
        yield f"normal-{index}", recording(pump, 0, f"{split}/{index}")
    for fault in (1, 2, 3) if split == "test" else ():
        yield f"fault-{fault}", recording(pump, fault, split)


def recording(pump: int, fault: int, which: str) -> np.ndarray:
    """(`ROWS`, columns); the load rises and falls with the process, and the other signals follow it."""
    rng = np.random.default_rng([pump, fault, *which.encode()])
    time = 10.0 * np.arange(ROWS)
    load = 1.0 + 0.25 * pump + 0.15 * np.sin(2 * np.pi * time / 900 + rng.uniform(0, 6))
    active = (np.arange(ROWS) >= ONSET) & (fault > 0)
    noise = rng.normal(size=(ROWS, 4)) * [0.12, 0.4, 0.5, 0.2]
    signals = np.stack([1.2 * load, 40 + 9 * load, 24 * load, 8 * load], axis=1) + noise
    signals[active] += EFFECTS[fault] * load[active, None]
    return np.column_stack([time, signals, active])
