"""Counts of how data keep the contract leave as a statistic, as the site's policy says, and nothing else does so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reuna.core.bins import Counted
from reuna.core.bins import as_fields as bin_fields
from reuna.core.contract import Line
from reuna.core.contract_report import as_fields
from reuna.core.labelled import Labelled, as_event, read_labelled
from reuna.core.operating import Operating, event_of, read_event
from reuna.core.records import Event
from reuna.core.watched import WHAT as WATCHED
from reuna.core.watched import Watched, read_fields
from reuna.core.watched import as_fields as watched_fields
from reuna.sim.clock import run_virtual
from reuna.trust.policy import FlowRule
from reuna.wire import decode
from tests.unit.exchange.test_waiting import EDGE, Plant

LINES = [
    Line("range", "t", 90, 10),
    Line("range", "u", 100, 0),
    Line("type", "t", 97, 3),
    Line("type", "u", 100, 0),
]


def report(**changes: Any) -> Event:
    fields = {**as_fields(3, LINES), **changes.pop("more", {})}
    return msgspec.structs.replace(Event(EDGE, "boot", 1, 0.0, "contract", "r-1", 1, fields), **changes)


def emitted(event: Event, *rules: FlowRule) -> tuple[list[Event], Plant]:
    """What of an event reached the fog under a policy with these rules for statistics, and the plant."""
    heard: list[Event] = []

    async def live() -> Plant:
        plant = Plant("")
        plant.now_says(flows=(*plant.policy.flows, *rules))

        async def hear(_subject: str, data: bytes) -> None:
            heard.append(decode(Event, data))

        await plant.broker.connect("fog-0").follow("event.>", "up", hear)
        await plant.egress.emit(event)
        await plant.sleep(1)
        return plant

    return heard, run_virtual(live())


STATISTIC = FlowRule("statistic", ("fog",), "clear")


def flows(plant: Plant, kind: str = "intent") -> list[str]:
    return [entry.flow for entry in plant.ledger.of(kind)]


def test_counts_leave_as_a_statistic_and_the_ledger_says_so() -> None:
    heard, plant = emitted(report(), STATISTIC)
    assert heard == [report()]
    assert flows(plant) == ["statistic"]


def test_without_a_rule_for_statistics_counts_stay_though_logs_may_leave() -> None:
    heard, plant = emitted(report())
    assert heard == []
    assert (flows(plant), flows(plant, "refused")) == ([], ["statistic"])


def test_counts_of_fewer_rows_than_the_policy_asks_for_stay_with_what_would_tell_them() -> None:
    (event,), plant = emitted(report(), msgspec.structs.replace(STATISTIC, min_cell=10))
    assert event.fields == {
        "version": 3, "passed/range": 190, "failed/range": 10, "passed/range/t": 90, "failed/range/t": 10,
        "withheld": 2,
    }  # fmt: skip
    assert flows(plant) == ["statistic"]


def test_a_report_of_which_every_count_is_small_leaves_without_one() -> None:
    (event,), _ = emitted(report(), msgspec.structs.replace(STATISTIC, min_cell=1000))
    assert event.fields == {"version": 3, "withheld": 4}


@pytest.mark.parametrize(
    "event",
    [
        report(more={"reason": "row 7: 0.25"}),
        report(more={"passed/range/t": "0.25"}),
        report(more={"passed/range/t": 0.25}),
        report(more={"passed/range/t": -1}),
        report(more={"passed/range/t": True}),
        report(more={"passed/rows/t": 1}),
        report(more={"failed/range/" + 201 * "x": 1}),
        report(what="sat out"),
    ],
    ids=[
        "text",
        "text as count",
        "fraction",
        "negative",
        "truth",
        "no rule of ours",
        "a long name",
        "another event",
    ],
)
def test_an_event_that_says_anything_but_counts_is_of_the_kind_that_may_quote_data(event: Event) -> None:
    _, plant = emitted(event, STATISTIC)
    assert flows(plant) == ["log"]


def test_what_a_policy_asks_of_the_rows_behind_counts_is_judged_by_the_egress_and_not_by_who_reports() -> (
    None
):
    """The smallest count is read from the counts themselves."""

    async def live() -> None:
        plant = Plant("")
        rule = msgspec.structs.replace(STATISTIC, min_cell=10)
        plant.now_says(flows=(*plant.policy.flows, rule))
        plant.egress._without_small_counts = lambda event: event  # type: ignore[method-assign]
        assert await plant.egress.emit(report()) is False
        (refusal,) = plant.ledger.of("refused")
        assert refusal.reason.startswith("cell: 3 rows are behind its smallest count, at least 10")

    run_virtual(live())


BINS = [Counted("t", (3, 12, *[0] * 29, 200), 40), Counted("u", (50, *[0] * 31))]


def spread(**more: Any) -> Event:
    return report(what="bins", fields={**bin_fields(3, BINS), **more})


def test_reference_bins_leave_as_a_statistic_without_what_the_policy_keeps() -> None:
    (event,), plant = emitted(spread(), msgspec.structs.replace(STATISTIC, min_cell=10))
    assert event.fields == {
        "version": 3, "bin/31/t": 200, "bin/outside/t": 40, "bin/0/u": 50, "withheld": 2,
    }  # fmt: skip
    assert flows(plant) == ["statistic"]
    assert emitted(spread())[0] == [], "a rule for logs is none for these"


def test_an_event_of_bins_that_says_more_is_judged_as_a_log() -> None:
    heard, plant = emitted(spread(why="t was 77.5"), STATISTIC)
    assert "statistic" not in flows(plant) and len(heard) == 1


def window(**changes: Any) -> Event:
    fields = {"fingerprint": "f1" * 32, "files": 3, "bytes": 4096, "rows": 900, **changes}
    told = {name: value for name, value in fields.items() if value is not None}
    return Event(EDGE, "boot", 2, 0.0, "data", "r-1", 1, told)


def test_which_data_a_run_is_of_leaves_as_a_statistic_over_its_rows() -> None:
    heard, plant = emitted(window(), msgspec.structs.replace(STATISTIC, min_cell=900, min_samples=900))
    assert heard == [window()]
    assert flows(plant) == ["statistic"]


@pytest.mark.parametrize("rule", [None, msgspec.structs.replace(STATISTIC, min_cell=901)])
def test_a_policy_keeps_the_fingerprint_at_the_site(rule: FlowRule | None) -> None:
    heard, plant = emitted(window(), *([rule] if rule else []))
    assert heard == []
    assert (flows(plant), flows(plant, "refused")) == ([], ["statistic"])


def test_a_fingerprint_of_nobody_knows_how_many_rows_stays_where_a_policy_asks_for_some() -> None:
    assert emitted(window(rows=None), STATISTIC)[0] == [window(rows=None)]
    assert emitted(window(rows=None), msgspec.structs.replace(STATISTIC, min_cell=1))[0] == []


@pytest.mark.parametrize(
    "event",
    [
        window(fingerprint="row 7: 0.25"),
        window(fingerprint="F1" * 32),
        window(fingerprint=None),
        window(fingerprint=7),
        window(rows=0.25),
        window(files=True),
        window(bytes=-1),
        window(mean=1),
        msgspec.structs.replace(window(), what="sat out"),
    ],
)
def test_what_says_more_of_the_data_is_of_the_kind_that_may_quote_them(event: Event) -> None:
    assert flows(emitted(event, STATISTIC)[1]) == ["log"]


RUNS = [Operating("pumps", 4, "a" * 64, "trial", windows=40, safe=3, compared=12, agreed=12)]


def told(*rules: FlowRule) -> tuple[Operating, Plant]:
    (event,), plant = emitted(event_of(EDGE, "boot", 1, 0.0, RUNS), *rules)
    return read_event(event)[0], plant


def test_what_a_node_runs_leaves_as_a_log_and_small_counts_in_it_stay_as_in_statistics() -> None:
    seen, plant = told(msgspec.structs.replace(STATISTIC, min_cell=10))
    assert flows(plant) == ["log"]
    assert (seen.version, seen.phase, seen.windows, seen.safe, seen.compared) == (4, "trial", 40, None, 12)
    assert told(STATISTIC)[0] == RUNS[0]


def test_where_no_statistic_may_leave_no_count_of_what_runs_does() -> None:
    seen, _ = told()
    assert (seen.version, seen.phase) == (4, "trial")
    assert {seen.windows, seen.safe, seen.compared, seen.agreed} == {None}


def new_rows(rows: int) -> Event:
    return as_event(EDGE, "boot", 1, 0.0, Labelled("r-1", rows))


@pytest.mark.parametrize(("rows", "said"), [(9, Labelled("r-1", withheld=1)), (10, None), (0, None)])
def test_how_many_labelled_rows_are_new_leaves_as_a_statistic_unless_they_are_few(
    rows: int, said: Labelled | None
) -> None:
    (event,), plant = emitted(new_rows(rows), msgspec.structs.replace(STATISTIC, min_cell=10, min_samples=10))
    assert flows(plant) == ["statistic"]
    assert read_labelled(event) == (said or Labelled("r-1", rows))


def test_where_no_statistic_may_leave_nobody_learns_of_labelled_rows() -> None:
    heard, plant = emitted(new_rows(500))
    assert (heard, flows(plant, "refused")) == ([], ["statistic"])


def test_what_came_of_few_labels_stays_where_a_policy_asks_for_more() -> None:
    said = Watched(rows=600, project="pumps", labels=40, wrong=3, error=0.1, errors_level=2.0)
    event = Event(EDGE, "boot", 1, 0.0, WATCHED, fields=watched_fields(said))
    (told,), plant = emitted(event, msgspec.structs.replace(STATISTIC, min_cell=10))
    assert flows(plant) == ["statistic"]
    assert read_fields(told.fields) == Watched(rows=600, project="pumps", labels_withheld=1)
