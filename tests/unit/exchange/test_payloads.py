"""What the site's policy is told about a payload."""

from __future__ import annotations

from reuna.core.records import Grid, Plan
from reuna.exchange.payloads import made_for
from reuna.trust.requests import Hidden, without_roster


def plan(*cohort: str) -> Plan:
    return Plan("r-1", 1, 1, "train", "a" * 64, 8, 2, cohort, 1, 9.0, Grid(16, -9), 9, 4, 7, "b" * 64, 5)


def test_a_name_that_stands_in_a_cohort_more_than_once_counts_once() -> None:
    assert made_for(plan("edge-1", "edge-2"), without_roster, 3).cohort == Hidden(2)
    assert made_for(plan("edge-1", "edge-1", "edge-1"), without_roster, 3).cohort == Hidden(1)
