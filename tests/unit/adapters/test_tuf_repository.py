from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters.tuf_repository import KEPT, TufRepository
from reuna.core.errors import KeyProblem, Untrusted
from reuna.trust.metadata import begin, complete, update
from reuna.trust.publish import DAY
from reuna.trust.stages import Stage, read
from reuna.trust.targets import target
from tests.unit.trust.house import FLEET, NOW, House, key, thing

ONLINE = [key("online-1"), key("plans-1")]


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def repository(tmp_path: Path, house: House) -> TufRepository:
    made = TufRepository(tmp_path)
    made.put(house.files)
    return made


def test_what_is_fresh_is_left_alone(repository: TufRepository) -> None:
    assert repository.freshen(ONLINE, NOW) == []


def test_a_cloud_that_runs_on_keeps_its_nodes_going_for_months(
    repository: TufRepository, house: House
) -> None:
    state = begin(FLEET, house.pin)
    for day in range(120):
        now = NOW + day * DAY / 2
        repository.freshen(ONLINE, now)
        state = update(state, repository.file, now)
        assert complete(state)
    assert state.files["timestamp"].version > 50
    assert len(list(repository.folder.glob("*.snapshot.json"))) == KEPT


def test_new_files_are_published_together(repository: TufRepository, house: House) -> None:
    house.listed["code"].append(thing("code/second", "code"))
    data = house.list("code")
    new = repository.freshen(ONLINE, NOW, {"2.code.json": data})
    assert new == ["2.code.json", "2.snapshot.json", "timestamp.json"]
    assert complete(repository.check(NOW))


def test_a_plan_of_the_moment_replaces_the_one_before(repository: TufRepository, house: House) -> None:
    state = update(begin(FLEET, house.pin), repository.file, NOW)
    repository.assign([thing("plans/r-2", "plan", b"e1 e2")], ONLINE, NOW)
    state = update(state, repository.file, NOW)
    assert target(state, "plans/r-2", NOW).size == 5
    with pytest.raises(Untrusted):
        target(state, "plans/r-1", NOW)


def test_stages_live_on_when_plans_are_renewed_or_replaced(repository: TufRepository, house: House) -> None:
    wanted = (Stage("pumps", 4, "a" * 64, where=("e1",), rollout="r-7"),)
    repository.stage(wanted, ONLINE, NOW)
    assert target(repository.check(NOW), "plans/r-1", NOW).kind == "plan", "the list beside it stays"
    repository.freshen(ONLINE, NOW + 5 * DAY)
    assert repository.version("plans") == 3
    repository.assign([thing("plans/r-2", "plan")], ONLINE, NOW + 5 * DAY)
    assert repository.stages() == wanted
    assert read(repository.check(NOW + 5 * DAY)) == wanted


def test_nothing_is_written_that_a_node_would_refuse(repository: TufRepository, house: House) -> None:
    before = {path.name for path in repository.folder.glob("*.json")}
    forged = house.list("code", signers=[key("online-1")])
    with pytest.raises(Untrusted):
        repository.freshen(ONLINE, NOW, {"2.code.json": forged})
    assert {path.name for path in repository.folder.glob("*.json")} == before


def test_a_key_that_the_metadata_does_not_name_is_not_used(repository: TufRepository) -> None:
    with pytest.raises(KeyProblem, match="none of the online keys"):
        repository.freshen([key("old-1"), key("old-2")], NOW + 20 * DAY)
    with pytest.raises(KeyProblem, match="none of the online keys"):
        repository.plan_signer([key("online-1")])
    assert repository.plan_signer(ONLINE).fleet == FLEET


def test_only_published_files_are_served(repository: TufRepository, house: House) -> None:
    (repository.folder / "secret").write_text("x")
    assert repository.file("timestamp.json") == house.newest["timestamp"]
    for name in ("secret", "../secret", ".lock", "7.root.json"):
        assert repository.file(name) is None


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem) as caught:
        TufRepository(tmp_path / "new").check(NOW)
    assert "reuna trust init" in caught.value.next_step
