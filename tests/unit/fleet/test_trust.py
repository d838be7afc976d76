"""The ceremony from its first key to its recovery, with a node that looks on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reuna.adapters import trust_keys
from reuna.core.errors import KeyProblem, Untrusted
from reuna.fleet import trust
from reuna.fleet.trust import Ceremony
from reuna.trust.metadata import TrustState, begin, complete, update
from reuna.trust.targets import target
from tests.unit.trust.house import NOW

FLEET = "line-4"
WORDS = b"correct horse"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase costs little here."""
    monkeypatch.setattr(trust_keys, "COST", 2**4)


def ceremony(folder: Path, now: float = NOW) -> Ceremony:
    return Ceremony(folder, now, lambda _: WORDS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    trust.init(ceremony(tmp_path / "trust"), FLEET, 3, 2, WORDS)
    return tmp_path / "trust"


def node(folder: Path, state: TrustState | None = None, now: float = NOW) -> TrustState:
    state = state or begin(FLEET, (folder / "public" / "1.root.json").read_bytes())
    return update(state, ceremony(folder).repository.file, now)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    file = tmp_path / "detector.zip"
    file.write_bytes(b"bundle")
    return file


def test_a_new_fleet_is_trusted_by_its_root_alone(folder: Path) -> None:
    assert complete(node(folder))
    assert (folder / "root.json").read_bytes() == (folder / "public" / "1.root.json").read_bytes()
    assert all(trust_keys.is_locked(path) for path in (folder / "keys").iterdir())


@pytest.mark.parametrize(("keys", "threshold"), [(1, 2), (3, 0), (0, 0), (40, 2)])
def test_a_threshold_that_cannot_be_met_is_refused(tmp_path: Path, keys: int, threshold: int) -> None:
    with pytest.raises(KeyProblem, match="cannot sign"):
        trust.init(ceremony(tmp_path), FLEET, keys, threshold, WORDS)


def test_a_second_root_is_not_made_over_the_first(folder: Path) -> None:
    with pytest.raises(KeyProblem, match="has a root already"):
        trust.init(ceremony(folder), FLEET, 1, 1, WORDS)


def test_what_is_added_may_come_down_and_what_is_withdrawn_may_not(folder: Path, bundle: Path) -> None:
    assert trust.add(ceremony(folder), bundle, "code", "detector") == {}
    assert trust.add(ceremony(folder), bundle, "release", "detector") == {}
    state = node(folder)
    found = target(state, "code/detector", NOW)
    assert (folder / "targets" / found.digest).read_bytes() == b"bundle"
    bundle.write_bytes(b"second")
    trust.add(ceremony(folder), bundle, "code", "detector")
    state = node(folder, state)
    assert target(state, "code/detector", NOW).version == 2
    trust.withdraw(ceremony(folder), "code/detector")
    with pytest.raises(Untrusted):
        target(node(folder, state), "code/detector", NOW)


@pytest.mark.parametrize(("kind", "name"), [("mirror", "x"), ("code", "../x"), ("code", "")])
def test_a_target_of_no_kind_or_name_is_refused(folder: Path, bundle: Path, kind: str, name: str) -> None:
    with pytest.raises(KeyProblem):
        trust.add(ceremony(folder), bundle, kind, name)
    with pytest.raises(KeyProblem):
        trust.withdraw(ceremony(folder), "code/nothing")


@pytest.mark.parametrize("what", ["root", "release", "code", "online"])
def test_a_node_follows_every_rotation(folder: Path, bundle: Path, what: str) -> None:
    trust.add(ceremony(folder), bundle, "code", "detector")
    state = node(folder)
    assert trust.rotate(ceremony(folder), what, WORDS) == {}
    state = node(folder, state)
    assert target(state, "code/detector", NOW)
    assert trust.rotate(ceremony(folder), what, WORDS) == {}
    assert complete(node(folder, state))
    assert complete(node(folder))  # also one that was long away


def test_old_keys_are_good_for_nothing_after_a_rotation(folder: Path, bundle: Path) -> None:
    trust.rotate(ceremony(folder), "code", WORDS)
    for number in (4, 5, 6):
        (folder / "keys" / f"code-{number}.key").unlink()
    lacking = trust.add(ceremony(folder), bundle, "code", "evil")
    assert "signed by 0/2" in lacking["code"]


def test_officers_sign_one_after_the_other_on_their_own_machines(
    folder: Path, bundle: Path, tmp_path: Path
) -> None:
    for number, person in enumerate("abc", 1):
        (tmp_path / person).mkdir()
        shutil.move(folder / "keys" / f"code-{number}.key", tmp_path / person)
    state = node(folder)
    lacking = trust.add(ceremony(folder), bundle, "code", "detector")
    assert list(lacking) == ["code"]
    assert node(folder, state) == state  # nothing is published before the threshold
    staged = folder / "staged" / "code.json"
    assert trust.describe(staged)[0].startswith("code 2, until ")
    trust.sign_file(staged, trust_keys.read_key(tmp_path / "a" / "code-1.key", WORDS))
    assert "signed by 1/2" in ceremony(folder).settle()["code"]
    trust.sign_file(staged, trust_keys.read_key(tmp_path / "c" / "code-3.key", WORDS))
    assert ceremony(folder).settle() == {}
    assert target(node(folder, state), "code/detector", NOW)


def test_one_lost_root_key_of_three_is_replaced_by_the_other_two(folder: Path) -> None:
    (folder / "keys" / "root-3.key").unlink()
    state = node(folder)
    assert trust.rotate(ceremony(folder), "root", WORDS) == {}
    assert node(folder, state).root.version == 2


def test_without_the_old_threshold_a_root_waits(folder: Path) -> None:
    for number in (2, 3):
        (folder / "keys" / f"root-{number}.key").unlink()
    lacking = trust.rotate(ceremony(folder), "root", WORDS)
    assert "signed by 1/2" in lacking["root"]
    assert node(folder).root.version == 1


def test_stolen_online_keys_are_out_after_one_rotation(folder: Path) -> None:
    stolen = ceremony(folder).online_keys()
    state = node(folder)
    trust.rotate(ceremony(folder), "online", None)
    state = node(folder, state)
    repository = ceremony(folder).repository
    with pytest.raises(KeyProblem):
        repository.freshen(stolen, NOW + 30 * 86_400)
    with pytest.raises(KeyProblem):
        repository.plan_signer(stolen)
    assert complete(state)


def test_the_cloud_goes_on_while_a_rotation_waits(folder: Path) -> None:
    for path in (folder / "keys").glob("root-*.key"):
        path.unlink()
    assert trust.rotate(ceremony(folder), "online", None)
    made = ceremony(folder)
    assert made.repository.freshen(made.online_keys(), NOW + 86_400)
    assert made.repository.plan_signer(made.online_keys())


@pytest.mark.parametrize("what", ["root", "release", "code"])
def test_a_role_lives_on_when_it_is_renewed(folder: Path, what: str) -> None:
    late = NOW + 360 * 86_400
    for each in ("root", "release", "code"):
        if each != what:
            trust.renew(ceremony(folder, late), each)
    with pytest.raises(Untrusted):
        node(folder, now=NOW + 370 * 86_400)
    trust.renew(ceremony(folder, late), what)
    made = ceremony(folder, NOW + 370 * 86_400)
    made.repository.freshen(made.online_keys(), made.now)
    assert complete(node(folder, now=made.now))


@pytest.mark.parametrize("what", ["online", "plans", "x"])
def test_what_is_not_renewed_by_hand_is_said(folder: Path, what: str) -> None:
    with pytest.raises(KeyProblem):
        trust.renew(ceremony(folder), what)
    if what != "online":
        with pytest.raises(KeyProblem):
            trust.rotate(ceremony(folder), what, None)


def test_a_fleet_on_one_machine_gets_trust_without_a_person(tmp_path: Path) -> None:
    root = trust.make_trust(tmp_path, FLEET, NOW)
    assert complete(update(begin(FLEET, root), ceremony(tmp_path).repository.file, NOW))


def test_the_overview_names_roles_targets_and_what_waits(folder: Path, bundle: Path) -> None:
    trust.add(ceremony(folder), bundle, "code", "detector")
    for path in (folder / "keys").glob("release-*.key"):
        path.unlink()
    trust.add(ceremony(folder), bundle, "release", "detector")
    found = trust.overview(ceremony(folder))
    assert found["fleet"] == FLEET
    assert found["roles"]["root"]["threshold"] == 2
    assert [each["path"] for each in found["targets"]] == ["code/detector"]
    assert "signed by 0/2" in found["staged"]["targets"]


def test_a_release_is_listed_with_what_it_is_of_and_where_it_may_go(folder: Path) -> None:
    from tests.releases import release

    trust.add_bytes(ceremony(folder), release(3), "release", "pumps", where=("north", "e1", "north"))
    (found,) = ceremony(folder).listed("targets")
    assert (found.project, found.number, found.where) == ("pumps", 3, ("e1", "north"))
    trust.add_bytes(ceremony(folder), b"a model of another kind", "release", "old")
    assert {each.path: each.project for each in ceremony(folder).listed("targets")} == {
        "releases/pumps": "pumps",
        "releases/old": "",
    }


@pytest.mark.parametrize(
    ("kind", "where", "why"),
    [("release", "North", "no name of a node"), ("release", "north", "is no release"),
     ("policy-template", "north", "for every node")],
)  # fmt: skip
def test_places_are_names_and_only_releases_have_them(folder: Path, kind: str, where: str, why: str) -> None:
    with pytest.raises(KeyProblem, match=why):
        trust.add_bytes(ceremony(folder), b"no release", kind, "pumps", where=(where,))
    assert ceremony(folder).listed("targets") == []
