"""`reuna site` and `reuna node` on the register of a cloud that does not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.cli import app
from reuna.core.errors import SettingsError
from reuna.fleet.admit import make_cloud

RUN = CliRunner()


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    return make_cloud(tmp_path / "cloud", "line", "127.0.0.1")


def reuna(cloud: Path, *arguments: str) -> Any:
    return RUN.invoke(app, [*arguments, "--settings", str(cloud)])


@pytest.mark.parametrize("span", ["91d", "100000000d", "9" * 400 + "m", "131000m"])
def test_a_token_that_would_be_good_too_long_is_refused_before_it_is_kept(cloud: Path, span: str) -> None:
    done = reuna(cloud, "site", "invite", "north", "--expires", span)
    assert isinstance(done.exception, SettingsError)
    assert "longer than the 90 days" in done.exception.message
    assert json.loads(reuna(cloud, "site", "invites", "--json").stdout) == []


@pytest.mark.parametrize("span", ["", "d", "0d", "-1d", "1.5h", "²d", "1y"])
def test_what_is_no_span_of_time_is_refused(cloud: Path, span: str) -> None:
    done = reuna(cloud, "site", "invite", "north", "--expires", span)
    assert isinstance(done.exception, SettingsError)


def test_the_longest_token_is_kept_and_listed(cloud: Path) -> None:
    assert reuna(cloud, "site", "invite", "north", "--expires", "90d").exit_code == 0
    assert " open " in reuna(cloud, "site", "invites").stdout


def test_a_date_that_no_calendar_has_is_shown_all_the_same(cloud: Path) -> None:
    from reuna.cli.site import _desk

    _desk(cloud).invite("north", 0.0, 1e16)
    assert "1e+16 s after 1970" in reuna(cloud, "site", "invites").stdout
    assert "1e+16 s after 1970" in reuna(cloud, "node", "list").stdout


def test_cancelling_a_name_ends_every_token_of_it(cloud: Path) -> None:
    for name in ("north", "north", "south"):
        assert reuna(cloud, "site", "invite", name).exit_code == 0
    said = reuna(cloud, "site", "cancel", "north").stdout
    assert said.count("is worthless now") == 2
    found = json.loads(reuna(cloud, "site", "invites", "--json").stdout)
    assert {row["name"]: row["state"] for row in found} == {"north": "cancelled", "south": "open"}
    assert [row["state"] for row in found].count("open") == 1


def test_cancelling_an_id_ends_that_token_alone(cloud: Path) -> None:
    for _ in range(2):
        reuna(cloud, "site", "invite", "north")
    first = json.loads(reuna(cloud, "site", "invites", "--json").stdout)[0]["id"]
    assert first in reuna(cloud, "site", "cancel", first).stdout
    found = json.loads(reuna(cloud, "site", "invites", "--json").stdout)
    assert {row["id"]: row["state"] for row in found}[first] == "cancelled"
    assert [row["state"] for row in found].count("open") == 1
