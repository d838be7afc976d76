"""The page at the end of the demo's story."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reuna.demo.story import Sample, Told, mean
from reuna.demo.story_page import render

EDGES = ("plant-1", "plant-2")
RESULT: dict[str, Any] = {
    "run": "r-1",
    "rounds": 2,
    "strategy": "fedavg",
    "metric": "all",
    "sites": [{"site": name, "federated": {"all": 0.9}} for name in EDGES],
    "bytes_by_kind": {"metric": 1000, "model_update": 5000},
    "timeline": [
        {"what": "round", "round": n, "at": n, "fields": {"round": n, "loss": 1.0 / n, "seconds": 1}}
        for n in (1, 2)
    ],
}


@pytest.fixture
def told() -> Told:
    def sample(at: float, version: int, level: float) -> Sample:
        return Sample(at, dict.fromkeys(EDGES, version), dict.fromkeys(EDGES, level))

    samples = [sample(100.0, 0, 0.0), sample(110.0, 1, 0.1), sample(130.0, 1, 7.0), sample(150.0, 2, 0.0)]
    moments = {"plants run": 100.0, "release 1": 110.0, "drift": 120.0, "alarm": 130.0, "champion": 150.0}
    return Told(
        run="r-1",
        retrained="r-2",
        began=90.0,
        moments=moments,
        detected_s=10.0,
        recovered_s=30.0,
        alarm="the process moved at 2 machines (plant-1, plant-2): <flow>",
        champion=2,
        edges=dict.fromkeys(EDGES, 2),
        before={"plant-1": 1.0, "plant-2": 0.9},
        drifted={"plant-1": 0.1, "plant-2": None},
        after={"plant-1": 1.0, "plant-2": 1.0},
        p50_ms=5.0,
        samples=samples,
        windows={name: [(104.0, True), (125.0, False), (149.0, True)] for name in EDGES},
        commands=["reuna build make a & b"],
    )


def test_the_page_says_what_happened_and_asks_for_nothing_outside(told: Told) -> None:
    page = render(told, RESULT, {**RESULT, "run": "r-2"})
    for said in ("95 %", "10 %", "100 %", "10 s", "30 s", "2 of 2", "release 2", "../r-2/report.html"):
        assert said in page, said
    assert "a &amp; b" in page
    assert "&lt;flow&gt;" in page
    for outside in ("http://", "https://", "<script", "<img", "@import"):
        assert outside not in page
    assert page.count("<svg") == page.count("</svg>") == 6


def test_every_span_of_a_lane_has_the_colour_of_its_release(told: Told) -> None:
    page = render(told, RESULT, RESULT)
    for name in EDGES:
        for said in ("no release yet", "release 1", "release 2"):
            assert f"<title>{name}: {said}</title>" in page


def test_an_edge_that_was_never_heard_of_leaves_its_lane_empty(told: Told) -> None:
    silent = msgspec.structs.replace(told, samples=[], windows={})
    assert "plant-1" in render(silent, RESULT, RESULT)


def test_the_mean_is_over_plants_that_have_one() -> None:
    assert mean({"a": 0.5, "b": None, "c": 1.0}) == 0.75
    assert mean({"a": None}) is None
