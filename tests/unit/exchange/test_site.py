"""The policy in force at a node follows its files at once, and the node's log says what is in force."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path

import pytest

from reuna.adapters.policy_store import PolicyStore
from reuna.exchange.site import LOOK_S, Rules
from reuna.fleet.policy import sign_file, starter
from reuna.trust.policy import Signers
from tests.unit.trust.site import NOW, key, public

KEYS = {"dpo": public("dpo"), "ot": public("ot")}


def put(file: Path, serial: int, *names: str) -> Path:
    text = starter("company", "mill-3", date(2026, 11, 25), signers=KEYS)
    text = text.replace("/etc/reuna/STOP", str(file.with_name("STOP")))
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


def test_what_was_read_is_at_hand_until_files_change_or_it_is_to_be_judged_again(tmp_path: Path) -> None:
    file, folder = put(tmp_path / "policy.toml", 1, "dpo", "ot"), tmp_path / "state"
    PolicyStore(file, folder).pin("mill-3", Signers(2, KEYS))
    rules = Rules(PolicyStore(file, folder))
    assert rules.at_hand(NOW) is None
    rules(NOW)  # which keeps it, so that the files are others
    found = rules(NOW)
    assert found.policy is not None
    assert rules.at_hand(NOW + LOOK_S / 2) == found
    assert rules.at_hand(NOW + LOOK_S) is None
    assert rules.at_hand(NOW - 1) is None, "a clock that was set back"
    put(file, 2, "dpo", "ot")
    assert rules.at_hand(NOW) is None
    rules(NOW)
    second = rules(NOW)
    assert second.policy is not None
    assert second.policy.serial == 2
    assert rules.at_hand(NOW) == second
    file.with_name("STOP").touch()
    stopped = rules.at_hand(NOW)
    assert stopped is not None
    assert stopped.stopped
