"""What is typed on a place's own machine stands in its trail: before the effect, and when it failed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reuna.adapters.toml_file import read_toml
from reuna.cli import app
from reuna.cloud.settings import CLOUD
from reuna.core.errors import AccountProblem, NotAdmitted, ReunaError
from reuna.core.settings import parse
from reuna.fleet.admit import Desk, make_cloud
from reuna.fleet.people import Office
from reuna.fleet.trail import Trail

PASSWORD = "four words in a row"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    file = make_cloud(tmp_path / "cloud", "line-4", "127.0.0.1")
    found = Desk.of(parse(CLOUD, [read_toml(file)]), "fog")
    yield found
    found.register.close()


def said(trail: Trail) -> list[tuple[str, str, str]]:
    return [(each["what"], each["target"], each["verdict"]) for each in trail.read()]


def test_who_is_taken_in_and_put_out_stands_in_the_trail(desk: Desk) -> None:
    desk.invite("mill-3", 1.0, 60.0)
    desk.cancel("mill-3", 2.0)
    with pytest.raises(NotAdmitted):
        desk.revoke("nobody", 3.0, "stolen")
    with pytest.raises(NotAdmitted):
        desk.rename("nobody", "somebody", 4.0, 60.0)
    desk.new_operator("operator", 5.0)
    code = NotAdmitted.code
    assert said(desk.trail) == [
        ("site.operator", "operator", "allowed"),
        ("site.invite", "mill-3", "allowed"),
        ("site.cancel", "mill-3", "allowed"),
        ("node.revoke", "nobody", "allowed"),
        ("node.revoke", "nobody", f"failed {code}"),
        ("node.rename", "nobody", "allowed"),
        ("node.rename", "nobody", f"failed {code}"),
        ("site.operator", "operator", "allowed"),
    ]


def test_an_account_that_is_there_already_is_a_failure(tmp_path: Path) -> None:
    office = Office({"folder": str(tmp_path)})
    office.add("anna", ["viewer"], PASSWORD)
    with pytest.raises(AccountProblem):
        office.add("anna", ["admin"], PASSWORD)
    with pytest.raises(AccountProblem):
        office.add("ben", ["king"], PASSWORD)
    office.close()
    assert [verdict for _, _, verdict in said(Trail(tmp_path))] == [
        "allowed", "allowed", f"failed {AccountProblem.code}", "allowed", f"failed {AccountProblem.code}",
    ]  # fmt: skip


def test_the_line_is_there_before_the_effect(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    with trail.doing("node.revoke", "press-1", reason="x" * 1000):
        (line,) = trail.read()
    assert (line["verdict"], len(line["reason"]), len(trail.read())) == ("allowed", 200, 1)
    with pytest.raises(ReunaError), trail.doing("node.revoke", "press-1"):
        raise ReunaError("it is not there")
    assert trail.read()[-1]["verdict"] == f"failed {ReunaError.code}"


def test_a_trust_folder_has_a_trail_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, secret = tmp_path / "trust", tmp_path / "secret"
    secret.write_text(PASSWORD)
    monkeypatch.setenv("REUNA_PASSPHRASE_FILE", str(secret))
    made = CliRunner().invoke(
        app,
        ["trust", "init", "--fleet", "line-4", "--keys", "1", "--threshold", "1", "--folder", str(folder)],
    )
    assert made.exit_code == 0, made.output
    assert CliRunner().invoke(app, ["trust", "withdraw", "code/none", "--folder", str(folder)]).exit_code != 0
    lines = [(what, verdict.split()[0]) for what, _, verdict in said(Trail(folder))]
    assert lines == [("trust.init", "allowed"), ("trust.withdraw", "allowed"), ("trust.withdraw", "failed")]
    assert "3 lines" in CliRunner().invoke(app, ["audit", "verify", "--trust", str(folder)]).stdout
