"""What is needed here of a run that is taken up again: its own code, and its settings as they were asked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from reuna.adapters.project import pack_bundle
from reuna.core.errors import RunProblem
from reuna.core.records import Grid
from reuna.fleet.again import settings_as_asked
from reuna.fleet.open_project import open_settings
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec
from reuna.template import make_project
from reuna.wire import digest_bytes


def test_a_run_is_taken_up_with_the_settings_it_was_begun_with(tmp_path: Path) -> None:
    make_project(tmp_path / "pumps", sample=False)
    settings = open_settings(tmp_path / "pumps", [])
    asked, _, _ = make_spec(
        fleet_of(1, 1), Walker(), 7, seed=5, quorum=0.5, grid=Grid(16, -12), settings={"a": 1}
    )
    spec = msgspec.structs.replace(asked, bundle=digest_bytes(pack_bundle(tmp_path / "pumps")))
    found = settings_as_asked(spec, tmp_path / "pumps", settings)
    assert (found.rounds, found.seed, found.quorum, found.grid) == (7, 5, 0.5, Grid(16, -12))
    assert (found.settings, found.gates) == ({"a": 1}, settings.gates)


def test_other_code_than_the_runs_is_refused(tmp_path: Path) -> None:
    make_project(tmp_path / "pumps", sample=False)
    spec, _, _ = make_spec(fleet_of(1, 1), Walker(), 7)
    with pytest.raises(RunProblem, match=r"the code in .*pumps is .*, that of r-sim"):
        settings_as_asked(spec, tmp_path / "pumps", open_settings(tmp_path / "pumps", []))
