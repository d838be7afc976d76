"""A fleet of one machine: its edges ask for the sandbox that this machine gives."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from reuna.adapters.sandbox import Level
from reuna.core.errors import SettingsError
from reuna.fleet import layout


@pytest.mark.parametrize(("level", "said"), [(3, False), (1, True)])
def test_edges_ask_for_what_this_machine_reaches_and_less_than_all_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: int, said: bool
) -> None:
    monkeypatch.setattr(layout, "probe", lambda: Level(level, (), {"seccomp": "no filter"}))
    with caplog.at_level(logging.WARNING, "reuna.up"):
        fleet = layout.make_fleet(tmp_path, "local", {"fog-1": {"press": tmp_path}})
    assert fleet.setting("sandbox.min_level", "press") == level
    assert ("level 1 of 3 here; missing: seccomp (no filter)" in caplog.text) == said


def test_a_fog_is_placed_under_another_or_under_a_new_one(tmp_path: Path) -> None:
    fogs = {"fog-1": {"press": tmp_path}, "fog-2": {"pump": tmp_path}}
    found, above = layout.placed(fogs, ["fog-2=fog-1", "fog-1=firm"])
    assert (found["firm"], above) == ({}, {"fog-2": "fog-1", "fog-1": "firm"})
    fleet = layout.make_fleet(tmp_path / "fleet", "local", found, above=above)
    assert [place.name for place in fleet.of("fog")] == ["firm", "fog-1", "fog-2"]
    assert layout.open_fleet(fleet.folder / "fleet.toml").above == above
    assert [[place.name for place in level] for level in fleet.from_below()] == [
        ["press", "pump"], ["fog-2"], ["fog-1"], ["firm"], ["cloud"],
    ]  # fmt: skip
    assert fleet.setting("fogs") == ["firm"], "of the cloud"
    assert fleet.setting("parent.role", "fog-2") == "fog"
    assert "spiffe://fog-1.local/gateway/fog-1" in (fleet.folder / "fog-2" / "policy.toml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fog-1"], "fog-1 does not place a fog"),
        (["fog-1=The Firm"], "does not place a fog"),
        (["fog-1=a", "fog-1=b"], "placed under two others"),
        (["fog-1=fog-1"], "has no way up to the cloud"),
        (["fog-9=fog-1"], "fog fog-9 has no edge under it"),
    ],
)
def test_a_place_of_a_fog_that_cannot_be_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        layout.placed({"fog-1": {"press": tmp_path}}, words)


def test_a_fleet_whose_fog_stands_under_nobody_is_not_opened(tmp_path: Path) -> None:
    fleet = layout.make_fleet(tmp_path, "local", {"a": {"press": tmp_path}, "b": {}}, above={"a": "b"})
    file = fleet.folder / "a" / "fog.toml"
    file.write_text(file.read_text().replace('name = "b"', 'name = "c"'))
    with pytest.raises(SettingsError, match="fog a stands under c, which is no fog of this fleet"):
        layout.open_fleet(fleet.folder / "fleet.toml")
