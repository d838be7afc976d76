"""Which release is to run where: said by the cloud's own key, and only about what offline keys list."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reuna.core.errors import Untrusted
from reuna.trust.metadata import TrustState, complete
from reuna.trust.releases import is_for, listed
from reuna.trust.stages import MAX_STAGES, Stage, decode, encode, read, stage_of, staged, stages_for
from reuna.trust.targets import target, targets
from tests.releases import target as listed_release
from tests.unit.trust.house import NOW, House, key

NODE = ("e1", "north")
OLD = listed_release(b"old", 3)
NEW = listed_release(b"new", 4)
SOUTH = listed_release(b"south", 5, where=("south",))
RELEASES = (OLD, NEW, SOUTH)


def stage(of: Any = NEW, **more: Any) -> Stage:
    return Stage(**{"project": of.project, "version": of.number, "sha256": of.sha256, **more})


def house_with(*stages: Stage, signers: list[Any] | None = None) -> House:
    house = House()
    house.listed["targets"] += RELEASES
    house.list("targets")
    publish_stages(house, *stages, signers=signers)
    return house


def publish_stages(house: House, *stages: Stage, signers: list[Any] | None = None) -> None:
    house.staged = stages
    house.list("plans", signers)
    house.online()


def walked(*stages: Stage) -> TrustState:
    return house_with(*stages).update()


def test_a_node_knows_which_release_it_is_to_run() -> None:
    state = walked(stage(rollout="r-7"), stage(OLD))
    assert read(state) == (stage(rollout="r-7"), stage(OLD))
    assert stage_of(state, NODE, "pumps") == stage(rollout="r-7")
    assert stage_of(state, NODE, "ovens") is None


def test_a_new_node_and_a_fleet_without_stages_have_none() -> None:
    assert read(House().begin()) == ()
    assert stage_of(House().update(), NODE, "pumps") is None


@pytest.mark.parametrize("where", [(), ("e1",), ("north",), ("e9", "e1")])
def test_a_stage_is_for_a_node_by_its_own_name_or_its_sites(where: tuple[str, ...]) -> None:
    assert stage_of(walked(stage(where=where)), NODE, "pumps") == stage(where=where)


def test_a_stage_for_others_is_passed_over() -> None:
    state = walked(stage(where=("e2", "south")), stage(OLD))
    assert stage_of(state, NODE, "pumps") == stage(OLD)


@pytest.mark.parametrize(
    "invented",
    [stage(sha256="f" * 64), stage(version=9), stage(project="ovens"), stage(SOUTH)],
    ids=["other bytes", "other number", "other project", "signed for another site"],
)
def test_a_stolen_cloud_key_brings_no_release_that_is_not_signed_for_this_node(invented: Stage) -> None:
    """Planted: without the comparison with ``targets`` each of these would run."""
    state = walked(invented, stage(OLD))
    for project in ("pumps", "ovens"):
        assert stage_of(state, NODE, project) in (stage(OLD), None)
    assert invented in read(state), "it is signed; it just does not count"


def test_a_release_that_was_withdrawn_is_staged_no_more() -> None:
    house = house_with(stage())
    state = house.update()
    house.listed["targets"] = [OLD]
    house.list("targets")
    house.online()
    assert stage_of(house.update(state), NODE, "pumps") is None


def test_stages_signed_by_another_key_are_refused_and_those_before_stay() -> None:
    house = house_with(stage(OLD))
    state = house.update()
    publish_stages(house, stage(), signers=[key("release-1")])
    with pytest.raises(Untrusted) as caught:
        house.update(state)
    assert caught.value.reason == "signature"
    assert stage_of(state, NODE, "pumps") == stage(OLD)


def test_stages_do_not_go_back() -> None:
    house = house_with(stage(OLD))
    before = dict(house.newest), dict(house.versions)
    state = house.update()
    publish_stages(house, stage())
    state = house.update(state)
    house.newest, house.versions = dict(before[0]), {**house.versions, "plans": before[1]["plans"]}
    house.online()  # an honest snapshot key of an older list: a thief's, or a cloud restored from a backup
    with pytest.raises(Untrusted) as caught:
        house.update(state)
    assert caught.value.reason == "version"
    assert stage_of(state, NODE, "pumps") == stage()


def test_an_empty_list_takes_stages_back() -> None:
    house = house_with(stage())
    state = house.update()
    publish_stages(house)
    assert stage_of(house.update(state), NODE, "pumps") is None


def test_a_shadow_runs_beside_what_is_live_and_never_beside_itself() -> None:
    own = [stage(mode="shadow"), stage(OLD), stage()]
    assert staged(own, "pumps").live == stage(OLD)
    assert staged(own, "pumps").shadow == stage(mode="shadow")
    assert staged([stage(mode="shadow"), stage()], "pumps").shadow is None
    assert staged([stage(mode="shadow")], "pumps").live is None


def test_what_a_node_of_before_reads_is_there_as_before() -> None:
    """Its list of targets, its plans, the paths that it lets a role name: nothing of these has changed."""
    state = walked(stage())
    assert complete(state)
    assert target(state, "plans/r-1", NOW).kind == "plan"
    assert all(each.path.split("/")[0] in ("releases", "code", "plans") for each in targets(state, NOW))


@pytest.mark.parametrize(
    "wrong",
    ["pumps", {}, [7], [{"project": "pumps"}], [{}] * (MAX_STAGES + 1),
     [{"project": "pumps", "version": 0, "sha256": "0" * 64}],
     [{"project": "pumps", "version": True, "sha256": "0" * 64}],
     [{"project": "pumps", "version": 1, "sha256": "0" * 63}],
     [{"project": "pumps", "version": 1, "sha256": "0" * 64, "mode": "dark"}],
     [{"project": "pumps", "version": 1, "sha256": "0" * 64, "where": ["../x"]}],
     [{"project": "", "version": 1, "sha256": "0" * 64}]],
)  # fmt: skip
def test_what_is_no_list_of_stages_is_refused(wrong: object) -> None:
    with pytest.raises(Untrusted) as caught:
        decode(wrong)
    assert caught.value.reason == "malformed"


def test_fields_of_a_later_version_are_read_past() -> None:
    later = [{**encode([stage()])[0], "until": 7}]  # type: ignore[dict-item]
    assert decode(later) == (stage(),)


def test_what_no_node_would_read_is_not_written() -> None:
    with pytest.raises(Untrusted):
        encode([replace(stage(), where=("UPPER",))])


PLACES = st.lists(st.sampled_from(["e1", "e2", "north", "south"]), max_size=2, unique=True).map(tuple)
ANY = st.builds(
    lambda of, where, mode, digest: stage(of, where=where, mode=mode, sha256=digest or of.sha256),
    st.sampled_from(RELEASES),
    PLACES,
    st.sampled_from(["live", "shadow"]),
    st.sampled_from(["", hashlib.sha256(b"forged").hexdigest()]),
)


@given(st.lists(ANY, max_size=8))
def test_whatever_the_cloud_says_only_what_is_listed_for_the_node_counts(said: list[Stage]) -> None:
    own = stages_for(said, RELEASES, NODE)
    for each in own:
        of = next(one for one in RELEASES if one.sha256 == each.sha256)
        assert (of.number, of.project) == (each.version, each.project)
        assert is_for(of, NODE)
        assert not each.where or {*each.where} & {*NODE}
    assert list(own) == [each for each in said if each in own], "in the order in which it was said"
    assert decode(encode(said)) == tuple(said)


def test_the_list_of_releases_is_that_of_the_offline_keys() -> None:
    assert {each.sha256 for each in listed(walked())} == {each.sha256 for each in RELEASES}
