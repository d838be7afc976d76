"""From a machine's reading to features: what it measured, and the physics that follows from it.

Scales are fixed and physical, so that a number means the same at every node: the plants differ in
their product, not in their sensors. Nothing is fitted here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.tables import Table

Floats = NDArray[np.float32]

AIR, PROCESS, SPEED, TORQUE, WEAR = COLUMNS = (
    "Air temperature [K]",
    "Process temperature [K]",
    "Rotational speed [rpm]",
    "Torque [Nm]",
    "Tool wear [min]",
)
LABEL = "Machine failure"
TYPE = "Type"
TYPES = ("L", "M", "H")
#: centre and spread of air K, process K, difference K, speed rpm, torque Nm, power W, wear min, strain min Nm
CENTRE = np.array([300.0, 310.0, 10.0, 1500.0, 40.0, 6300.0, 100.0, 4000.0])
SPREAD = np.array([2.0, 1.5, 1.0, 180.0, 10.0, 1000.0, 60.0, 2600.0])
FEATURES = len(CENTRE) + len(TYPES)


def features(table: Table) -> Floats:
    """(rows, FEATURES): five readings, three products of them, and the product's type, one-hot."""
    air, process, speed, torque, wear = table.filled(COLUMNS).astype(np.float64).T
    power = torque * speed * 2 * np.pi / 60
    columns = [air, process, process - air, speed, torque, power, wear, wear * torque]
    scaled = (np.stack(columns, axis=1) - CENTRE) / SPREAD
    kinds = table.columns[TYPE][:, None] == np.array(TYPES)
    return np.concatenate([scaled, kinds], axis=1).astype(np.float32)


def labels(table: Table) -> NDArray[np.int64]:
    """(rows,) 1 where the machine failed."""
    return table.columns[LABEL].astype(np.int64)
