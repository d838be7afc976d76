"""A parent ends up with the edges that its fogs have, whatever is lost, repeated, late, or started anew meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.roster import Roster, Stand, changed, digest_of
from reuna.exchange import roster
from reuna.exchange.roster import Known, Telling
from reuna.wire import decode, encode

NAMES = tuple(f"e{number}" for number in range(8))
SETS = st.frozensets(st.sampled_from(NAMES))


@pytest.fixture(autouse=True)
def _small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roster, "MOST", 3)
        yield


@dataclass
class World:
    """A fog, its parent, and what is on its way between them."""

    edges: frozenset[str] = frozenset()
    lives: int = 1
    fog: Telling = field(default_factory=lambda: Telling("life-1"))
    parent: Known = field(default_factory=Known)
    kept: frozenset[str] = frozenset()  #: what the parent wrote down last
    under_way: list[bytes] = field(default_factory=list)
    asked: int = 0

    def look(self) -> None:
        self.under_way += map(encode, self.fog.told(self.edges))

    def hello(self) -> None:
        """Through, and a question that follows it too."""
        self.look()
        if not self.parent.stand(self.fog.stand).agrees:
            self.asked += 1
            self.under_way += map(encode, self.fog.whole())

    def deliver(self, place: int, repeat: bool) -> None:
        if self.under_way:
            place %= len(self.under_way)
            self.parent.hear(decode(Roster, self.under_way[place]))
            if not repeat:
                del self.under_way[place]

    def carry_out(self, step: tuple[str, object]) -> None:
        what, how = step
        if what == "edges":
            self.edges = how  # type: ignore[assignment]
            self.look()
        elif what == "hello":
            self.hello()
        elif what in ("deliver", "repeat"):
            self.deliver(how, what == "repeat")  # type: ignore[arg-type]
        elif what == "lose" and self.under_way:
            del self.under_way[how % len(self.under_way)]  # type: ignore[operator]
        elif what == "fog anew":
            self.lives += 1
            self.fog = Telling(f"life-{self.lives}")
        elif what == "keep":
            self.kept = self.parent.names
        elif what == "parent anew":
            self.parent = Known(self.kept)

    def calm(self) -> None:
        """What is under way arrives, late; then words come through in their order."""
        while self.under_way:
            self.deliver(0, repeat=False)
        for _ in range(2):
            self.hello()
            while self.under_way:
                self.deliver(0, repeat=False)


NUMBERS = st.integers(0, 30)
STEPS = st.one_of(
    st.tuples(st.just("edges"), SETS),
    st.tuples(st.sampled_from(["deliver", "repeat", "lose"]), NUMBERS),
    st.tuples(st.sampled_from(["hello", "fog anew", "keep", "parent anew"]), st.none()),
)


@given(st.lists(STEPS, max_size=40))
def test_the_parent_ends_with_what_the_fog_has(steps: list[tuple[str, object]]) -> None:
    world = World()
    for step in steps:
        world.carry_out(step)
    world.calm()
    assert world.parent.names == world.edges
    assert world.parent.stand(world.fog.stand).agrees


@given(st.lists(SETS, max_size=12))
def test_where_nothing_is_lost_nobody_asks_and_who_came_and_went_adds_up(sets: list[frozenset[str]]) -> None:
    world, there = World(), frozenset[str]()
    for edges in sets:
        for told in world.fog.told(edges):
            heard = world.parent.hear(decode(Roster, encode(told)))
            assert not heard.joined & there
            assert heard.gone <= there
            there = (there | heard.joined) - heard.gone
        world.edges = edges
        world.hello()
        assert there == world.parent.names == edges
    assert world.asked == 0


@given(SETS, SETS)
def test_a_digest_follows_who_comes_and_who_goes(before: frozenset[str], after: frozenset[str]) -> None:
    assert changed(digest_of(before), after - before, before - after) == digest_of(after)
    assert (digest_of(before) == digest_of(after)) == (before == after)


def test_a_change_that_was_missed_is_noticed_by_the_next_one_and_by_the_next_hello() -> None:
    """Planted: a parent that takes every change as it comes would hold an edge that is gone, for ever."""
    fog, parent = Telling("life"), Known()
    (first,), (_lost,), (third,) = fog.told(["e1"]), fog.told([]), fog.told(["e2"])
    assert parent.hear(first).agrees
    assert not parent.hear(third).agrees
    assert parent.names == {"e1"}
    assert not parent.stand(fog.stand).agrees
    for page in fog.whole():
        heard = parent.hear(page)
    assert heard.gone == {"e1"}
    assert parent.names == {"e2"}


def test_a_page_whose_digest_is_of_other_names_changes_nothing() -> None:
    parent = Known(["e1"])
    assert not parent.hear(Roster(Stand("life", 4, 7), ("e2",), (), 0, 1)).agrees
    assert parent.names == {"e1"}


def test_an_old_change_that_comes_late_is_no_news() -> None:
    fog, parent = Telling("life"), Known()
    (first,), (second,) = fog.told(["e1"]), fog.told(["e1", "e2"])
    for each in (first, second, first):
        assert parent.hear(each).agrees
    assert parent.names == {"e1", "e2"}
