"""Draws the curves that the documentation shows, from `docs/figures/curves.json`.

    python -m benchmarks.plots

Colours are of middle lightness and the ground is clear, so that they can be read on a light page and on a dark one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reuna.core.errors import ExtraMissing

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
INK = "#7d7d7d"
LINE, BESIDE = "#2f86d6", "#d9772b"
LABELS = {"nodes": "nodes", "params": "values in the model"}
#: key, title, what stands beside it
PANELS = (
    ("round_s", "a round, s"),
    ("coordinator_cpu_s", "coordinator: CPU a round, s"),
    ("coordinator_peak_mib", "coordinator: peak memory, MiB"),
    ("sent_bytes", "updates and sums sent a round, bytes"),
)


def series(points: Sequence[Mapping[str, Any]], by: str, key: str) -> tuple[list[float], list[float]]:
    """Sizes and values of the points that have the figure."""
    found = [(point[by], point[key]) for point in points if point.get(key)]
    return [size for size, _ in found], [value for _, value in found]


def draw(points: Sequence[Mapping[str, Any]], by: str, path: Path) -> None:
    """Four small plots over the same axis, both logarithmic. Raises `ExtraMissing`."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise ExtraMissing("plots need matplotlib", "Run `pip install 'reuna[plot]'`.") from None
    settings = {"svg.hashsalt": "reuna", "svg.fonttype": "none", "font.size": 9, "text.color": INK}
    settings |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with mpl.rc_context(settings):
        figure = Figure(figsize=(8, 5), layout="constrained")
        figure.patch.set_alpha(0)
        for axes, (key, title) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            axes.patch.set_alpha(0)
            axes.loglog(*series(points, by, key), color=LINE, marker="o", markersize=4, label="measured")
            if key == "coordinator_peak_mib" and by == "nodes":
                axes.set_yscale("linear")  # it hardly grows: from nothing on that is seen
                axes.set_ylim(bottom=0)
            if key == "round_s" and any("limit_s" in point for point in points):
                axes.loglog(*series(points, by, "limit_s"), color=BESIDE, linestyle="--", label="limit")
                axes.legend(frameon=False, labelcolor=INK)
            axes.minorticks_off()
            axes.set_title(title, fontsize=9, color=INK)
            axes.set_xlabel(LABELS[by])
            axes.grid(color=INK, alpha=0.25)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main() -> int:
    """Draw each curve that has points."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", type=Path, default=FIGURES)
    folder = parser.parse_args().figures
    found = json.loads((folder / "curves.json").read_text(encoding="utf-8"))
    for by in LABELS:
        if by in found:
            draw(found[by]["points"], by, folder / f"cost-by-{by}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
