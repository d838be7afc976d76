"""Exact sums: any order, any tree of fogs, any split into blocks gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.learn import sums
from reuna.learn.strategies import STRATEGIES
from reuna.learn.sums import Part, fold

Node = tuple[list[int], int]
NODES = st.lists(
    st.tuples(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=5, max_size=5), st.integers(1, 1000)),
    min_size=1,
    max_size=8,
)


def summed(arrays: list[np.ndarray], multipliers: list[int]) -> np.ndarray:
    """The fold over arrays in memory."""
    parts = [Part(i, a.itemsize, m) for i, (a, m) in enumerate(zip(arrays, multipliers, strict=True))]
    blocks = fold(lambda p, start, count: arrays[p.source][start : start + count], parts, len(arrays[0]))
    return np.concatenate([block.copy() for block in blocks])


def flat(nodes: list[Node]) -> np.ndarray:
    return summed([np.array(v, np.int32) for v, _ in nodes], [w for _, w in nodes])


@given(nodes=NODES, data=st.data())
def test_any_order_gives_the_same_bits(nodes: list[Node], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(nodes))
    assert flat(shuffled).tobytes() == flat(nodes).tobytes()


@given(nodes=NODES, data=st.data())
def test_any_tree_of_fogs_gives_the_same_bits(nodes: list[Node], data: st.DataObject) -> None:
    def tree(members: list[Node]) -> np.ndarray:
        if len(members) == 1 or data.draw(st.booleans()):
            return flat(members)
        cut = data.draw(st.integers(1, len(members) - 1))
        return summed([tree(members[:cut]), tree(members[cut:])], [1, 1])

    assert tree(nodes).tobytes() == flat(nodes).tobytes()


@given(nodes=NODES)
def test_the_sum_is_the_sum(nodes: list[Node]) -> None:
    expected = [sum(values[i] * weight for values, weight in nodes) for i in range(5)]
    assert flat(nodes).tolist() == expected


@given(
    nodes=st.lists(
        st.tuples(st.lists(st.integers(-(2**15) + 1, 2**15 - 1), min_size=5, max_size=5), st.integers(1, 99)),
        min_size=1,
        max_size=8,
    ),
    data=st.data(),
)
def test_sums_of_small_integers_are_narrow_and_the_same_whatever_type_they_are_read_as(
    nodes: list[Node], data: st.DataObject
) -> None:
    kinds = [data.draw(st.sampled_from([np.int16, np.int32, np.int64])) for _ in nodes]
    arrays = [np.array(values, kind) for (values, _), kind in zip(nodes, kinds, strict=True)]
    parts = [Part(i, 2, weight) for i, (_, weight) in enumerate(nodes)]
    (block,) = fold(lambda part, start, count: arrays[part.source][start : start + count], parts, 5)
    assert block.dtype == np.int32
    assert block.tolist() == flat(nodes).tolist()


@pytest.mark.parametrize(("weight", "kind"), [(2**16 - 1, np.int32), (2**16, np.int64)])
def test_a_sum_is_wide_where_its_parts_could_come_to_more_than_32_bits_hold(weight: int, kind: type) -> None:
    values = np.full(3, -(2**15) + 1, np.int16)
    (block,) = fold(lambda _part, start, count: values[start : start + count], [Part("a", 2, weight)], 3)
    assert block.dtype == kind
    assert block.tolist() == [weight * (-(2**15) + 1)] * 3


@pytest.mark.parametrize("size", [1, 7, 100])
def test_blocks_of_any_size_give_the_same_bits(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.integers(-(2**31) + 1, 2**31, 100, dtype=np.int32) for _ in range(3)]
    whole = summed(arrays, [5, 1, 9])
    monkeypatch.setattr(sums, "BLOCK_VALUES", size)
    assert summed(arrays, [5, 1, 9]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_applied_block_by_block_gives_the_same_bits(name: str) -> None:
    strategy, rng = STRATEGIES[name], np.random.default_rng(2)
    model, delta = rng.normal(size=50).astype(np.float32), rng.normal(size=50)
    state = {slot: rng.random(50).astype(np.float32) for slot in strategy.slots}
    after, whole = strategy.apply(state, model, delta, 3, {})
    for part in (slice(0, 20), slice(20, 50)):
        cut = {slot: values[part] for slot, values in state.items()}
        after_cut, moved = strategy.apply(cut, model[part], delta[part], 3, {})
        assert moved.tobytes() == whole[part].tobytes()
        assert all(after_cut[s].tobytes() == after[s][part].tobytes() for s in strategy.slots)
