"""An officer approves code: under their own name, never twice, and again when an approval has ended."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reuna.adapters.policy_store import read_policy
from reuna.core.errors import KeyProblem
from reuna.fleet.officer import approve_as_signer
from reuna.fleet.policy import starter
from tests.unit.trust.site import key, public

CODE = "c" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "policy.toml"
    signers = {"dpo": public("dpo"), "ot-owner": public("ot")}
    made.write_text(starter("company", "mill-3", datetime.now(UTC).date(), signers=signers))
    return made


def test_the_name_of_the_officer_is_that_of_the_key(file: Path) -> None:
    found = approve_as_signer(file, key("ot"), CODE)
    (entry,) = read_policy(file).code.allow
    assert (entry.digest, entry.approved_by) == (CODE, ("ot-owner",))
    assert (found["serial"], found["signed_by"], found["signed"]) == (2, ["ot-owner"], False)


def test_a_key_that_the_policy_does_not_name_approves_nothing(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(KeyProblem, match="names no officer"):
        approve_as_signer(file, key("mallory"), CODE)
    assert file.read_bytes() == before


def test_code_that_is_allowed_already_is_not_signed_unseen(file: Path) -> None:
    approve_as_signer(file, key("dpo"), CODE)
    before = file.read_bytes()
    found = approve_as_signer(file, key("ot"), CODE)
    assert (file.read_bytes(), found["signed_by"]) == (before, ["dpo"])


def test_an_approval_that_has_ended_can_be_given_again(file: Path) -> None:
    approve_as_signer(file, key("dpo"), CODE)
    file.write_text(re.sub(r"(?m)^until = .*$", "until = 2020-01-01", file.read_text()))
    approve_as_signer(file, key("dpo"), CODE)
    assert [entry.until.year > 2020 for entry in read_policy(file).code.allow] == [False, True]
