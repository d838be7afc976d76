"""The cloud says at each start that keys lie beside it which belong elsewhere."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters.clock import SystemClock
from reuna.cli import app
from reuna.cloud.sign import Signing
from reuna.core.errors import KeyProblem
from reuna.fleet.trust import Ceremony, init, rotate, take_over
from reuna.trust.stages import Stage


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    """What a ceremony elsewhere made."""
    folder = tmp_path / "elsewhere"
    init(Ceremony(folder, time.time(), lambda _: b"words"), "line-4", 3, 2, b"words")
    return folder


def test_offline_keys_beside_the_cloud_are_named_at_each_start(
    offline: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        caplog.clear()
        Signing(offline, SystemClock())
        (said,) = caplog.messages
        assert f"{offline / 'keys'} holds offline keys: code-1, code-2, code-3, release-1," in said
        assert "reuna trust init" in said


def test_a_cloud_made_from_a_ceremony_elsewhere_has_no_such_key_and_can_sign(
    offline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = ["site", "cloud", "line-4", "--folder", str(tmp_path / "cloud"), "--trust", str(offline)]
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    assert "NOT LOCKED" not in made.output
    trust = tmp_path / "cloud" / "trust"
    assert sorted(path.name for path in trust.rglob("*.key")) == ["online-1.key", "plans-1.key"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in trust.rglob("*.key"))
    assert (trust / "root.json").read_bytes() == (offline / "root.json").read_bytes()
    with caplog.at_level(logging.WARNING):
        Signing(trust, SystemClock()).seal(b"a plan")
    assert not caplog.messages


def test_the_trust_of_another_fleet_and_half_a_folder_are_refused(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="'line-4', not 'line-5'"):
        take_over(offline, tmp_path / "trust", "line-5", 1.0)
    for key in (offline / "online").iterdir():
        key.unlink()
    with pytest.raises(KeyProblem, match="no online key"):
        take_over(offline, tmp_path / "trust", "line-4", 1.0)
    assert not (tmp_path / "trust").exists()


def test_the_cloud_says_once_which_release_runs_where(offline: Path) -> None:
    signing = Signing(offline, SystemClock())
    signing.stage([Stage("pumps", 4, "a" * 64)])
    version = signing.repository.version("plans")
    signing.stage([Stage("pumps", 4, "a" * 64)])
    assert signing.repository.version("plans") == version, "the same again is no news"
    signing.stage([])
    assert signing.repository.stages() == ()


def test_new_keys_for_plans_leave_the_stages_as_they_were(offline: Path) -> None:
    Signing(offline, SystemClock()).stage([Stage("pumps", 4, "a" * 64)])
    assert rotate(Ceremony(offline, time.time(), lambda _: b"words"), "online", b"words") == {}
    assert Signing(offline, SystemClock()).repository.stages() == (Stage("pumps", 4, "a" * 64),)
