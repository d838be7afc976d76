"""From rows to features: windows, scaled on this node's own normal windows."""

import numpy as np


def windows(
    signals: np.ndarray, labels: np.ndarray, rows: int, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation of each signal, (windows, 2 * signals) float32; label of the first and last row.

    A window has so many rows; so many are from one start to the next.
    """
    starts = range(0, len(labels) - rows + 1, step)
    cut = [signals[start : start + rows] for start in starts]
    features = [np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in cut]
    first = np.array(starts)
    return np.array(features, np.float32), labels[first], labels[first + rows - 1]


def scale(features: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Distance from this node's normal, in its own spreads, float32."""
    return ((features - normal.mean(axis=0)) / (normal.std(axis=0) + 1e-6)).astype(np.float32)
