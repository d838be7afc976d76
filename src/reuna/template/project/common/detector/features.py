"""From rows to features: windows of twelve rows, scaled on this node's own normal windows."""

import numpy as np

WINDOW = 12  # rows
STEP = 6


def windows(signals: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and deviation of each signal, (windows, 2 * signals) float32; label of the first and last row."""
    starts = range(0, len(labels) - WINDOW + 1, STEP)
    cut = [signals[start : start + WINDOW] for start in starts]
    features = [np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in cut]
    first = np.array(starts)
    return np.array(features, np.float32), labels[first], labels[first + WINDOW - 1]


def scale(features: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Distance from this node's normal, in its own spreads, float32."""
    return ((features - normal.mean(axis=0)) / (normal.std(axis=0) + 1e-6)).astype(np.float32)
