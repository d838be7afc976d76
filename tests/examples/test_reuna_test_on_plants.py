"""`reuna test` of the examples on real plants: it finds by itself what their page says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.examples.test_real_plants import CASES, ROOT, prepared

pytestmark = pytest.mark.slow


def played(name: str, folder: Path) -> tuple[int, dict[str, Any]]:
    """Exit status and scenarios of a case."""
    data = prepared(CASES[name], folder / "nodes")
    project = ROOT / "examples" / CASES[name].example
    command = [sys.executable, "-m", "reuna.cli", "test", str(project), "--data", str(data)]
    done = subprocess.run([*command, "--no-pytest", "--json"], capture_output=True, text=True, timeout=170)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    return done.returncode, {**found, "scenarios": {each["name"]: each for each in found["scenarios"]}}


def test_turbofans_learn_to_tell_their_remaining_life_and_do_without_one_another(tmp_path: Path) -> None:
    status, found = played("FD001", tmp_path)
    assert (status, found["better"]) == (0, "lower")
    whole = found["scenarios"]["undisturbed"]
    assert whole["status"] == "passed"
    assert max(whole["scores"].values()) < 0.6 * min(found["chance"].values())
    assert found["scenarios"]["late-labels"]["status"] == "passed"
    assert max(found["scenarios"]["dropout"]["losses"].values()) < 0.25


def test_the_rig_whose_shared_model_is_no_better_than_an_alarm_at_every_row_is_named(tmp_path: Path) -> None:
    """docs/how-to/real-plants.md: F1 0.55 against 0.56."""
    status, found = played("skab", tmp_path)
    whole = found["scenarios"]["undisturbed"]
    assert (status, whole["status"]) == (1, "failed")
    assert whole["why"].startswith("no better than chance: other 0.5")
    assert whole["scores"]["other"] == pytest.approx(0.55, abs=0.01)
    assert found["chance"]["other"] == pytest.approx(0.56, abs=0.01)
