"""Rollouts of a cloud over machines that decide as real ones do, in virtual time."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reuna.core.errors import RolloutProblem, RunNotFound
from reuna.core.rollout import Order, RolloutSpec
from reuna.trust.stages import Stage
from tests.operating import which
from tests.rolling import ALSO_GOOD, BAD, GOOD, KINDS, SITES, Plant, asked, lived, target

ALL_GOOD = dict.fromkeys(SITES, GOOD)
ALL_NEW = dict.fromkeys(SITES, ALSO_GOOD)


async def running_plant(folder: Path, **more: object) -> Plant:
    """Every machine runs the first release, and the fleet says so; then the second one is signed."""
    plant = Plant(folder, **more)  # type: ignore[arg-type]
    plant.stage([Stage("pumps", GOOD, which(GOOD).digest)])
    await plant.pass_time(60)
    assert plant.runs == ALL_GOOD
    plant.target_list += [target(ALSO_GOOD), target(BAD)]
    await plant.pass_time(60)
    assert plant.runs == ALL_GOOD, "a list alone moves nobody who has a stage"
    return plant


def test_a_release_goes_from_the_shadow_to_a_canary_to_everybody(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        await plant.rollouts.start(asked(ALSO_GOOD, "e1", "north", "all", shadow_s=100.0))
        await plant.pass_time(50)
        found = await plant.rollouts.status("ro-7")
        assert found["phase"] == "shadow"
        assert plant.runs == ALL_GOOD
        assert all(node["shadow"] == ALSO_GOOD for node in found["nodes"].values())
        seen = []
        for _ in range(400):
            await plant.pass_time(5)
            seen.append(tuple(name for name, version in plant.runs.items() if version == ALSO_GOOD))
        assert list(dict.fromkeys(seen)) == [(), ("e1",), ("e1", "e2"), tuple(SITES)]
        assert await plant.phase("ro-7") == "done"
        assert plant.told("ro-7") == ["shadow", "met", "wave", "met", "wave", "met", "wave", "met", "done"]
        assert plant.published == (Stage("pumps", ALSO_GOOD, which(ALSO_GOOD).digest, "live", (), "ro-7"),)

    lived(story)


def test_a_release_that_a_canary_gives_up_stops_there_and_nobody_else_ever_runs_it(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        await plant.rollouts.start(asked(BAD, "e1", "all"))
        for _ in range(100):
            await plant.pass_time(5)
            assert all(version == GOOD for name, version in plant.runs.items() if name != "e1")
        found = await plant.rollouts.status("ro-9")
        assert found["phase"] == "failed"
        assert found["why"] == "e1 went back: restarts"
        assert plant.runs == ALL_GOOD

    lived(story)


def test_who_had_moved_goes_back_when_a_later_wave_fails_and_who_was_away_never_moves(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        plant.edges["e5"].on = False
        plant.edges["e4"].machine.kinds = ("good", "restarts", *KINDS[2:])  # the new one, there alone
        await plant.rollouts.start(asked(ALSO_GOOD, "north", "south", "all"))
        await plant.pass_time(60)
        assert {name for name, version in plant.runs.items() if version == ALSO_GOOD} >= {"e1", "e2"}
        await plant.pass_time(600)
        assert await plant.phase("ro-7") == "failed"
        assert {name: plant.runs[name] for name in ("e1", "e2", "e3")} == dict.fromkeys(
            ("e1", "e2", "e3"), GOOD
        )
        plant.edges["e5"].on = True
        await plant.pass_time(200)
        assert plant.runs["e5"] == GOOD

    lived(story)


def test_a_machine_that_was_off_joins_late_without_a_hand(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        plant.edges["e5"].on = False
        await plant.rollouts.start(asked(ALSO_GOOD, "e1", "all", deadline_s=600.0))
        await plant.pass_time(400)
        assert await plant.phase("ro-7") == "wave", "it waits, but no longer than its deadline"
        await plant.pass_time(900)
        assert await plant.phase("ro-7") == "done"
        plant.edges["e5"].on = True
        await plant.pass_time(100)
        assert plant.runs == ALL_NEW

    lived(story)


def test_too_many_that_are_off_pause_it_and_a_person_lets_it_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        plant.edges["e1"].on = False
        await plant.rollouts.start(asked(ALSO_GOOD, "north", "all", deadline_s=300.0))
        await plant.pass_time(500)
        found = await plant.rollouts.status("ro-7")
        assert (found["phase"], found["why"]) == (
            "paused",
            "1 of 2 nodes of wave 1 did not confirm in time: e1",
        )
        await plant.rollouts.order("ro-7", "resume", "anna")
        await plant.pass_time(900)
        assert await plant.phase("ro-7") == "done"

    lived(story)


def test_a_pause_holds_and_an_abort_sends_everybody_back_for_good(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        await plant.rollouts.start(asked(ALSO_GOOD, "e1", "all"))
        await plant.pass_time(30)
        await plant.rollouts.order("ro-7", "pause", "anna")
        await plant.pass_time(1000)
        found = await plant.rollouts.status("ro-7")
        assert (found["phase"], found["wave"], found["by"]) == ("paused", 1, "anna")
        assert plant.runs == {**ALL_GOOD, "e1": ALSO_GOOD}
        await plant.rollouts.order("ro-7", "abort", "ben")
        await plant.pass_time(200)
        assert plant.runs == ALL_GOOD
        orders: tuple[Order, ...] = ("pause", "resume", "abort")
        for order in orders:
            with pytest.raises(RolloutProblem, match="is over: aborted"):
                await plant.rollouts.order("ro-7", order, "anna")

    lived(story)


def test_a_project_goes_back_to_what_it_was_before(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        with pytest.raises(RunNotFound):
            await plant.rollouts.back("pumps", "back-1", "anna")
        await plant.rollouts.start(asked(ALSO_GOOD, soak_s=0.0))
        await plant.pass_time(200)
        assert plant.runs == ALL_NEW
        assert await plant.rollouts.back("pumps", "back-1", "anna") == {"rollout": "back-1", "did": "begun"}
        await plant.pass_time(200)
        assert plant.runs == ALL_GOOD
        assert await plant.phase("back-1") == "done"
        await plant.rollouts.start(asked(ALSO_GOOD, "e1", "all", name="again"))
        await plant.pass_time(60)
        assert plant.runs["e1"] == ALSO_GOOD
        assert await plant.rollouts.back("pumps", "back-2", "anna") == {"rollout": "again", "did": "aborted"}
        await plant.pass_time(100)
        assert plant.runs == ALL_GOOD
        with pytest.raises(RolloutProblem, match="has what it had before"):
            await plant.rollouts.back("pumps", "back-3", "anna")

    lived(story)


def test_a_bad_release_is_tried_again_by_a_newer_rollout_and_old_words_do_not_count(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        await plant.rollouts.start(asked(BAD, "e1"))
        await plant.pass_time(300)
        assert await plant.phase("ro-9") == "failed"
        plant.edges["e1"].machine.kinds = ("good",)  # the machine was repaired
        await plant.rollouts.start(asked(BAD, "e1", name="second"))
        await plant.pass_time(300)
        assert await plant.phase("second") == "done"
        assert plant.runs["e1"] == BAD

    lived(story)


def test_a_first_release_reaches_nobody_before_its_wave(tmp_path: Path) -> None:
    async def story() -> None:
        plant = Plant(tmp_path)
        plant.target_list = []
        spec = msgspec.structs.replace(asked(GOOD, "e1", "all", soak_s=300.0), waits=True)
        await plant.rollouts.start(spec)
        await plant.pass_time(100)
        assert await plant.phase("ro-6") == "planned"
        plant.target_list = [target(GOOD)]
        await plant.pass_time(200)
        assert plant.runs == {**dict.fromkeys(SITES, 0), "e1": GOOD}
        await plant.pass_time(500)
        assert plant.runs == ALL_GOOD

    lived(story)


@pytest.mark.parametrize("moment", range(1, 40, 3))
def test_a_cloud_that_is_killed_anywhere_goes_on_and_comes_to_the_same_end(
    tmp_path: Path, moment: int
) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        plant.crash_at = moment
        await plant.rollouts.start(asked(ALSO_GOOD, "e1", "north", "all", shadow_s=30.0))
        await plant.pass_time(900)
        assert await plant.phase("ro-7") == "done"
        assert plant.runs == ALL_NEW
        assert plant.told("ro-7") == ["shadow", "met", "wave", "met", "wave", "met", "wave", "met", "done"]

    lived(story)


def test_what_a_machine_ran_first_outlives_the_cloud(tmp_path: Path) -> None:
    """Nobody had said what it runs when the rollout began; it said so once, and the cloud was killed."""

    async def story() -> None:
        plant = Plant(tmp_path)
        for edge in plant.edges.values():
            edge.speaks = False
        await plant.pass_time(60)
        for edge in plant.edges.values():
            edge.on, edge.speaks = False, True
        plant.target_list += [target(ALSO_GOOD)]
        await plant.rollouts.start(asked(ALSO_GOOD, "all", soak_s=3000.0))
        await plant.pass_time(30)
        assert plant.told("ro-7") == ["wave"]
        edge = plant.edges["e1"]
        plant.hears(edge)
        await plant.pass_time(30)
        edge.on = True
        await plant.pass_time(100)
        assert plant.runs["e1"] == ALSO_GOOD
        plant.crash_at = 1
        await plant.rollouts.order("ro-7", "abort", "anna")
        await plant.pass_time(100)
        assert plant.runs["e1"] == GOOD

    lived(story)


def test_a_machine_that_leaves_what_it_had_confirmed_ends_the_rollout_that_soaks(tmp_path: Path) -> None:
    """Nothing was wrong on trial; while the wave soaks its worker begins to fail, and the machine goes back."""

    async def story() -> None:
        plant = await running_plant(tmp_path)
        plant.target_list += [target(ALSO_GOOD)]
        await plant.rollouts.start(asked(ALSO_GOOD, "e1", "all", soak_s=3000.0))
        await plant.pass_time(100)
        assert plant.runs["e1"] == ALSO_GOOD
        assert await plant.phase("ro-7") == "wave"
        plant.edges["e1"].machine.sour.add(which(ALSO_GOOD).digest)
        await plant.pass_time(100)
        assert await plant.phase("ro-7") == "failed"
        assert plant.runs == dict.fromkeys(SITES, GOOD)

    lived(story)


def test_a_first_release_that_fails_is_left_to_nobody(tmp_path: Path) -> None:
    """There is nothing to go back to, and no machine takes the release that failed by itself."""

    async def story() -> None:
        plant = Plant(tmp_path)
        plant.target_list = [target(BAD)]
        await plant.rollouts.start(asked(BAD, "e1", "all"))
        for _ in range(60):
            await plant.pass_time(5)
            assert all(version == 0 for name, version in plant.runs.items() if name != "e1")
        assert await plant.phase("ro-9") == "failed"
        assert plant.runs == dict.fromkeys(SITES, 0)

    lived(story)


def test_what_cannot_be_signed_is_said_and_tried_until_it_can(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        plant.no_key = True
        await plant.rollouts.start(asked(ALSO_GOOD))
        await plant.pass_time(60)
        found = await plant.rollouts.status("ro-7")
        assert (found["phase"], found["trouble"]) == ("planned", "R108 no online key")
        plant.no_key = False
        await plant.pass_time(300)
        found = await plant.rollouts.status("ro-7")
        assert (found["phase"], found["trouble"]) == ("done", "")
        assert plant.runs == ALL_NEW

    lived(story)


REFUSED = [
    (asked(8), "pumps 8 is not listed for nodes"),
    (asked(ALSO_GOOD, "e9"), "'e9' is no node and no site of this fleet"),
    (asked(ALSO_GOOD, "all", "north"), "a wave after `all` has nobody left"),
    (asked(ALSO_GOOD, "north", "north"), "wave north is named twice"),
    (asked(ALSO_GOOD, "0%"), "wave '0%': name a node, a site or a type of machine"),
    (asked(ALSO_GOOD, windows=("noon",)), "'noon' is no window"),
]


@pytest.mark.parametrize(("spec", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_a_rollout_is_said_before_anything_begins(
    tmp_path: Path, spec: RolloutSpec, said: str
) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        before = plant.published
        with pytest.raises(RolloutProblem, match=said):
            await plant.rollouts.start(spec)
        with pytest.raises(RolloutProblem, match=said):
            await plant.rollouts.plan(spec)
        assert plant.published == before
        assert not plant.host.specs

    lived(story)


def test_a_release_that_the_signed_list_does_not_have_for_a_node_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        plant = await running_plant(tmp_path)
        plant.target_list = [target(GOOD), target(ALSO_GOOD, "north")]
        with pytest.raises(RolloutProblem, match="does not have pumps 7 for e3, e4, e5"):
            await plant.rollouts.start(asked(ALSO_GOOD))
        await plant.rollouts.start(asked(ALSO_GOOD, "north"))
        with pytest.raises(RolloutProblem, match="rollout ro-7 of pumps goes on"):
            await plant.rollouts.start(asked(GOOD, name="other"))
        await plant.rollouts.start(asked(ALSO_GOOD, "north"))  # the same again is the one that goes on
        with pytest.raises(RolloutProblem, match="there is a rollout ro-7 already"):
            await plant.rollouts.start(asked(ALSO_GOOD, "e1", name="ro-7"))

    lived(story)
