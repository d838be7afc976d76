"""Who lets a bundle run on a fleet: by itself where all keys lie in its folder, else people."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reuna.adapters.policy_store import read_policy
from reuna.core.errors import KeyProblem
from reuna.fleet.code import allow_code, bundle_name, is_vouched, packed
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.trust import Ceremony, add_bytes
from reuna.template import make_project
from reuna.wire import digest_bytes

CODE = b"a bundle"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    data = tmp_path / "data"
    data.mkdir()
    return make_fleet(tmp_path / "fleet", "local", {"fog-1": {"edge-1": data, "edge-2": data}})


def test_a_fleet_with_all_its_keys_signs_once_and_keeps_what_it_signed_before(fleet: Fleet) -> None:
    first = allow_code(fleet, CODE, "detector")
    assert (first.vouched, first.signed, first.sites) == (True, True, 2)
    again = allow_code(fleet, CODE, "detector")
    assert (again.vouched, again.signed, again.sites) == (True, False, 0)
    allow_code(fleet, b"the next one", "detector")
    trust = fleet.folder / "trust"
    assert is_vouched(trust, digest_bytes(CODE))
    assert is_vouched(trust, digest_bytes(b"the next one"))
    allowed = read_policy(fleet.folder / "edge-1" / "policy.toml").code.allow
    assert [entry.digest for entry in allowed] == [digest_bytes(CODE), digest_bytes(b"the next one")]


def test_a_fog_whose_releases_answer_is_asked_for_its_policy_too(fleet: Fleet, tmp_path: Path) -> None:
    (place,) = fleet.of("fog")
    place.settings.write_text(f'{place.settings.read_text()}\n[inference]\ndata = "{tmp_path}"\n')
    assert allow_code(fleet, CODE, "detector").sites == 3
    allowed = read_policy(place.folder / "policy.toml").code.allow
    assert [entry.digest for entry in allowed] == [digest_bytes(CODE)]


@pytest.mark.parametrize("gone", ["trust/keys/code-1.key", "officer/officer.key"])
def test_a_fleet_without_one_of_the_keys_leaves_the_list_to_people(fleet: Fleet, gone: str) -> None:
    (fleet.folder / gone).unlink()
    found = allow_code(fleet, CODE, "detector")
    assert (found.vouched, found.signed) == (False, False)
    assert not is_vouched(fleet.folder / "trust", digest_bytes(CODE))


def test_a_projects_folder_gives_the_bundle_that_a_run_sends(tmp_path: Path) -> None:
    make_project(tmp_path / "detector", sample=False)
    data, name = packed(tmp_path / "detector")
    assert name == f"detector-{digest_bytes(data)[:12]}"
    (tmp_path / "detector" / "reuna.toml").write_text("# configuration needs no signature\n")
    assert packed(tmp_path / "detector") == (data, name)


@pytest.mark.parametrize("project", ["Detector", "my detector", "", "../x"])
def test_a_project_whose_name_is_none_for_a_target_is_listed_by_its_digest(project: str) -> None:
    digest = digest_bytes(CODE)
    assert bundle_name(project, digest) == digest


def test_a_target_over_the_limit_of_its_kind_is_not_listed(fleet: Fleet) -> None:
    ceremony = Ceremony(fleet.folder / "trust", time.time(), lambda _: b"")
    with pytest.raises(KeyProblem, match="bytes"):
        add_bytes(ceremony, b"#" * (256 * 1024 + 1), "policy-template", "long")
