"""What the documentation shows of results, and what a sampled stack is for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import budget, figures

ROOT = Path(__file__).parents[3]
FOUND = {"when": "2026-11-28T01:00:00+00:00", "command": "python -m x", "commit": "abc", "load_before": 0.1}


def round_of(params: int, **told: Any) -> dict[str, Any]:
    return {"work": "round", "who": "reuna", "params": params, "nodes": 8, "failed": None, "told": told}


def test_cpu_of_a_round_stands_by_process_with_the_median_of_all_turns() -> None:
    cells = [
        round_of(10_000, median_s=0.02, limit_s=0.001, cpu_ms_a_round={"all": each, "fog main": each / 2})
        for each in (10.0, 20.0, 12.0)
    ]
    lines = list(figures.cpu(cells))
    assert lines[0] == "| process | what it does | 10 k values, 8 nodes |"
    assert "| fog main | receives, commits, adds up | 6 ms |" in lines
    assert "| **all** | CPU of a round | 12 ms |" in lines
    assert "|  | a round by the clock, median | 20 ms |" in lines
    assert "| edge worker | makes the update | – |" in lines


def test_cpu_of_rounds_on_two_grids_stands_side_by_side() -> None:
    told = {"cpu_ms_a_round": {"all": 30.0}}
    narrow = {**round_of(10_000, cpu_ms_a_round={"all": 20.0}), "work": "round16"}
    lines = list(figures.cpu([narrow, round_of(10_000, **told)]))
    assert lines[0] == "| process | what it does | 10 k values, 8 nodes | 10 k values, 8 nodes, 16 bits |"
    assert "| **all** | CPU of a round | 30 ms | 20 ms |" in lines


def test_shares_of_a_process_stand_by_purpose_the_largest_first() -> None:
    size = {"params": 10_000, "nodes": 8, "shares": {"fog main": {"TLS": 0.2, "disk": 0.7, "bus": 0.001}}}
    lines = list(figures.purposes({**FOUND, "sizes": [size]}))
    assert lines[2:6] == ["| busy with | fog main |", "|---|---|", "| disk | 70% |", "| TLS | 20% |"]
    assert lines[-1] == "2026-11-28, `python -m x`, commit `abc`."


def test_a_point_without_figures_says_why_and_a_busy_machine_is_said() -> None:
    point = {
        "nodes": 1000, "failed": None, "round_s": 0.5, "coordinator_cpu_s": None, "coordinator_peak_mib": 60.2,
        "sent_bytes": 41_250_000, "mode": "simulated",
    }  # fmt: skip
    found = {**FOUND, "load_before": 9.0, "points": [point, {"nodes": 5000, "failed": "no answer"}]}
    lines = list(figures.points({"nodes": found}))
    assert "| 1,000 | 500 ms | – | 60 MiB | 41.2 MB | simulated |" in lines
    assert "| 5,000 | *no answer* |  |  |  |  |" in lines
    assert lines[-2].endswith("**Under load** (9 before).")


def test_each_place_of_the_page_has_a_block_and_each_block_a_place() -> None:
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    places = re.findall(r"<!-- begin (\w+):", text)
    assert sorted(places) == sorted(figures.blocks(ROOT / "docs/figures"))


@pytest.mark.parametrize(
    ("stack", "purpose"),
    [
        (
            "run (asyncio/base_events.py:1);write_all (reuna/adapters/files.py:9)",
            "disk: write, fsync, rename",
        ),
        ("_run (asyncio/events.py:80);do_handshake (ssl.py:979)", "TLS"),
        ("serve (reuna/fog/answer.py:1);digest_bytes (reuna/wire/digests.py:3)", "hashing"),
        ("serve (reuna/fog/answer.py:1);encode (reuna/wire/codec.py:3)", "messages (msgpack)"),
        ("work (a.py:1);execute (sqlalchemy/engine/default.py:9)", "journal"),
        ("_run_once (asyncio/base_events.py:1884)", "event loop"),
        ("main (reuna/cloud/coordinator.py:3);step (reuna/loop/train.py:3)", budget.OTHER),
    ],
)
def test_a_stack_is_named_by_the_innermost_call_that_says_what_it_is_for(stack: str, purpose: str) -> None:
    assert budget.purpose(stack) == purpose


def test_shares_are_of_all_looks() -> None:
    assert budget.shares(["a (ssl.py:1) 3", "b (ssl.py:2);c (ssl.py:3) 3", "d (x.py:1) 2", "noise"]) == {
        "TLS": 0.75,
        budget.OTHER: 0.25,
    }


def test_without_the_sampler_it_is_said_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(budget, "spy", lambda: None)
    with pytest.raises(SystemExit):
        budget.arguments([])
    assert "py-spy is not installed; make bench-budget installs it" in capsys.readouterr().err
