"""The drill, short: one attack of each kind on a real fleet, refused, and successful without its guard."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from drills.hostile_peers.guards import GUARDS, Instead, found_at

pytestmark = [pytest.mark.system, pytest.mark.timeout(280)]
SOME = (
    "changed-plan", "cohort-of-one", "metadata-rollback", "upload-in-anothers-name", "weight-negative",
    "path-upwards", "report-in-the-clouds-name", "publish-under-anothers-subject", "model-of-another-round",
)  # fmt: skip


def test_attacks_are_refused_seen_and_without_effect_and_each_guard_is_needed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drills.hostile", "--only", ",".join(SOME), "--json"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=270,
    )  # fmt: skip
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result.pop("names"), result.pop("failed")) == (list(SOME), [])
    assert min(result.pop(figure) for figure in ("calm_s", "beside_s", "beside_ratio")) > 0
    assert set(result.values()) == {len(SOME)}, result
    assert done.returncode == 0


REPLACED = [
    pytest.param(where, name, function, id=f"{guard}-{name}")
    for guard, found in GUARDS.items()
    for where, name, function in found
]


@pytest.mark.parametrize(("where", "name", "function"), REPLACED)
def test_what_stands_in_for_a_guard_takes_what_the_guard_takes(
    where: str, name: str, function: Instead
) -> None:
    """Else a switched-off guard raises, and its attack is refused by mistake."""
    real = getattr(*found_at(where, name))
    asked = inspect.signature(real).parameters.values()
    plain = [each for each in asked if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    named = {each.name: None for each in asked if each.kind is each.KEYWORD_ONLY}
    inspect.signature(function).bind(real, *plain, **named)
    inspect.signature(function).bind(real, *(each for each in plain if each.default is each.empty))


def test_an_attack_that_is_not_there_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "drills.hostile", "--only", "no-such-attack"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no attack 'no-such-attack'" in done.stderr
