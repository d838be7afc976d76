"""A fleet of one machine: its edges ask for the sandbox that this machine gives."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from reuna.adapters.sandbox import Level
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
