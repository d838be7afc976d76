"""The project of the presses: what `reuna init` makes, with their signals and a pace of seconds."""

from __future__ import annotations

from pathlib import Path

from drills.drifting.press import EVERY_S, HIGH, LOW, SIGNALS, STROKE, UNITS
from drills.pushing.forge import git
from reuna.template import make_project

NAME = "presses"
SETTINGS = """[project]
name = "presses"
task = "fault-classification"
metric = "seen"

[learner]
entry = "detector.model"

[contract]
version = 1
time = "second"
every_s = {every_s}
max_gap_s = 1.0
max_missing = 0

[signals]
{signals}

[windows]
rows = {rows}
step = {rows}

[label]
column = "fault"

[strategy]
name = "fedavgm"
rounds = 20
server_rate = 0.5
momentum = 0.9

[round]
quorum = 0.5
deadline_s = 4

[train]
epochs = 2
rate = 0.1
batch = 32

[gates]
seen = {{ min = 0.75 }}

[release]
offline = 0.25

[fallback]
safe = 0
min_confidence = 0.6

[operate]
trial_s = 4
min_windows = 15
max_safe = 0.3
max_latency_ms = 20000

[monitoring]
block_s = 1
quiet_days = 0.02

[rollout]
waves = ["{canary}", "all"]
soak_s = 1
offline = 0.5
deadline_s = 30

[run]
local = false
centralised = false
"""


def make_repository(folder: Path, canary: str) -> Path:
    """The project in a git repository of one commit."""
    project = folder / NAME
    make_project(project, sample=False)
    ranges = zip(SIGNALS, UNITS, LOW, HIGH, strict=True)
    signals = "\n".join(
        f'{name} = {{ unit = "{unit}", min = {low:g}, max = {high:g} }}' for name, unit, low, high in ranges
    )
    text = SETTINGS.format(every_s=EVERY_S, signals=signals, rows=STROKE, canary=canary)
    (project / "reuna.toml").write_text(text, encoding="utf-8")
    git(project, "init", "--quiet", "-b", "main", ".")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "-m", "Name the fault of a press")
    return project
