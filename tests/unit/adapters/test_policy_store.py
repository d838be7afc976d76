"""A node's policy on its disk: what is in force after every way in which the files may lie there."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from reuna.adapters import files
from reuna.adapters.policy_store import PolicyStore, is_stopped, read_policy, read_signatures
from reuna.core.errors import Corrupted, DiskFull, KeyProblem, SettingsError
from reuna.fleet.policy import sign_file, starter
from reuna.trust.policy import MAX_POLICY, Signers
from tests.unit.trust.site import NOW, key, policy, public

TODAY = date(2026, 11, 25)
KEYS = {"dpo": public("dpo"), "ot": public("ot")}
SIGNERS = Signers(2, KEYS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return put(tmp_path / "policy.toml")


def put(file: Path, serial: int = 1, names: tuple[str, ...] = ("dpo", "ot"), site: str = "mill-3") -> Path:
    """A policy of that serial, signed by these."""
    text = starter("company", site, TODAY, signers=KEYS).replace("serial = 1", f"serial = {serial}")
    file.write_text(text)
    file.with_suffix(".sig").unlink(missing_ok=True)
    for name in names:
        sign_file(file, key(name))
    return file


def store(file: Path) -> PolicyStore:
    found = PolicyStore(file, file.parent / "state")
    found.pin("mill-3", SIGNERS)
    return found


def test_a_signed_policy_is_in_force_also_after_a_restart(file: Path) -> None:
    for _ in range(2):
        found = store(file).load(NOW)
        assert found.policy == read_policy(file)
        assert (found.signed_by, found.problem) == (("dpo", "ot"), "")


def test_without_a_pin_nothing_is_in_force(file: Path) -> None:
    found = PolicyStore(file, file.parent / "state").load(NOW)
    assert found.policy is None
    assert "not told yet" in found.problem


def test_a_missing_policy_stops_the_site_even_after_one_was_in_force(file: Path) -> None:
    assert store(file).load(NOW).policy
    file.unlink()
    found = store(file).load(NOW)
    assert (found.policy, "there is no file" in found.problem) == (None, True)


def test_an_unsigned_policy_is_not_in_force(file: Path) -> None:
    file.with_suffix(".sig").unlink()
    found = store(file).load(NOW)
    assert found.policy is None
    assert "signed by 0 of the 2" in found.problem


@pytest.mark.parametrize(
    "fault", ["unsigned", "half signed", "broken", "of another site", "not text", "too long"]
)
def test_a_new_policy_that_is_not_accepted_leaves_the_one_before(file: Path, fault: str) -> None:
    before = store(file).load(NOW)
    if fault == "broken":
        put(file, 2).write_text("serial = ")
    elif fault == "not text":
        put(file, 2).write_bytes(b"\xff\xfe")
    elif fault == "too long":
        put(file, 2).write_text("#" * (MAX_POLICY + 1))
    elif fault == "of another site":
        put(file, 2, site="mill-4")
    else:
        put(file, 2, ("dpo",) if fault == "half signed" else ())
    found = store(file).load(NOW)
    assert (found.policy, found.digest) == (before.policy, before.digest)
    assert "is not accepted" in found.problem
    assert "serial 1 stays in force" in found.problem
    assert store(put(file, 2)).load(NOW).policy == read_policy(file)


def test_an_older_policy_does_not_come_back(file: Path) -> None:
    store(put(file, 5)).load(NOW)
    found = store(put(file, 4)).load(NOW)
    assert found.policy
    assert found.policy.serial == 5
    assert "serial 4 is lower than 5" in found.problem


def test_the_policy_before_ends_with_its_last_day(file: Path) -> None:
    store(file).load(NOW)
    put(file, 2, ())
    found = store(file).load(NOW + 365 * 86_400)
    assert found.policy is None
    assert "the policy held to the end of" in found.problem


def test_the_floor_is_durable_before_a_policy_is_in_force(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = store(file)

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(DiskFull):
        found.load(NOW)
    monkeypatch.undo()
    assert found.load(NOW).policy
    assert not list((file.parent / "state").glob("*.part"))


def test_every_flipped_byte_of_the_floor_is_noticed(file: Path) -> None:
    store(file).load(NOW)
    kept = file.parent / "state" / "policy"
    data = kept.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600
    for place in [*range(0, len(data), 97), len(data) - 1]:
        kept.write_bytes(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])
        with pytest.raises(Corrupted, match="is damaged"):
            PolicyStore(file, file.parent / "state").load(NOW)
    for short in (b"", data[:40]):
        kept.write_bytes(short)
        with pytest.raises(Corrupted):
            PolicyStore(file, file.parent / "state").load(NOW)


def test_other_signers_cannot_be_pinned_over_the_first(file: Path) -> None:
    found = store(file)
    with pytest.raises(KeyProblem, match="belongs to mill-3 already"):
        found.pin("mill-3", Signers(1, {"mallory": public("mallory")}))
    with pytest.raises(KeyProblem):
        found.pin("mill-4", SIGNERS)


@pytest.mark.parametrize("signers", [Signers(1, {}), Signers(3, KEYS), Signers(0, KEYS)])
def test_signers_that_could_never_sign_are_not_pinned(tmp_path: Path, signers: Signers) -> None:
    with pytest.raises(KeyProblem, match="cannot be asked to sign"):
        PolicyStore(tmp_path / "policy.toml", tmp_path / "state").pin("mill-3", signers)


def test_the_kill_switch_is_a_file(tmp_path: Path) -> None:
    switch = tmp_path / "STOP"
    found = policy(kill_switch=str(switch))
    assert not is_stopped(found)
    switch.symlink_to("nowhere")  # whatever lies there counts
    assert is_stopped(found)
    assert not is_stopped(policy(kill_switch=""))


def test_a_kill_switch_that_cannot_be_looked_at_counts_as_on(tmp_path: Path) -> None:
    assert is_stopped(policy(kill_switch=str(tmp_path / ("x" * 300))))


def test_reading_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no file"):
        read_policy(tmp_path / "policy.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_policy(tmp_path)
    assert read_signatures(tmp_path / "policy.toml") == ()
