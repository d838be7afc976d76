"""Fogs under fogs in whole rounds: whatever tree stands over the same edges, every bit is the same."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reuna
from reuna.api import play, spread_over
from reuna.core.errors import PlanError
from reuna.core.records import UNHEARD, Encoding, Grid
from reuna.loop.plan import check_spec
from reuna.sim.clock import SimClock, run_virtual
from reuna.sim.faults import Walker, rehearse, undisturbed
from reuna.sim.fleet import FairWeather, SimEdge, SimFleet, make_spec
from reuna.sim.journal import JournalStore, SimJournal
from reuna.sim.lives import adopting_tasks

NODES = {f"node-{i}": 1 + i for i in range(7)}
FLAT: dict[str, Any] = {"fog": list(NODES)}
DEEP: dict[str, Any] = {
    "firm": ["node-0", {"works": ["node-6", {"hall": ["node-2", "node-5"]}], "yard": ["node-1"]}],
    "lab": ["node-3", "node-4"],
}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "packed": {"grid": Grid(16, -10), "encoding": Encoding(feedback=True, follow=True)},
    "largest": {"grid": Grid(4, -2), "encoding": Encoding(feedback=True, keep=0.3)},
}
SINGLY = ("median", "krum")


@st.composite
def trees(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Any tree of fogs over the nodes: each node goes under one of some fogs, each fog under another or none."""
    count = draw(st.integers(1, 6))
    over = [draw(st.integers(-1, fog - 1)) for fog in range(count)]
    lists: list[list[Any]] = [[] for _ in range(count)]
    for node in NODES:
        lists[draw(st.integers(0, count - 1))].append(node)
    for fog in reversed(range(count)):
        if over[fog] >= 0 and lists[fog]:
            lists[over[fog]].append({f"f{fog}": lists[fog]})
    return {f"f{fog}": lists[fog] for fog in range(count) if over[fog] < 0 and lists[fog]}


def trained(tree: Any, strategy: str = "fedavg", processes: int = 1, **way: Any) -> reuna.Result:
    given = {"byzantine": 1} if strategy == "krum" else {}
    return reuna.simulate(
        Walker(), NODES, 3, strategy=strategy, settings=given, fogs=tree, processes=processes, **way
    )


@cache
def flat(strategy: str) -> tuple[str, Any]:
    found = trained(FLAT, strategy)
    return found.digest, found.scores


@settings(max_examples=15, deadline=None)
@given(trees(), st.sampled_from(["fedavg", *SINGLY]))
def test_any_tree_of_fogs_over_the_same_edges_gives_the_same_bits(
    tree: dict[str, list[Any]], how: str
) -> None:
    found = trained(tree, how)
    assert (found.digest, found.scores) == flat(how)
    assert all(each["took_part"] == len(NODES) for each in found.rounds)


@pytest.mark.parametrize(
    ("strategy", "way"), [("fedavg", "packed"), ("fedavg", "largest"), ("median", "packed")]
)
def test_encoded_updates_end_in_the_same_bits_under_any_tree(strategy: str, way: str) -> None:
    found = [encoded(tree, strategy, **WAYS[way]) for tree in (FLAT, DEEP)]
    assert found[0].digest == found[1].digest


def encoded(tree: Any, strategy: str, **way: Any) -> reuna.Result:
    spread, above = spread_over(Walker(), NODES, tree, None)
    spec, model, bundle = make_spec(spread, Walker(), 6, above, strategy=strategy, **way)
    check_spec(spec)
    return play(spread, spec, model, bundle)


@pytest.mark.parametrize("strategy", ["fedavg", "median"])
def test_processes_change_no_bit_under_a_tree(strategy: str) -> None:
    assert trained(DEEP, strategy, processes=2).digest == trained(DEEP, strategy).digest


ABOVE = {"fog-1": "fog-0", "fog-2": "fog-1"}


@pytest.mark.parametrize("strategy", ["fedavgm", "median"])
@pytest.mark.parametrize("seed", range(8))
def test_kills_and_cuts_of_fogs_between_change_no_bit(strategy: str, seed: int) -> None:
    given: dict[str, Any] = {"fogs": 3, "edges": 2, "strategy": strategy}
    found = rehearse(seed, above=ABOVE, **given)
    assert found.outcome == undisturbed(**given), (
        f"reproduce with reuna.sim.faults.rehearse({seed}, above={ABOVE})"
    )


class Timed:
    """A tree of three levels in which some edges are silent: who closed with whom, and when."""

    def __init__(self, silent: tuple[str, ...], deadline_s: float) -> None:
        edges, above = spread_over(Walker(), NODES, DEEP, None)
        spread = {
            fog: {n: SimEdge(e.learner, e.data, frozenset() if n in silent else None) for n, e in of.items()}
            for fog, of in edges.items()
        }
        spec, model, bundle = make_spec(spread, Walker(), 1, above, quorum=0.1, deadline_s=deadline_s)
        self.fleet = SimFleet(
            spread, SimClock(), lambda: SimJournal(JournalStore()), FairWeather(), above=above
        )

        async def live() -> None:
            await self.fleet.run(spec, model, bundle)

        run_virtual(live(), adopting_tasks)
        self.closed = self.fleet.timeline["round", 1]


def test_an_edge_that_is_silent_far_below_costs_its_own_part_alone() -> None:
    found = Timed(("node-5",), 100.0).closed
    assert found["took_part"] == len(NODES) - 1
    assert found["absent"] == f"node-5: {UNHEARD}"
    assert 100.0 <= float(found["seconds"]) < 101.0, "its fog closed, and nobody above had to wait longer"


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"firm": ["node-0"]}, "node-1 stands in the tree of fogs alone, or among the nodes alone"),
        ({"firm": [*NODES, "stranger"]}, "stranger stands in the tree of fogs alone"),
        ({"firm": [*NODES, {"north": ["node-0"]}]}, "node-0 stands in the tree twice"),
        ({"firm": [*NODES, {"north": []}]}, "fog north has no edge under it"),
    ],
)
def test_a_tree_that_does_not_fit_the_nodes_is_refused(tree: Any, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        trained(tree)
