"""Four pumps, each recorded from sound to its end, once an hour; ``remaining_h`` are the hours left.

A pump ends in one of three ways (bearing, inlet, motor). Each pump has seen only two of them before
its test recordings.
"""

from collections.abc import Iterator

import numpy as np

COLUMNS = ("hour", "vibration_mm_s", "temperature_c", "flow_m3_h", "current_a", "remaining_h")
DIGITS = (0, 3, 3, 3, 3, 0)  # behind the point, by column
PUMPS = 4
ENDS = (0, 1, 2)
COUNTS = {"train": 2, "validation": 1, "test": 1}  # recordings of each end
LIFE = (180, 300)  # hours
WEAR = 40.0  # hours in which the signs of wear become e times as large
EFFECTS = np.array([[2.4, 9.0, 0.0, 0.8], [0.5, 2.0, -9.0, 1.6], [0.3, 16.0, -1.5, 3.2]])


def recordings(pump: int, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows, (hours, columns), of each recording."""
    for end in ENDS if split == "test" else tuple(e for e in ENDS if e != ENDS[pump % 3]):
        for index in range(COUNTS[split]):
            yield f"end-{end}-{index}", recording(pump, end, f"{split}/{index}")


def recording(pump: int, end: int, which: str) -> np.ndarray:
    """(hours, columns); what is worn shows in the signals, slowly at first and then ever faster."""
    rng = np.random.default_rng([pump, end, *which.encode()])
    hours = int(rng.integers(*LIFE))
    time = np.arange(hours)
    left = hours - 1.0 - time
    load = 1.0 + 0.25 * pump + 0.05 * np.sin(2 * np.pi * time / 24 + rng.uniform(0, 6))
    noise = rng.normal(size=(hours, 4)) * [0.12, 0.4, 0.5, 0.2]
    signals = np.stack([1.2 * load, 40 + 9 * load, 24 * load, 8 * load], axis=1) + noise
    signals += EFFECTS[end] * np.exp(-left / WEAR)[:, None] * load[:, None]
    return np.column_stack([time, signals, left])
