"""`reuna trust` as a person uses it, passphrase file included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters import trust_keys
from reuna.cli import app
from reuna.core.errors import KeyProblem

RUN = CliRunner()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust_keys, "COST", 2**4)
    (tmp_path / "words").write_text("correct horse\n")
    monkeypatch.setenv("REUNA_PASSPHRASE_FILE", str(tmp_path / "words"))
    return tmp_path


def reuna(*arguments: str, given: str | None = None) -> str:
    done = RUN.invoke(app, ["trust", *arguments], input=given, catch_exceptions=False)
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
