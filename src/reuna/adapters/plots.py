"""Figures for a notebook; matplotlib is the extra ``plot``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reuna.core.errors import ExtraMissing


def loss_figure(losses: Sequence[float]) -> Any:
    """Loss by round as a matplotlib figure. Raises `ExtraMissing`."""
    figure, axes = _axes()
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set(xlabel="round", ylabel="mean training loss")
    axes.grid(alpha=0.3)
    return figure


def sites_figure(ways: Mapping[str, Mapping[str, float]], metric: str) -> Any:
    """A metric at each node, a bar for each way of training; ways -> node -> value. Raises `ExtraMissing`."""
    figure, axes = _axes()
    nodes = sorted({node for values in ways.values() for node in values})
    width = 0.8 / max(1, len(ways))
    for place, (way, values) in enumerate(ways.items()):
        at = [number + (place - (len(ways) - 1) / 2) * width for number in range(len(nodes))]
        axes.bar(at, [values.get(node, 0.0) for node in nodes], width, label=way)
    axes.set_xticks(range(len(nodes)), nodes)
    axes.set(ylabel=metric)
    axes.legend()
    return figure


def _axes() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ExtraMissing("plots need matplotlib", "Run `pip install 'reuna[plot]'`.") from None
    figure = Figure(figsize=(7, 3), layout="constrained")
    return figure, figure.subplots()
