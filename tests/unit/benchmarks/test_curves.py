"""Cost curves: points, what is left out and why, and their plots."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from benchmarks import curves, plots


def test_a_simulated_point_tells_time_coordinator_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "SIM_PARAMS", 100)
    told = curves.simulated(4)
    assert (told["mode"], told["fogs"]) == ("simulated", 2)
    assert told["sent_bytes"] == 4 * 400 + 2 * 500, "32 bits a value of an edge, 40 of the sum of two"
    assert told["round_s"] > 0
    assert told["coordinator_cpu_s"] is not None
    assert curves.simulated(1)["coordinator_cpu_s"] is None, "in one process nobody's share is known"


def test_a_model_too_large_for_the_memory_is_left_out_and_says_so() -> None:
    assert curves.too_large("params", 100_000_000, 4000.0) == "needs 11 GiB, 4 are free"
    assert curves.too_large("params", 10_000, 4000.0) is None
    assert curves.too_large("nodes", 5000, 1.0) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--curve", "weather"], "invalid choice: 'weather'"),
        (["--most", "0"], "argument --most: 0 is not at least 1"),
        (["--point", "nodes", "0"], "give 'nodes' or 'params', and a whole number from 1 on"),
        (["--point", "speed", "10"], "give 'nodes' or 'params', and a whole number from 1 on"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        curves.arguments(given)
    assert said in capsys.readouterr().err


POINTS: list[dict[str, Any]] = [
    {"nodes": 1, "failed": None, "round_s": 0.01, "coordinator_cpu_s": None, "coordinator_peak_mib": 50, "sent_bytes": 40},
    {"nodes": 10, "failed": None, "round_s": 0.02, "coordinator_cpu_s": 0.1, "coordinator_peak_mib": 60, "sent_bytes": 400},
    {"nodes": 100, "failed": "no answer within 300 s"},
]  # fmt: skip


def test_points_without_a_figure_are_not_drawn() -> None:
    assert plots.series(POINTS, "nodes", "coordinator_cpu_s") == ([10], [0.1])
    assert plots.series(POINTS, "nodes", "round_s") == ([1, 10], [0.01, 0.02])


def test_a_plot_has_the_same_bytes_again_and_no_ground(tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    plots.draw(POINTS, "nodes", first)
    plots.draw(POINTS, "nodes", second)
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text(encoding="utf-8")
    assert ET.fromstring(text).tag.endswith("svg")
    assert "fill: #ffffff" not in text, "white would dazzle on a dark page"
    assert str(Path.home()) not in text
