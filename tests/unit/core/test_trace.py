"""A run as a trace: names that follow from the run, and times that somebody can have meant."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from reuna.core import trace
from reuna.core.records import Event, Grid, Plan, Setting
from reuna.core.trace import WORKED, released, span_of, trace_id, whole, whole_id, worked

ROUND = Event("cloud", "r-1/round", 1 << 32, 100.0, "round", "r-1", 1, {"seconds": 4.0, "took_part": 2})
PLAN = Plan(
    run="r-1", round=1, attempt=1, task="train", model="0" * 64, model_size=8, params=1, cohort=("e1",), quorum=1,
    deadline_s=1.0, grid=Grid(bits=32, exponent=-24), max_weight=1, capacity=1, seed=1, bundle="0" * 64, bundle_size=1,
)  # fmt: skip


def of_edge(node: str = "e1", fog: str = "f1", **changes: object) -> trace.Span:
    event = worked(node, "b", 0, msgspec.structs.replace(PLAN, **changes), 96.5, 99.0)
    span = span_of(event, "edge", fog)
    assert span is not None
    return span


def of_fog(node: str = "f1", **changes: object) -> trace.Span:
    span = span_of(worked(node, "b", 0, msgspec.structs.replace(PLAN, **changes), 96.0, 99.5), "fog", "")
    assert span is not None
    return span


def test_ids_are_as_they_were_published() -> None:
    """Whoever asks a collector for a run computes them."""
    assert trace_id("r-1") == "f4ce5c2ad16e99246fd0ec9cb4dfb2ae"
    assert whole_id("r-1") == "400bac9da455302c"
    span = span_of(ROUND, "cloud", "")
    assert span is not None
    assert span.id == "e53f05418b37e453"


def test_an_edge_is_in_its_fog_that_in_the_round_and_that_in_the_run() -> None:
    span = span_of(ROUND, "cloud", "")
    assert span is not None
    assert of_edge().parent == of_fog().id
    assert of_fog().parent == span.id
    assert span.parent == whole_id("r-1") == whole("r-1", "cloud", 1.0, 2.0, False, {}).id
    assert whole("r-1", "cloud", 1.0, 2.0, False, {}).parent == ""
    assert released("r-1", "cloud", "pumps", 3, "0" * 64, 7.0).parent == whole_id("r-1")
    assert {each.trace for each in (span, of_edge(), of_fog())} == {trace_id("r-1")}
    assert (of_edge().name, of_fog().name, span.name) == ("train e1", "combine f1", "round 1")
    assert (of_edge().began_s, of_edge().ended_s) == (96.5, 99.0)


@pytest.mark.parametrize("task", ["local", "evaluate"])
def test_what_is_done_once_is_beside_the_rounds(task: str) -> None:
    event = Event("cloud", f"r-1/{task}", 0, 100.0, task, "r-1", 0, {"seconds": 4.0, "nodes": 2})
    span = span_of(event, "cloud", "")
    assert span is not None
    assert (span.name, span.parent) == (task, whole_id("r-1"))
    assert of_fog(task=task, round=3).parent == span.id
    assert of_edge(task=task, round=3).parent == of_fog(task=task, round=3).id


@given(some.sets(some.tuples(*[some.sampled_from("abc")] * 2, some.integers(1, 3), some.integers(1, 3))))
def test_every_piece_of_work_has_an_id_of_its_own(found: set[tuple[str, str, int, int]]) -> None:
    edges = [
        of_edge(f"e-{edge}", f"f-{fog}", round=number, attempt=attempt)
        for edge, fog, number, attempt in found
    ]
    fogs = [of_fog(f"f-{fog}", round=number, attempt=attempt) for _, fog, number, attempt in found]
    assert len({each.id for each in edges}) == len(found)
    assert {each.parent for each in edges} == {each.id for each in fogs}
    assert not {each.id for each in edges} & {each.id for each in fogs}


def test_what_went_wrong_is_a_span_that_failed_and_its_reason_stays_in_the_log() -> None:
    fields: dict[str, Setting] = {"code": "R105", "reason": "column oil has 7.25"}
    span = span_of(Event("e1", "b", 3, 100.0, "sat out", "r-1", 2, fields), "edge", "f1")
    assert span is not None
    assert (span.failed, span.parent, span.attributes["reuna.code"]) == (True, whole_id("r-1"), "R105")
    assert "7.25" not in str(span)
    for decision, failed in (("fail", True), ("pass", False), ("open", False)):
        gates = span_of(
            Event("cloud", "r-1/gates", 0, 100.0, "gates", "r-1", 0, {"decision": decision}), "cloud", ""
        )
        assert gates is not None
        assert gates.failed is failed


@pytest.mark.parametrize(
    "change",
    [
        {"what": "watched"}, {"run": ""}, {"at": math.nan}, {"at": 1e12}, {"fields": {"seconds": "long"}},
        {"fields": {"seconds": math.inf}}, {"fields": {"seconds": -1.0}}, {"fields": {"seconds": 101.0}},
        {"what": WORKED}, {"what": WORKED, "fields": {"task": "check", "seconds": 1.0}},
    ],
)  # fmt: skip
def test_what_is_no_part_of_a_run_or_at_no_time_is_no_span(change: dict[str, object]) -> None:
    assert span_of(msgspec.structs.replace(ROUND, **change), "fog", "") is None
