"""`reuna policy` as a data officer uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters import trust_keys
from reuna.cli import app
from reuna.core.errors import KeyProblem, ReunaError, SettingsError

RUN = CliRunner()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust_keys, "COST", 2**4)
    monkeypatch.delenv("REUNA_PASSPHRASE_FILE", raising=False)
    return tmp_path


def reuna(*arguments: str, given: str | None = None) -> str:
    done = RUN.invoke(app, ["policy", *arguments], input=given, catch_exceptions=False)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def started(preset: str = "company", out: str = "policy.toml") -> None:
    signers = []
    for name in ("dpo", "ot-owner"):
        if not Path(f"{name}.key").exists():
            Path(f"{name}.pub").write_text(reuna("key", name, "--out", f"{name}.key").strip())
        signers += ["--signer", Path(f"{name}.pub").read_text()]
    reuna(
        "init",
        "--preset",
        preset,
        "--site",
        "mill-3",
        "--fleet",
        "line-4",
        "--fog",
        "north",
        *signers,
        "--out",
        out,
    )


def test_the_way_of_the_page_from_keys_to_a_pinned_node() -> None:
    started()
    assert Path("dpo.key").stat().st_mode & 0o777 == 0o600
    said = reuna("sign", "policy.toml", "--key", "dpo.key")
    assert "What never leaves:" in said
    assert "signed by 1 of 2: dpo" in said
    assert json.loads(reuna("show", "--json"))["signed"] is False
    assert "signed by 2 of 2: dpo, ot-owner" in reuna("sign", "policy.toml", "--key", "ot-owner.key")
    assert json.loads(reuna("show", "--json"))["signed"] is True
    assert "flows[1] model_update" in reuna("show")
    assert "2 of these must sign" in reuna("pin", "policy.toml", "--folder", "node")
    assert "2 of these must sign" in reuna("pin", "policy.toml", "--folder", "node")


def test_a_policy_is_explained_without_a_word_of_a_program() -> None:
    started("companies")
    said = reuna("explain")
    assert "to cloud (spiffe://line-4/cloud/cloud)" in said
    assert "the sum is over at least 3 nodes" in said
    assert "raw: rows of data" in said.split("What never leaves:")[1]
    assert json.loads(reuna("explain", "--json")) == said.splitlines()


def test_a_difference_says_what_is_allowed_now_and_what_no_longer() -> None:
    started()
    started("companies", "new.toml")
    said = reuna("diff", "policy.toml", "new.toml")
    assert "no longer allows: log to cloud (spiffe://line-4/cloud/cloud)" in said
    assert "now allows: log to cloud" in reuna("diff", "new.toml", "policy.toml")
    assert json.loads(reuna("diff", "policy.toml", "new.toml", "--json"))["now_allows"] == []
    Path("same.toml").write_text("# a remark\n" + Path("policy.toml").read_text())
    assert reuna("diff", "policy.toml", "same.toml") == "no difference in what is allowed\n"


def test_a_policy_is_tried_on_an_export() -> None:
    started()
    asked = {"kind": "metric", "to": "spiffe://line-4/cloud/cloud", "bytes": 90, "now": 1.8e9}
    lines = [asked, {**asked, "metrics": ["shift_leader"]}]
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = reuna("simulate", "policy.toml", "--ledger", "asked.jsonl")
    assert "refused: the metric 'shift_leader' is not on the rule's list (flows[2] metric)" in said
    assert said.endswith("1 allowed, 1 refused, 0 only later\n")
    assert json.loads(reuna("simulate", "policy.toml", "--ledger", "asked.jsonl", "--json"))["refused"] == 1


def test_a_locked_key_asks_for_its_passphrase_and_does_not_show_it(place: Path) -> None:
    public = reuna("key", "dpo", "--out", "dpo.key", "--lock", given="secret\nsecret\n").splitlines()[-1]
    assert trust_keys.is_locked(place / "dpo.key")
    reuna("init", "--preset", "research", "--site", "lab", "--signer", public)
    assert "signed by 1 of 1" in (said := reuna("sign", "policy.toml", "--key", "dpo.key", given="secret\n"))
    assert "secret" not in said


def test_a_draft_and_a_stale_signature_are_said() -> None:
    assert "names no signer" in reuna("init", "--preset", "research", "--site", "lab")
    assert "a draft" in reuna("show")
    started(out="signed.toml")
    reuna("sign", "signed.toml", "--key", "dpo.key")
    file = Path("signed.toml")
    file.write_text(file.read_text().replace("min_samples = 50", "min_samples = 5"))
    assert "1 signatures are of another text" in reuna("show", "signed.toml")
    assert "1 signatures were of an older text" in reuna("sign", "signed.toml", "--key", "dpo.key")
    reuna("key", "guest", "--out", "guest.key")
    assert "is no signer of this policy" in reuna("sign", "signed.toml", "--key", "guest.key")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("show",), SettingsError),
        (("explain", "nothing.toml"), SettingsError),
        (("diff", "a", "b"), SettingsError),
        (("simulate", "a", "--ledger", "b"), SettingsError),
        (("sign", "a", "--key", "b"), SettingsError),
        (("pin", "a"), SettingsError),
        (("init", "--preset", "x", "--site", "mill-3"), SettingsError),
        (("init", "--preset", "company", "--site", "mill-3", "--signer", "dpo"), SettingsError),
        (("init", "--preset", "company", "--site", "m", "--signer", "a=1", "--signer", "a=2"), SettingsError),
        (("key", "../dpo", "--out", "k"), KeyProblem),
    ],
)
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], kind: type[ReunaError]) -> None:
    with pytest.raises(kind) as caught:
        reuna(*arguments)
    assert caught.value.next_step.endswith(".")


def test_nothing_is_written_over(place: Path) -> None:
    started()
    with pytest.raises(SettingsError, match="is there already"):
        started()
    with pytest.raises(KeyProblem, match="is there already"):
        reuna("key", "dpo", "--out", "dpo.key")


def test_a_key_in_a_folder_that_was_made_for_it_says_where_it_is(tmp_path: Path) -> None:
    done = RUN.invoke(app, ["policy", "key", "anna", "--out", str(tmp_path / "new" / "anna.key")])
    assert f"{tmp_path / 'new' / 'anna.key'}" in done.stderr
    assert done.stdout.startswith("anna=")
