"""The policy in force at a node follows its files at once, and the node's log says what is in force."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path

import pytest

from reuna.adapters.policy_store import PolicyStore
from reuna.exchange.site import Rules
from reuna.fleet.policy import sign_file, starter
from reuna.trust.policy import Signers
from tests.unit.trust.site import NOW, key, public

KEYS = {"dpo": public("dpo"), "ot": public("ot")}


def put(file: Path, serial: int, *names: str) -> Path:
    text = starter("company", "mill-3", date(2026, 11, 25), signers=KEYS)
    file.write_text(text.replace("serial = 1", f"serial = {serial}"))
    file.with_suffix(".sig").unlink(missing_ok=True)
    for name in names:
        sign_file(file, key(name))
    return file


def test_a_policy_pinned_after_its_file_came_is_taken_over_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, folder = put(tmp_path / "policy.toml", 1, "dpo", "ot"), tmp_path / "state"
    rules = Rules(PolicyStore(file, folder))
    for _ in range(2):
        assert rules(NOW).policy is None
    assert caplog.text.count(f"reuna policy pin {file} --folder {folder}") == 1, "with the command, and once"
    PolicyStore(file, folder).pin("mill-3", Signers(2, KEYS))
    assert rules(NOW + 1).policy is not None
    assert "policy 1 of mill-3 is in force, signed by dpo, ot" in caplog.text


def test_a_policy_with_too_few_signatures_is_said_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, folder = put(tmp_path / "policy.toml", 1, "dpo", "ot"), tmp_path / "state"
    PolicyStore(file, folder).pin("mill-3", Signers(2, KEYS))
    rules = Rules(PolicyStore(file, folder))
    before = rules(NOW).policy
    put(file, 2, "dpo")
    assert rules(NOW + 1).policy == before
    assert "signed by 1 of the 2" in caplog.text
    assert "serial 1 stays in force" in caplog.text
