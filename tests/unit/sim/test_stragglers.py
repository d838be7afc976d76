"""Silent and slow nodes: what a round waits for, in virtual time on the real round logic."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.api import play, with_members
from reuna.core.errors import RunFailed
from reuna.core.records import AWAY, SPARED, UNHEARD, Asking
from reuna.sim.faults import Walker
from reuna.sim.fleet import SimEdge, make_spec
from reuna.sim.stragglers import Played, Troop, play_slow

SILENT = Troop(nodes=12, silent=2)
OVER = Asking(away_s=15.0, cohort=8, over_select=1.5)


def reasons(played: Played, number: int) -> set[str]:
    """Why nodes gave nothing to a round, from 1 on."""
    told = str(played.rounds[number - 1]["absent"])
    return {each.partition(": ")[2] for each in told.split(", ") if each}


def test_a_round_does_not_wait_for_nodes_that_are_known_to_be_away() -> None:
    played = play_slow(SILENT, quorum=0.8, deadline_s=600.0, asking=Asking(away_s=15.0))
    first, *later = (float(each["seconds"]) for each in played.rounds)
    assert 15 < first < 20, "nobody knew yet: they were asked, and silent for as long as it takes"
    assert max(later) < 4, "from then on a round takes as long as a training"
    assert reasons(played, 1) == reasons(played, 9) == {AWAY}
    assert all(each["took_part"] == 10 for each in played.rounds)


def test_without_that_setting_each_round_waits_until_its_deadline() -> None:
    played = play_slow(SILENT, 3, quorum=0.8, deadline_s=60.0)
    assert all(float(each["seconds"]) >= 60 for each in played.rounds)
    assert reasons(played, 3) == {UNHEARD}


def test_a_round_that_needs_everybody_waits_for_everybody() -> None:
    whole = play_slow(Troop(nodes=6), 3)
    late = play_slow(Troop(nodes=6, silent=1), 3, back_s=100.0, deadline_s=600.0, asking=Asking(away_s=15.0))
    assert float(late.rounds[0]["seconds"]) > 99
    assert late.outcome["model"] == whole.outcome["model"], "with full participation the bits are the same"


def test_who_comes_back_gives_again_in_the_next_round() -> None:
    played = play_slow(SILENT, 30, back_s=40.0, quorum=0.8, deadline_s=600.0, asking=Asking(away_s=15.0))
    assert played.rounds[5]["took_part"] == 10
    assert played.rounds[-1]["took_part"] == 12
    assert max(float(each["seconds"]) for each in played.rounds[1:]) < 5


def test_a_fog_whose_nodes_are_all_away_is_not_waited_for() -> None:
    """Its line is down: the cloud says so of its edges."""
    asked: dict[str, Any] = {"quorum": 0.7, "deadline_s": 600.0, "asking": Asking(away_s=15.0)}
    played = play_slow(Troop(nodes=4, fogs=4), 5, off=("fog-3", "edge-003"), **asked)
    assert max(float(each["seconds"]) for each in played.rounds[1:]) < 5
    assert played.rounds[-1]["absent"] == f"edge-003: {AWAY}"


def test_a_short_attempt_waits_until_the_deadline_in_the_next() -> None:
    """Each fog may do without two; both together may not, and so no attempt is made in vain at once."""
    troop = Troop(nodes=12, silent=4)
    with pytest.raises(RunFailed, match="did not reach its quorum in 20 attempts"):
        play_slow(troop, 1, quorum=0.8, deadline_s=60.0, asking=Asking(away_s=15.0))


def test_with_more_nodes_asked_than_needed_the_first_close_the_round() -> None:
    slow = play_slow(Troop(nodes=12, slow=2), deadline_s=600.0)
    over = play_slow(Troop(nodes=12, slow=2), deadline_s=600.0, asking=OVER)
    assert all(8 <= int(each["took_part"]) <= 10 for each in over.rounds), (
        "who comes in the same moment counts"
    )
    assert max(float(each["seconds"]) for each in over.rounds) < 4 < 19 < float(slow.rounds[0]["seconds"])
    assert reasons(over, 1) == {SPARED}


def test_who_is_asked_changes_from_round_to_round_and_is_the_same_in_every_run() -> None:
    asking = Asking(cohort=4)
    first, again, other = (play_slow(Troop(), asking=asking, seed=seed).members for seed in (1, 1, 2))
    assert first == again != other
    assert all(len(names) == 4 for names in first)
    assert len({name for names in first for name in names}) > 10


def test_nodes_that_were_away_are_asked_last() -> None:
    played = play_slow(
        Troop(nodes=8, silent=2), 10, quorum=0.5, deadline_s=600.0, asking=Asking(15.0, 6, 1.0)
    )
    assert [each["took_part"] for each in played.rounds[3:]] == [6] * 7
    assert sum(each["absent"] != "" for each in played.rounds) <= 2, "each is found away once"


def test_a_run_with_chosen_nodes_is_carried_out_again_with_its_recorded_members() -> None:
    troop = Troop(nodes=12, slow=2)
    played = play_slow(troop, 6, deadline_s=600.0, asking=OVER)
    fogs = {
        fog: {
            name: SimEdge(
                Walker(),
                edge.data,
                frozenset(n for n, names in enumerate(played.members, 1) if name in names),
            )
            for name, edge in edges.items()
        }
        for fog, edges in troop.spread().items()
    }
    spec, model, bundle = make_spec(fogs, Walker(), 6, deadline_s=600.0, asking=OVER)
    again = play(fogs, with_members(spec, played.members), model, bundle)
    assert again.digest == played.outcome["model"]


def test_late_updates_are_refused_by_name_and_change_nothing() -> None:
    """Slow ones answer after the round was closed: most dropped the work for the next plan."""
    played = play_slow(Troop(nodes=12, slow=2, slower=1.5), 6, deadline_s=600.0, asking=OVER)
    assert {each.partition(" ")[2] for each in played.refused} <= {"closed", "stale"}
    assert all(8 <= int(each["took_part"]) <= 10 for each in played.rounds)


#: One under the other, and a fourth beside them; each has nodes of its own.
ABOVE = {"fog-1": "fog-0", "fog-2": "fog-1"}


def test_through_fogs_of_fogs_a_round_does_not_wait_for_nodes_that_are_away() -> None:
    asked: dict[str, Any] = {"quorum": 0.7, "deadline_s": 600.0, "asking": Asking(away_s=15.0)}
    played = play_slow(Troop(nodes=12, fogs=4, silent=2), above=ABOVE, **asked)
    assert max(float(each["seconds"]) for each in played.rounds[1:]) < 4
    assert reasons(played, 1) == reasons(played, 9) == {AWAY}
    assert all(each["took_part"] == 10 for each in played.rounds)


def test_a_fog_between_that_is_away_costs_what_stands_under_it_and_no_time() -> None:
    asked: dict[str, Any] = {"quorum": 0.5, "deadline_s": 600.0, "asking": Asking(away_s=15.0)}
    played = play_slow(Troop(nodes=12, fogs=4), 6, off=("fog-1",), above=ABOVE, **asked)
    assert max(float(each["seconds"]) for each in played.rounds[1:]) < 5
    assert reasons(played, 6) == {AWAY}
    assert all(each["took_part"] == 6 for each in played.rounds), "those of fog-1 and of fog-2 under it"


def test_a_fog_over_fogs_does_without_no_more_edges_than_the_quorum_leaves_over() -> None:
    """One child is away, for which six edges stand: the quorum wants one of these."""
    asked: dict[str, Any] = {"quorum": 7 / 12, "deadline_s": 60.0, "asking": Asking(away_s=15.0)}
    with pytest.raises(RunFailed):
        play_slow(Troop(nodes=12, fogs=4), 1, off=("fog-1",), above=ABOVE, **asked)
    back = play_slow(Troop(nodes=12, fogs=4), 1, off=("fog-1",), back_s=40.0, above=ABOVE, **asked)
    assert back.rounds[0]["took_part"] == 12


def test_through_fogs_of_fogs_the_first_of_more_than_needed_close_the_round() -> None:
    troop = Troop(nodes=24, fogs=4, slow=2)
    flat = play_slow(troop, 6, deadline_s=600.0, asking=Asking(15.0, 16, 1.5))
    tree = play_slow(troop, 6, deadline_s=600.0, above=ABOVE, asking=Asking(15.0, 16, 1.5))
    assert max(float(each["seconds"]) for each in (*flat.rounds, *tree.rounds)) < 5
    assert all(16 <= int(each["took_part"]) <= 22 for each in tree.rounds)
    assert reasons(tree, 1) == {SPARED}


def test_a_tree_asks_the_same_nodes_as_fogs_under_the_cloud_alone_and_has_the_same_bits() -> None:
    troop, asking = Troop(nodes=20, fogs=4), Asking(cohort=5)
    flat, tree = (play_slow(troop, above=above, asking=asking) for above in (None, ABOVE))
    assert flat.members == tree.members
    assert flat.outcome["model"] == tree.outcome["model"]
