"""Sums of packed bodies are the sums of their integers: any order, any tree, any mixture of plain and packed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.records import Contribution, Encoding, Grid, Member, Plan
from reuna.exchange.bodies import open_body, write_body
from reuna.learn.grid import Ints
from reuna.learn.rounding import rounded
from reuna.learn.sums import Part, fold
from reuna.loop import train
from reuna.sim.storage import MemoryBlobs

PARAMS = 40


def plan(bits: int, packs: bool) -> Plan:
    return Plan(
        "r", 1, 1, "train", "ab" * 32, 1, PARAMS, tuple(f"e{n}" for n in range(9)), 1, 1.0, Grid(bits, -3),
        1000, 9, 1, "cd" * 32, 1, encoding=Encoding(packed=packs),
    )  # fmt: skip


class Tree:
    """Nodes whose answers lie in one place; fogs sum up what is below them."""

    def __init__(self, asked: Plan) -> None:
        self.plan, self.blobs = asked, MemoryBlobs()

    def body(self, draft: Contribution, values: Ints) -> Contribution:
        row, blob = write_body(
            draft, train.packs(self.plan), lambda: iter([values]), lambda _: self.blobs.new(0)
        )
        assert blob.size == row.size <= draft.size
        assert row.packed == (row.size < draft.size)
        train._check_shape(self.plan, row)
        return row

    def edge(self, name: str, weight: int, values: np.ndarray) -> Contribution:
        width = train.update_width(self.plan.grid)
        return self.body(train.answer(self.plan, "", Member(name, weight), "0" * 64, width), values)

    def sum(self, rows: list[Contribution]) -> np.ndarray:
        def read(part: Part[Contribution], start: int, count: int) -> Ints:
            blob = self.blobs.get(part.source.digest)
            assert blob is not None
            return open_body(part.source, blob)(start, count)

        return np.concatenate([block.copy() for block in fold(read, train.parts(rows), PARAMS)])

    def fog(self, name: str, rows: list[Contribution]) -> Contribution:
        cohort = [member.node for row in rows for member in row.members]
        draft = train.with_sum(
            train.closing_row(self.plan, "", name, cohort, rows), self.plan, rows, "0" * 64
        )
        return self.body(draft, self.sum(rows))


@given(
    bits=st.sampled_from([4, 8, 16, 32]),
    nodes=st.lists(
        st.tuples(st.integers(1, 1000), st.floats(0, 1), st.integers(0, 999)), min_size=1, max_size=8
    ),
    packs=st.booleans(),
    data=st.data(),
)
def test_the_sum_of_what_was_decoded_is_the_sum_decoded(
    bits: int, nodes: list[tuple[int, float, int]], packs: bool, data: st.DataObject
) -> None:
    tree = Tree(plan(bits, packs))
    expected, edges = np.zeros(PARAMS, np.int64), []
    for number, (weight, rare, seed) in enumerate(nodes):
        rng = np.random.default_rng(seed)
        wanted = rng.integers(-(2**31), 2**31, PARAMS) * (rng.random(PARAMS) < rare)
        sent, _ = rounded(wanted, tree.plan.grid)
        edges.append(tree.edge(f"e{number}", weight, sent))
        expected += weight * sent

    def combined(rows: list[Contribution], name: str) -> Contribution:
        cut = data.draw(st.integers(0, len(rows) - 1))
        if cut == 0:
            return tree.fog(name, rows)
        return tree.fog(name, [combined(rows[:cut], name + "l"), combined(rows[cut:], name + "r")])

    shuffled = data.draw(st.permutations(edges))
    assert (tree.sum([combined(shuffled, "f")]) == expected).all()
