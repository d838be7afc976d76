"""`reuna trust` as a person uses it, passphrase file included."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters import trust_keys
from reuna.cli import app
from reuna.core.errors import KeyProblem, SettingsError, Untrusted

RUN = CliRunner()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust_keys, "COST", 2**4)
    (tmp_path / "words").write_text("correct horse\n")
    monkeypatch.setenv("REUNA_PASSPHRASE_FILE", str(tmp_path / "words"))
    return tmp_path


def policy(*arguments: str) -> str:
    return command("policy", *arguments)


def reuna(*arguments: str, given: str | None = None) -> str:
    return command("trust", *arguments, given=given)


def command(*arguments: str, given: str | None = None) -> str:
    done = RUN.invoke(app, list(arguments), input=given, catch_exceptions=False)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_the_ceremony_from_the_page(place: Path) -> None:
    said = reuna("init", "--fleet", "line-4")
    assert "2 of 3 keys change it" in said
    (place / "detector.zip").write_bytes(b"code")
    assert "published" in reuna("add", "detector.zip", "--kind", "code")
    assert "published" in reuna("rotate", "online")
    assert "published" in reuna("renew", "root")
    assert "code/detector.zip" in reuna("show")
    found = json.loads(reuna("show", "--json"))
    assert found["roles"]["root"]["version"] == 3
    assert "published" in reuna("withdraw", "code/detector.zip")
    assert json.loads(reuna("publish", "--json"))["published"]
    assert "nothing is staged" in reuna("publish")


def test_a_roster_is_read_when_it_is_listed_and_stays_in_the_list(place: Path) -> None:
    reuna("init", "--fleet", "line-4")
    (place / "nodes.json").write_text('{"press-1": "acme", "oven-2": "borg"}')
    assert "published" in reuna("add", "nodes.json", "--kind", "roster")
    assert "published" in reuna("renew", "release")
    found = json.loads(reuna("show", "--json"))["targets"]
    assert [(each["path"], each["organisations"]) for each in found] == [
        ("rosters/fleet", {"press-1": "acme", "oven-2": "borg"})
    ]
    (place / "nodes.json").write_text("press-1 = acme")
    with pytest.raises(KeyProblem, match="is no roster"):
        reuna("add", "nodes.json", "--kind", "roster")


def test_a_signature_from_another_medium(place: Path) -> None:
    reuna("init", "--fleet", "line-4")
    stick = place / "stick"
    (place / "trust" / "keys").rename(stick)
    (place / "detector.zip").write_bytes(b"code")
    said = reuna("add", "detector.zip", "--kind", "code")
    assert "waits: code is not signed" in said
    for number in (1, 3):
        said = reuna("sign", "trust/staged/code.json", "--key", str(stick / f"code-{number}.key"))
        assert "code/detector.zip" in said
    assert "published" in reuna("publish")


def test_a_passphrase_is_asked_for_and_not_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REUNA_PASSPHRASE_FILE")
    said = reuna("init", "--fleet", "line-4", "--keys", "1", "--threshold", "1", given="secret\nsecret\n")
    assert "secret" not in said
    (place / "m.onnx").write_bytes(b"m")
    assert "secret" not in reuna("add", "m.onnx", "--kind", "release", given="secret\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("add", "nothing", "--kind", "code"),
        ("rotate", "everything"),
        ("sign", "nothing.json", "--key", "k"),
        ("init", "--fleet", "f", "--threshold", "9"),
        ("init", "--fleet", "f", "--passphrase-file", "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...]) -> None:
    with pytest.raises(KeyProblem) as caught:
        reuna(*arguments)
    assert caught.value.next_step.endswith(".")


def test_a_target_and_a_policy_template_are_taken_as_they_were_signed(place: Path) -> None:
    reuna("init", "--fleet", "line-4")
    (place / "pump.onnx").write_bytes(b"a pump's model")
    text = resources.files("reuna.fleet").joinpath("policies", "company.toml").read_text(encoding="utf-8")
    (place / "works.toml").write_text(text.replace("min_samples = 50", "min_samples = 77"))
    reuna("add", "pump.onnx", "--kind", "release", "--name", "pump")
    reuna("add", "works.toml", "--kind", "policy-template", "--name", "works")
    with pytest.raises(KeyProblem, match="nothing is trusted"):
        reuna("fetch", "releases/pump")
    assert "14 bytes" in reuna("fetch", "releases/pump", "-o", "got", "--root", "trust/root.json")
    assert (place / "got").read_bytes() == b"a pump's model"
    assert "works  version 1" in reuna("templates")
    assert json.loads(reuna("templates", "--json"))[0]["path"] == "policy-templates/works"
    policy("init", "--template", "works", "--site", "mill-3")
    assert "min_samples = 77" in (place / "policy.toml").read_text()
    assert 'site = "mill-3"' in (place / "policy.toml").read_text()
    for kind in ("--preset", "--template"):
        with pytest.raises(SettingsError if kind == "--preset" else Untrusted):
            policy("init", kind, "other", "--site", "mill-3", "--out", "other.toml")
    with pytest.raises(SettingsError, match="preset or a template"):
        policy("init", "--site", "mill-3", "--out", "other.toml")


@pytest.mark.parametrize("change", [b"\xff\xfe", b"site = 3\n"])
def test_a_template_that_was_changed_or_is_no_policy_writes_nothing(place: Path, change: bytes) -> None:
    reuna("init", "--fleet", "line-4")
    (place / "works.toml").write_bytes(change)
    reuna("add", "works.toml", "--kind", "policy-template", "--name", "works")
    begin = ("init", "--template", "works", "--site", "mill-3", "--root", "trust/root.json")
    with pytest.raises((Untrusted, SettingsError)):
        policy(*begin)
    (kept,) = (place / "trust" / "targets").iterdir()
    kept.write_bytes(change[::-1])
    with pytest.raises(Untrusted, match="not policy-templates/works as it was signed"):
        policy(*begin)
    assert not (place / "policy.toml").exists()


def test_an_older_fleet_folder_is_refused_by_who_has_seen_a_newer_one(place: Path) -> None:
    reuna("init", "--fleet", "line-4")
    (place / "works.toml").write_bytes(b"one")
    reuna("add", "works.toml", "--kind", "release", "--name", "works")
    shutil.copytree(place / "trust", place / "old")
    reuna("withdraw", "releases/works")
    with pytest.raises(Untrusted, match="does not name"):
        reuna("fetch", "releases/works", "--root", "trust/root.json")
    with pytest.raises(Untrusted) as caught:
        reuna("fetch", "releases/works", "--from", "old")
    assert caught.value.reason == "version"
    reuna("fetch", "releases/works", "--from", "old", "--seen", "other", "--root", "trust/root.json")
    assert (place / "works").read_bytes() == b"one"


def test_a_node_takes_what_it_has_accepted_itself(place: Path) -> None:
    reuna("init", "--fleet", "line-4")
    (place / "works.toml").write_bytes(b"one")
    reuna("add", "works.toml", "--kind", "release", "--name", "works")
    with pytest.raises(KeyProblem, match="has accepted no metadata"):
        reuna("fetch", "releases/works", "--node", "state")
    reuna("fetch", "releases/works", "--seen", "state/trust", "--root", "trust/root.json", "-o", "x")
    reuna("withdraw", "releases/works")
    shutil.rmtree(place / "trust" / "public")
    assert "3 bytes" in reuna("fetch", "releases/works", "--node", "state")
