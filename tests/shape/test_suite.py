"""How the suite is run: what is long begins early, and what it starts is not compiled again."""

from __future__ import annotations

import importlib.util
from itertools import groupby, pairwise

import pytest

from tests.conftest import COMPILED, ROOT, long_ones_first


class Named:
    """As much of a test as its place in the order hangs on."""

    def __init__(self, module: str, number: int, *, long: bool) -> None:
        self.nodeid, self.long = f"{module}.py::test_{number}", long

    def get_closest_marker(self, name: str) -> object:
        return (name == "system" and self.long) or None


def made(long: int, short: int) -> list[Named]:
    """So many modules of either kind, of one to five tests."""
    return [
        Named(f"{'long' if number < long else 'short'}_{number}", each, long=number < long)
        for number in range(long + short)
        for each in range(1 + number % 5)
    ]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("long", "short"), [(0, 5), (5, 0), (7, 60), (30, 40), (1, 1), (0, 0)])
def test_each_worker_begins_with_its_share_of_the_long_tests_and_none_is_lost(
    long: int, short: int, workers: int
) -> None:
    given = made(long, short)
    ordered = long_ones_first(given, workers)
    assert sorted(each.nodeid for each in ordered) == sorted(each.nodeid for each in given)
    modules = [name for name, _ in groupby(each.nodeid.partition("::")[0] for each in ordered if each.long)]
    assert len(modules) == len(set(modules)), "those of a module come one after the other"
    if long >= workers and short >= 5 * long:
        ends = [len(ordered) * number // workers for number in range(workers + 1)]
        begun = [[each.long for each in ordered[start:end]] for start, end in pairwise(ends)]
        assert all(mine[0] for mine in begun)
        assert all(mine == sorted(mine, reverse=True) for mine in begun), "and goes on with the short ones"


@pytest.mark.parametrize("name", ["reuna.cli", "reuna.exchange.process", "drills.kill"])
def test_what_the_tests_start_was_compiled_before(name: str) -> None:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    assert found.origin.startswith(tuple(str(ROOT / folder) for folder in COMPILED))
    assert found.cached is not None
    assert (ROOT / found.cached).is_file()
