"""The benchmark beside peers: order, commands, what counts, the table; that the work is the same for all."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import simulate
from benchmarks.peers import __main__ as main
from benchmarks.peers import looking, machine, work
from benchmarks.peers.cells import DOES, WORKS, Cell, failure, middle, plan, read_line, words
from benchmarks.peers.table import markdown
from reuna.adapters.linear import SoftmaxClassifier

ROOT = Path(__file__).parents[3]


# --- order and commands ---------------------------------------------------------------------------


def test_systems_take_turns_and_ours_is_first_and_last() -> None:
    found = plan(["round"], ["reuna", "flower", "nvflare"], [10], 8, 2)
    assert [cell.who for cell in found] == [*["reuna", "flower", "nvflare"] * 2, "reuna"]
    assert {cell.nodes for cell in found} == {8}


def test_large_models_are_repeated_half_as_often() -> None:
    found = plan(["round"], ["reuna", "flower"], [10, 25_000_000], 8, 4)
    assert sum(cell.who == "flower" and cell.params == 10 for cell in found) == 4
    assert sum(cell.who == "flower" and cell.params == 25_000_000 for cell in found) == 2
    assert [cell.params for cell in found] == sorted(cell.params for cell in found), "a size after the other"


def test_folds_and_simulations_are_repeated_half_as_often() -> None:
    for name in ("simulate", "robust"):
        assert sum(cell.who == "flower" for cell in plan([name], ["reuna", "flower"], [10], 8, 4)) == 2


def test_nobody_is_asked_for_what_he_has_not() -> None:
    found = plan(WORKS, ["reuna", "nvflare"], [10], 8, 1)
    assert {cell.who for cell in found if cell.work != "round"} == {"reuna"}


def test_ours_alone_is_measured_once_a_turn() -> None:
    assert len(plan(["round"], ["reuna"], [10], 8, 3)) == 3


@pytest.mark.parametrize("cell", [Cell(w, who, 10, 8, 0) for w in WORKS for who in DOES[w]], ids=str)
def test_every_cell_has_a_command_that_is_there(cell: Cell) -> None:
    module, *rest = words(cell, 2)
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
    assert all(isinstance(word, str) for word in rest)


def test_our_own_commands_are_taken_by_our_benchmarks() -> None:
    for name in WORKS:
        module, *rest = words(Cell(name, "reuna", 10, 8, 0), 2)
        spec = importlib.util.find_spec(module)
        assert spec
        assert importlib.import_module(module).arguments(rest)


# --- what counts ----------------------------------------------------------------------------------


def test_the_last_json_object_of_an_output_is_read() -> None:
    assert read_line('noise\n{"a": 1}\n{"a": 2}\nmore {noise}\n[3]\n') == {"a": 2}
    assert read_line("nothing\n") is None


@pytest.mark.parametrize(
    ("told", "status", "errors", "reason"),
    [
        ({"median_s": 1}, 0, "", None),
        ({"median_s": 1, "right": True}, 0, "a warning", None),
        (None, None, "", "no answer within 60 s"),
        (None, 1, "Traceback\nValueError: no\n\n", "ended with status 1: ValueError: no"),
        ({"median_s": 1}, 3, "", "ended with status 3: it said nothing"),
        (None, 0, "", "ended with status 0: it said nothing"),
        ({"median_s": 1, "right": False}, 0, "", "its model is not the mean of the updates"),
    ],
)
def test_a_measurement_that_does_not_count_says_why(
    told: dict[str, Any] | None, status: int | None, errors: str, reason: str | None
) -> None:
    assert failure(told, status, errors, 60) == reason


def cell(who: str, told: dict[str, Any] | None, failed: str | None = None, **at: Any) -> dict[str, Any]:
    return {
        "work": "round",
        "who": who,
        "params": 10_000,
        "nodes": 8,
        "load": 0.2,
        **at,
        "told": told,
        "failed": failed,
    }


def test_a_figure_is_the_median_of_those_that_counted() -> None:
    cells = [cell("flower", {"median_s": each}) for each in (3.0, 1.0, 2.0)]
    assert middle([*cells, cell("flower", None, "no answer")], "median_s") == 2.0
    assert middle([cell("flower", None, "no answer")], "median_s") is None
    assert middle([cell("reuna", {"edge_idle_pss_mib": None})], "edge_idle_pss_mib") is None


# --- the table ------------------------------------------------------------------------------------

OURS = {
    "median_s": 0.02, "limit_s": 0.001, "cloud_peak_mib": 80.0, "edge_idle_pss_mib": 50.0, "processes_seen": 30,
    "topology": "8 edges, 2 fogs, 1 cloud", "durable": True,
}  # fmt: skip
THEIRS = {
    "median_s": 2.0,
    "server_peak_mib": 120.0,
    "client_idle_pss_mib": 200.0,
    "processes_seen": 40,
    "mode": "POC",
}


def result(*cells: dict[str, Any], load: float = 0.1) -> dict[str, Any]:
    return {
        "when": "2026-11-28T01:15:00+00:00",
        "command": "python -m benchmarks.peers",
        "commit": "abc1234",
        "machine": {
            "cores": 2,
            "cpu": "a processor",
            "memory_gib": 24,
            "system": "Linux 6",
            "python": "3.11",
        },
        "versions": {"reuna": "0.1.0", "nvflare": "2.9.0"},
        "load_before": load,
        "cells": list(cells),
    }


def test_a_table_says_figures_ratios_machine_versions_and_command() -> None:
    text = markdown(result(cell("reuna", OURS), cell("nvflare", THEIRS)))
    assert text == (
        "2026-11-28, 2 cores (a processor), 24 GiB, loopback, Linux 6; Reuna 0.1.0, NVFlare 2.9.0. "
        "`python -m benchmarks.peers`, commit `abc1234`.\n\n"
        "| work | limit | Reuna | NVFlare | Reuna ÷ limit | NVFlare ÷ Reuna |\n"
        "|---|---|---|---|---|---|\n"
        "| round, 10 k values, 8 nodes | 1 ms | 20 ms | 2 s | 20× | 100× |\n\n"
        "| what | Reuna | NVFlare |\n"
        "|---|---|---|\n"
        "| largest server process, 10 k values, 8 nodes | 80 MiB | 120 MiB |\n"
        "| idle client, all its processes (PSS) | 50 MiB | 200 MiB |\n"
        "| processes, most at once | 30 | 40 |\n"
        "| how it ran | 8 edges, 2 fogs, 1 cloud; mutual TLS, durable | POC |\n"
    )


def test_rounds_in_16_bits_stand_below_those_in_32_and_no_peer_has_them() -> None:
    narrow = cell("reuna", {"median_s": 0.015, "limit_s": 0.0005}, work="round16")
    text = markdown(result(narrow, cell("reuna", OURS), cell("nvflare", THEIRS)))
    assert (
        "| round, 10 k values, 8 nodes | 1 ms | 20 ms | 2 s | 20× | 100× |\n"
        "| round, 10 k values, 8 nodes, 16 bits | 0.5 ms | 15 ms | – | 30× | – |\n"
    ) in text


def test_grids_are_measured_as_often_as_rounds_and_by_ours_alone() -> None:
    found = plan(["round16"], ["reuna", "flower"], [10, 25_000_000], 8, 2)
    assert [(cell.who, cell.params) for cell in found] == [("reuna", 10)] * 2 + [("reuna", 25_000_000)]
    assert words(found[0], 2)[-5:] == ["--bits", "16", "--rounds", "20", "--json"]


def test_a_peer_that_hung_is_in_the_table_with_the_reason_and_has_no_ratio() -> None:
    text = markdown(result(cell("reuna", OURS), cell("nvflare", None, "no answer | within 60 s")))
    assert "| 1 ms | 20 ms | *no answer / within 60 s* | 20× | – |" in text


def test_more_clients_a_second_are_the_better_figure() -> None:
    at: dict[str, Any] = {"work": "simulate", "params": 0, "nodes": 100}
    ours = cell("reuna", {"clients_per_s": 5000, "numpy_clients_per_s": 7500}, **at)
    text = markdown(result(ours, cell("flower", {"clients_per_s": 100}, **at)))
    assert "| simulated clients a second | 7,500 | 5,000 | 100 | 1.5× | 50× |" in text


def test_robust_folds_have_a_line_each() -> None:
    at: dict[str, Any] = {"work": "robust", "params": 1_000_000, "nodes": 32}
    told = {f"{name}_s": 0.1 for name in ("median", "trimmed_mean", "krum", "multi_krum")}
    text = markdown(result(cell("reuna", {**told, "limit_s": 0.01}, **at)))
    assert "| median, 32 × 1 M | 10 ms | 100 ms | 10× |" in text
    assert "| Multi-Krum, 32 × 1 M |" in text


def test_a_command_is_told_without_the_place_of_its_result() -> None:
    words = ["--nodes", "4", "--out", "/somewhere/x.json", "--out=/else/y.json", "--json"]
    assert machine.command("benchmarks.peers", words) == "python -m benchmarks.peers --nodes 4 --json"


def test_a_loaded_machine_is_said() -> None:
    assert "Under load" in markdown(result(cell("reuna", OURS), load=7.0))
    assert "Under load" not in markdown(result(cell("reuna", OURS)))


# --- the same work --------------------------------------------------------------------------------


def test_peers_clients_fit_as_ours_do() -> None:
    rows, labels = work.client_rows(3)
    data = simulate.data_of(3)
    assert rows.tobytes() == data.train.x.tobytes()
    assert labels.tolist() == data.train.y.tolist()
    learner = SoftmaxClassifier(work.FEATURES, work.CLASSES)
    model = learner.init(1)
    weight, bias = model["weight"], model["bias"]
    for _ in range(3):
        model, _, _ = learner.fit(model, data, {"rate": work.RATE, "epochs": 1}, 0)
        weight, bias = work.fit(weight, bias, rows, labels)
    np.testing.assert_allclose(weight, model["weight"], rtol=1e-5)
    np.testing.assert_allclose(bias, model["bias"], rtol=1e-5)


def test_updates_are_dense_and_new_for_each_node_and_round(tmp_path: Path) -> None:
    path = tmp_path / "drawn.npy"
    work.draw(path, 5000)
    updates = {work.update(path, 5000, node, number).tobytes() for node in range(4) for number in range(4)}
    assert len(updates) == 16
    assert np.count_nonzero(work.update(path, 5000, 0, 1)) == 5000


def test_a_model_that_is_not_the_mean_of_the_updates_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "drawn.npy"
    work.draw(path, 500)
    wanted = work.expected(path, 500, 2, range(1, 3))
    right = sum(work.update(path, 500, node, number) / 2 for node in (0, 1) for number in (1, 2))
    assert work.is_right(np.asarray(right), wanted)
    assert not work.is_right(wanted * np.float32(0.5), wanted), "a round is missing"
    assert not work.is_right(wanted[:-1], wanted)


# --- processes ------------------------------------------------------------------------------------

HANGS = (
    "import subprocess, sys, time; subprocess.Popen(['/bin/sh', '-c', 'sleep 600 & sleep 600']); "
    "print('{\"median_s\": 1}', flush=True); time.sleep(600)"
)


def test_a_process_that_hangs_is_ended_with_all_it_started() -> None:
    script = (
        "import os, sys, json; from benchmarks.peers import looking, running; looking.end_when_told(); "
        f"found = running.run([sys.executable, '-c', {HANGS!r}], 1.0); "
        "print(json.dumps([found.status, found.output, looking.below(os.getpid())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == [None, '{"median_s": 1}\n', []]


def test_a_process_that_takes_no_more_memory_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "SETTLING_S", 0.0)
    told = iter([10.0, 60.0, 80.0, 80.2, 500.0])
    monkeypatch.setattr(looking, "pss_mib", lambda pids: next(told))
    assert looking.settled_pss_mib(lambda: [1]) == 80.2


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "fate"], "argument --only: invalid choice: 'fate'"),
        (["--work", "chess"], "argument --work: invalid choice: 'chess'"),
        (["--params", "0"], "argument --params: 0 is not at least 1"),
        (["--params", "300000000"], "argument --params: 300000000 is more than 200000000"),
        (["--nodes", "many"], "argument --nodes: 'many' is no whole number"),
        (["--repeat", "-1"], "argument --repeat: -1 is not at least 1"),
        (["--limit", "0"], "argument --limit: 0 is not at least 1"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main.arguments(given)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_quick_is_ours_alone_without_large_models() -> None:
    args = main.arguments(["--quick"])
    assert (args.only, args.repeat, args.params) == (["reuna"], 1, [10_000, 1_000_000])


def test_a_peer_without_an_environment_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "ROOT", tmp_path)
    assert list(main.found(["reuna", "flower"])) == ["reuna"]
    assert "no flower here (make .venv-flower/stamp" in capsys.readouterr().err


def test_a_cell_that_would_begin_too_late_is_reported(tmp_path: Path) -> None:
    told = main.skipped(Cell("round", "flower", 10_000, 8, 0), 900)
    assert told["failed"] == "not begun within 900 s"
    assert "*not begun within 900 s*" in markdown(result(cell("reuna", OURS), told))
    main.keep(result(told), tmp_path / "new" / "peers.json")
    assert (tmp_path / "new" / "peers.md").is_file()


def gone_for(pid: int, look: Callable[[Any], Any], folder: Any) -> Any:
    """What is asked for a process that has just ended."""
    if f"/{pid}/" in str(folder):
        raise FileNotFoundError(folder)
    return look(folder)


def test_a_process_that_ends_while_it_is_looked_at_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        for name in ("listdir", "scandir"):
            monkeypatch.setattr(os, name, partial(gone_for, child.pid, getattr(os, name)))
        try:
            assert child.pid in looking.below(os.getpid())
        finally:
            child.kill()
