"""Figures for a notebook; matplotlib is the extra ``plot``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reuna.core.errors import ExtraMissing


def loss_figure(losses: Sequence[float]) -> Any:
    """Loss by round as a matplotlib figure. Raises `ExtraMissing`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ExtraMissing("plots need matplotlib", "Run `pip install 'reuna[plot]'`.") from None
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set(xlabel="round", ylabel="mean training loss")
    axes.grid(alpha=0.3)
    return figure
