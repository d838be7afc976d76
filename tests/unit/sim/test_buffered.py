"""FedBuff on the real round logic: edges go on at once, steps are made of what is there, nothing twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from reuna.core.errors import NotReproduced, PlanError, RunFailed
from reuna.core.records import Asking, Encoding, Grid
from reuna.loop.plan import check_spec
from reuna.sim.buffered import replayed
from reuna.sim.faults import Chances, Walker, fleet_of, rehearse
from reuna.sim.fleet import SimEdge, make_spec
from reuna.sim.stragglers import Played, Troop, play_slow

BUFFER: dict[str, Any] = {"strategy": "fedbuff", "encoding": Encoding(), "asking": Asking(away_s=15.0)}
TROOP = Troop(nodes=12, slow=2)


def buffered(troop: Troop, rounds: int, buffer: int, staleness: int = 20, **way: Any) -> Played:
    return play_slow(
        troop, rounds, settings={"buffer": buffer, "max_staleness": staleness}, **{**BUFFER, **way}
    )


def staleness(played: Played) -> Counter[int]:
    return Counter(
        number - base for number, updates in enumerate(played.updates_of, 1) for _, base in updates
    )


def again(troop: Troop, played: Played, **way: Any) -> str:
    """The digest of the model when the run is carried out again from what was recorded."""
    fogs = troop.spread()
    spec, model, _ = make_spec(fogs, Walker(), len(played.rounds), **{**BUFFER, **way})
    edges = {name: edge for under in fogs.values() for name, edge in under.items()}
    return replayed(spec, model, played.updates_of, edges)[-1]


def test_when_a_step_is_made_of_everybody_it_has_the_bits_of_fedavg() -> None:
    troop = Troop(nodes=6)
    fedavg = play_slow(troop, 5, encoding=Encoding())
    assert buffered(troop, 5, buffer=6).outcome["model"] == fedavg.outcome["model"]


def test_also_on_the_finest_grid_with_the_largest_weights() -> None:
    fine: dict[str, Any] = {"grid": Grid(32, -40), "max_weight": 2**20}
    troop = Troop(nodes=6)
    fedavg = play_slow(troop, 5, encoding=Encoding(), **fine)
    assert buffered(troop, 5, buffer=6, **fine).outcome["model"] == fedavg.outcome["model"]


def test_fast_nodes_do_not_wait_for_slow_ones_whose_updates_count_when_they_come() -> None:
    played = buffered(TROOP, 40, buffer=5, staleness=30)
    assert all(5 <= int(each["took_part"]) <= 12 for each in played.rounds)
    found = staleness(played)
    assert max(found) > 5, "a slow node's update is some steps behind"
    slow = [node for updates in played.updates_of for node, _ in updates if node in TROOP.slow_ones()]
    assert len(slow) >= 2
    assert played.seconds < 40 * 2, "as many steps take less time than the slowest node's alone would"
    assert not played.refused


def test_no_update_counts_twice_and_each_node_is_at_one_thing_at_a_time() -> None:
    played = buffered(TROOP, 40, buffer=5)
    every = [update for updates in played.updates_of for update in updates]
    assert len(set(every)) == len(every)
    for node in TROOP.names():
        bases = [base for name, base in every if name == node]
        assert bases == sorted(bases)


def test_what_was_recorded_gives_the_same_bits_again() -> None:
    played = buffered(TROOP, 25, buffer=5)
    assert again(TROOP, played, settings={"buffer": 5}) == played.outcome["model"]


def test_with_chance_in_the_rounding_too() -> None:
    way: dict[str, Any] = {"encoding": Encoding(stochastic=True, keep=0.5), "grid": Grid(8, -6)}
    played = buffered(TROOP, 12, buffer=5, **way)
    assert again(TROOP, played, **way) == played.outcome["model"]


def test_a_step_that_names_what_cannot_be_in_it_is_not_reproduced() -> None:
    fogs = TROOP.spread()
    spec, model, _ = make_spec(fogs, Walker(), 2, **BUFFER)
    edges = {name: edge for under in fogs.values() for name, edge in under.items()}
    for wrong in ([[("edge-000", 2)]], [[("edge-000", 1)], [("edge-000", 1)]], [[("nobody", 1)]]):
        with pytest.raises(NotReproduced, match="cannot have an update"):
            replayed(spec, model, wrong, edges)


def test_updates_that_are_too_old_are_refused_by_name_and_cost_their_node_alone() -> None:
    played = buffered(TROOP, 40, buffer=5, staleness=4)
    assert set(played.refused) == {f"{node} stale" for node in TROOP.slow_ones()}
    assert max(staleness(played)) <= 5, "four when it arrived; it may wait for one step more"


def test_silent_nodes_cost_their_part_and_nothing_stalls() -> None:
    whole = buffered(Troop(nodes=20), 60, buffer=8)
    silent = buffered(Troop(nodes=20, silent=2), 60, buffer=8)
    rate = (silent.updates / silent.seconds) / (whole.updates / whole.seconds)
    assert 0.82 < rate < 0.98
    assert max(float(each["seconds"]) for each in silent.rounds) < 4


def test_a_fog_with_slow_nodes_alone_does_not_hold_the_others_up() -> None:
    """A third of the nodes; the steps wait for its share at first, and soon for next to nothing of it."""
    troop = SlowSite(nodes=12, fogs=3, slow=4)
    played = buffered(troop, 40, buffer=4)
    times = [float(each["seconds"]) for each in played.rounds]
    assert sum(times[20:]) / 20 < 2, "a training of its nodes takes twenty"
    slow = [node for updates in played.updates_of for node, _ in updates if node in troop.slow_ones()]
    assert slow, "and what they give counts"
    assert again(troop, played, settings={"buffer": 4}) == played.outcome["model"]


@pytest.mark.parametrize("above", [{"fog-0": "fog-1"}, {"fog-0": "fog-1", "fog-1": "fog-2"}])
def test_nor_does_one_under_another_fog_whose_nodes_are_three_of_five(above: dict[str, str]) -> None:
    """The steps need most of the fast nodes; by the number of nodes each would wait for some slow ones."""
    troop = LargeSite(nodes=20, fogs=3)
    played = buffered(troop, 30, buffer=8, above=above)
    times = [float(each["seconds"]) for each in played.rounds]
    assert sum(times[10:]) / 20 < 3, "seven otherwise; a training of a slow node takes twenty"
    slow = [node for updates in played.updates_of for node, _ in updates if node in troop.slow_ones()]
    assert slow, "and what they give counts"
    assert again(troop, played, settings={"buffer": 8}) == played.outcome["model"]


class LargeSite(Troop):
    """One fog has three fast nodes and all nine slow ones, each other has four fast ones."""

    def slow_ones(self) -> frozenset[str]:
        return frozenset(self.names()[3:12])

    def spread(self) -> dict[str, dict[str, SimEdge]]:
        every = {name: edge for under in super().spread().values() for name, edge in under.items()}
        cuts = {"fog-0": (0, 12), "fog-1": (12, 16), "fog-2": (16, 20)}
        return {fog: {name: every[name] for name in self.names()[a:b]} for fog, (a, b) in cuts.items()}


class SlowSite(Troop):
    """All of its slow nodes are under one fog."""

    def slow_ones(self) -> frozenset[str]:
        return frozenset(self.names()[:: self.fogs])


def test_where_there_are_too_few_for_a_step_it_is_made_at_the_deadline_of_what_there_is() -> None:
    played = buffered(Troop(nodes=6, silent=3), 3, buffer=6, deadline_s=20.0, asking=Asking())
    assert [int(each["took_part"]) for each in played.rounds] == [3, 3, 3]


def test_a_run_in_which_nobody_gives_anything_fails_in_the_end() -> None:
    with pytest.raises(RunFailed, match="no node gave anything to round 1"):
        buffered(Troop(nodes=2, silent=2), 3, buffer=2, deadline_s=5.0)


ABOVE = {"fog-1": "fog-0", "fog-2": "fog-1"}


def test_through_fogs_of_fogs_a_step_of_everybody_has_the_bits_of_fedavg() -> None:
    troop = Troop(nodes=8, fogs=4)
    fedavg = play_slow(troop, 5, above=ABOVE, encoding=Encoding())
    assert buffered(troop, 5, buffer=8, above=ABOVE).outcome["model"] == fedavg.outcome["model"]


def test_through_fogs_of_fogs_no_update_counts_twice_and_what_was_recorded_gives_the_same_bits() -> None:
    troop = Troop(nodes=16, fogs=4, slow=2)
    played = buffered(troop, 30, buffer=4, staleness=30, above=ABOVE)
    every = [update for updates in played.updates_of for update in updates]
    assert len(set(every)) == len(every)
    assert max(staleness(played)) > 5, "slow nodes are heard, some steps behind"
    assert {node for node, _ in every} == set(troop.names()), "from each level"
    assert played.seconds < 30 * 4, "nobody waits for the slow ones, a training of which takes twenty"
    assert again(troop, played, settings={"buffer": 4}) == played.outcome["model"]


ROUGH = Chances(
    kill=0.004, lose=0.1, double=0.1, late=0.2, cut=0.1, answer_lost=0.1, line_down=0.01, full_disk=0
)


@pytest.mark.parametrize("seed", range(6))
def test_killed_anywhere_a_run_ends_and_what_it_recorded_gives_the_same_bits(seed: int) -> None:
    way = {**BUFFER, "settings": {"buffer": 3}, "deadline_s": 60.0}
    found = rehearse(seed, ROUGH, rounds=8, evaluate=False, **way)
    assert found.faults["kill"], "the seed plants something"
    fogs = fleet_of(2, 3)
    spec, model, _ = make_spec(fogs, Walker(), 8, **way)
    edges = {name: edge for under in fogs.values() for name, edge in under.items()}
    assert replayed(spec, model, found.updates, edges)[-1] == found.outcome["model"]
    every = [update for updates in found.updates for update in updates]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"encoding": Encoding(feedback=True)}, "round.feedback"),
        ({"encoding": Encoding(follow=True)}, "round.grid_exponent"),
        ({"asking": Asking(cohort=3)}, "round.cohort"),
        ({"max_weight": 2**30}, "overflow"),
    ],
)
def test_what_cannot_be_in_such_a_run_is_refused_before_it_begins(wrong: dict[str, Any], named: str) -> None:
    spec, _, _ = make_spec(fleet_of(2, 20), Walker(), 2, **{**BUFFER, "grid": Grid(16, -16), **wrong})
    with pytest.raises(PlanError) as caught:
        check_spec(spec)
    assert named in f"{caught.value} {caught.value.next_step}"


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_in_a_tree_what_a_run_recorded_gives_the_same_bits(seed: int) -> None:
    way = {**BUFFER, "settings": {"buffer": 3}, "deadline_s": 60.0}
    fogs = fleet_of(3, 2)
    found = rehearse(seed, ROUGH, rounds=6, fogs=3, edges=2, above=ABOVE, evaluate=False, **way)
    spec, model, _ = make_spec(fogs, Walker(), 6, ABOVE, **way)
    edges = {name: edge for under in fogs.values() for name, edge in under.items()}
    assert replayed(spec, model, found.updates, edges)[-1] == found.outcome["model"]
    every = [update for updates in found.updates for update in updates]
    assert len(set(every)) == len(every)
