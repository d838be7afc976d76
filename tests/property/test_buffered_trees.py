"""Steps of updates of several rounds that came through fogs of fogs: the same bits as without any fog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.cohort import pace_of
from reuna.core.records import Contribution, Encoding, Grid, Member, Plan
from reuna.core.tree import edges_under, fogs_under
from reuna.exchange.bodies import write_body
from reuna.exchange.intake import Intake
from reuna.loop import train
from reuna.sim.storage import MemoryBlobs, MemorySpool

PARAMS, ROUND = 5, 9
EDGES = [f"edge-{number}" for number in range(6)]
PLAN = Plan(
    run="r", round=ROUND, attempt=1, task="train", model="", model_size=1, params=PARAMS, cohort=tuple(EDGES),
    quorum=1, deadline_s=9.0, grid=Grid(32, -24), max_weight=100, capacity=6, seed=1, bundle="", bundle_size=0,
    combine="singly", enough=2, buffer=2, bases=tuple("d" * 64 for _ in range(8)),
)  # fmt: skip
#: Of an update its weight and integers, by node and round.
Updates = Mapping[tuple[str, int], tuple[int, Sequence[int]]]
#: Fog -> edges under it and, first of all, the fog under it: cloud, firm, north, hall.
LEVELS = ("firm", "north", "hall")

UPDATES = st.dictionaries(
    st.tuples(st.sampled_from(EDGES), st.integers(1, ROUND)),
    st.tuples(st.integers(1, 100), st.lists(st.integers(1 - 2**31, 2**31 - 1), min_size=PARAMS, max_size=PARAMS)),
    min_size=1, max_size=10,
)  # fmt: skip
PLACES = st.fixed_dictionaries({edge: st.sampled_from(["", *LEVELS]) for edge in EDGES})


class Parent:
    """A fog or the cloud, that has rows in its spool."""

    def __init__(self, name: str, plan: Plan) -> None:
        self.name, self.plan, self.rows = name, plan, list[Contribution]()
        self.spool = MemorySpool()
        self.intake = Intake(name, MemoryBlobs(), self.spool)

    def take(self, row: Contribution, values: Any) -> None:
        row, body = write_body(row, train.packs(self.plan), values, self.spool.begin)
        self.spool.commit(row, body)
        self.rows.append(row)

    def take_update(self, node: str, base: int, weight: int, values: Sequence[int]) -> None:
        plan = msgspec.structs.replace(self.plan, round=base)
        draft = train.answer(plan, "d" * 64, Member(node, weight, digest="d" * 64), "0" * 64, 4)
        self.take(draft, lambda: iter([np.array(values, np.int32)]))

    def hand_over(self, above: Parent) -> None:
        """What it holds, as the body of one row that goes up."""
        if self.rows:
            row = train.buffered_row(self.plan, "d" * 64, self.name, self.rows, {})
            draft = train.with_updates(row, self.plan, self.rows, "0" * 64)
            above.take(draft, lambda: self.intake.values(self.rows))

    def step(self) -> tuple[list[float], int]:
        """Its sum, and what that is divided by."""
        members = [member for row in self.rows for member in train.given_by(row)]
        (total,) = self.intake.step(self.rows, ROUND, PARAMS)
        return total.tolist(), train.weighted(members, ROUND)[1]


@given(UPDATES, PLACES, st.booleans())
def test_the_same_updates_make_the_same_step_wherever_their_nodes_stand(
    updates: Updates, places: Mapping[str, str], packed: bool
) -> None:
    plan = msgspec.structs.replace(PLAN, encoding=Encoding(packed=packed))
    flat, tree = Parent("cloud", plan), {name: Parent(name, plan) for name in ("", *LEVELS)}
    for (node, base), (weight, values) in updates.items():
        flat.take_update(node, base, weight, values)
        tree[places[node]].take_update(node, base, weight, values)
    for fog, above in (("hall", "north"), ("north", "firm"), ("firm", "")):
        tree[fog].hand_over(tree[above])
    assert tree[""].step() == flat.step()


# --- how many updates a fog goes on with -------------------------------------------------------------

TREE = {
    "firm": ("a", "north", "yard"),
    "north": ("b", "c", "hall"),
    "hall": ("d", "e"),
    "yard": ("f", "g", "h"),
}
PACE = st.dictionaries(st.sampled_from(sorted(TREE)), st.integers(0, 40))


@given(PACE, st.integers(1, 8))
def test_what_fogs_go_on_with_is_enough_for_those_above_and_no_more_than_they_have(
    pace: dict[str, int], whole: int
) -> None:
    cohort = edges_under(TREE, "firm")
    plan = msgspec.structs.replace(PLAN, cohort=cohort, tree=TREE, enough=whole, buffer=whole, pace=pace)
    found = {fog: train.enough_at(plan, fog) for fog in TREE}
    assert found["firm"] == whole
    assert all(1 <= found[fog] <= len(edges_under(TREE, fog)) for fog in TREE)
    if not any(pace.values()):
        for fog in ("firm", "north"):
            own = [child for child in TREE[fog] if child not in TREE]
            below = [found[child] for child in TREE[fog] if child in TREE]
            assert sum(below) + len(own) >= found[fog]


def test_a_fog_that_gave_little_lately_goes_on_with_little() -> None:
    def enough(**pace: int) -> dict[str, int]:
        plan = msgspec.structs.replace(
            PLAN, cohort=edges_under(TREE, "firm"), tree=TREE, enough=6, buffer=6, pace=pace
        )
        return {fog: train.enough_at(plan, fog) for fog in ("north", "hall", "yard")}

    assert enough() == {"north": 3, "hall": 2, "yard": 3}, "by how many stand there, before anything came"
    assert enough(firm=9, north=1, hall=1, yard=9) == {"north": 1, "hall": 1, "yard": 3}
    assert enough(firm=1, hall=18, yard=1) == {"north": 4, "hall": 2, "yard": 1}, (
        "what came through a fog counts"
    )


def test_the_pace_of_a_fog_is_that_of_all_fogs_at_and_under_it() -> None:
    assert fogs_under(TREE, "north") == ("hall", "north")
    assert fogs_under(TREE, "a") == ()
    assert fogs_under({"x": ("y",), "y": ("x",)}, "x") == ("x", "y"), "one that leads back to itself ends too"
    assert pace_of(TREE, "north", {"north": 2, "hall": 5, "yard": 9}) == 7
