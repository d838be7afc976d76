"""A release answers recordings: by its own code in a worker, alike in one go and as it happens, safely in doubt."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from reuna.adapters.project import load_entry, pack_bundle
from reuna.adapters.worker.messages import Answered, Answers, Predict
from reuna.adapters.worker.predict import predict as in_this_process
from reuna.cli import app
from reuna.core.contract import contract
from reuna.core.errors import (
    ContractBroken,
    Corrupted,
    DataError,
    LearnerError,
    ReleaseNotFound,
    SandboxTooWeak,
    Untrusted,
    WorkerFailed,
)
from reuna.core.outcomes import Window
from reuna.core.project import TASKS
from reuna.demo.job import PROJECT
from reuna.demo.plants import write_plant_folder
from reuna.fleet.open_project import open_settings
from reuna.fleet.predict import Asked, Predicted, predict, read_answers
from reuna.fleet.release import KEPT
from reuna.template import make_project
from reuna.wire.build import canonical
from tests.finished import finished
from tests.pumps import RULES, Pumps, Row, changed, emptied, make, rows_of, write

RUN = CliRunner()


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Pumps:
    pytest.importorskip("onnxruntime")
    return make(tmp_path_factory.mktemp("predict") / "pumps", TASKS[0], RULES)


# --- online and offline --------------------------------------------------------------------------


def cut_up(pumps: Pumps, into: Path, cuts: Iterator[slice]) -> Path:
    """A node's folder whose recordings are pieces of one."""
    for split in ("train", "validation"):
        if (pumps.node / split).is_dir():
            (into / split).parent.mkdir(parents=True, exist_ok=True)
            (into / split).symlink_to(pumps.node / split)
    rows = rows_of(pumps.recording)
    for number, cut in enumerate(cuts):
        write(into / "test" / f"{number:04d}.csv", rows[cut])
    return into


def answers(pumps: Pumps, folder: Path, graph: bytes) -> list[list[float]]:
    (folder / "graph").write_bytes(graph)
    request = Predict(
        str(pumps.settings["entry"]), str(folder / "graph"), str(folder / "out"), dict(pumps.settings)
    )
    in_this_process(pumps.folder, folder, request)
    return [
        each.output for each in msgspec.msgpack.decode((folder / "out").read_bytes(), type=Answers).windows
    ]


def identity() -> bytes:
    """A graph that answers its input: the features."""
    onnx = pytest.importorskip("onnx")
    make_info, make_node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    x, y = (make_info(name, onnx.TensorProto.FLOAT, ["n", None]) for name in "xy")
    graph = onnx.helper.make_graph([make_node("Identity", ["x"], ["y"])], "same", [x], [y])
    opset = onnx.helper.make_opsetid("", 17)
    data: bytes = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return data


@pytest.mark.parametrize("task", TASKS)
def test_features_and_answers_are_the_same_bits_in_one_go_and_window_by_window(
    tmp_path: Path, task: str
) -> None:
    pytest.importorskip("onnxruntime")
    pumps = make(tmp_path / "pumps", task)
    length, step = contract(pumps.settings).window_rows
    starts = range(0, len(rows_of(pumps.recording)) - length + 1, step)
    whole = cut_up(pumps, tmp_path / "whole", iter([slice(None)]))
    live = cut_up(pumps, tmp_path / "live", (slice(start, start + length) for start in starts))
    for graph in (identity(), pumps.graph):
        offline, online = answers(pumps, whole, graph), answers(pumps, live, graph)
        assert len(offline) == len(starts)
        assert offline == online
        assert len({tuple(each) for each in offline}) > 1


def test_the_demo_s_features_are_the_same_bits_too(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    told = open_settings(PROJECT, [])
    learner = load_entry(PROJECT, told.entry).learner(told.settings)
    plant = Pumps(PROJECT, told.settings, learner.export(learner.init(1)))
    write_plant_folder(0, 0, tmp_path / "plant")
    table = parquet.read_table(min((tmp_path / "plant" / "test").iterdir()))
    length, step = contract(told.settings).window_rows
    found = []
    for name, cuts in {
        "whole": [(0, len(table))],
        "live": [(start, length) for start in range(0, len(table) - length + 1, step)],
    }.items():
        (tmp_path / name / "test").mkdir(parents=True)
        (tmp_path / name / "train").symlink_to(tmp_path / "plant" / "train")
        (tmp_path / name / "validation").symlink_to(tmp_path / "plant" / "validation")
        for number, (start, rows) in enumerate(cuts):
            file = tmp_path / name / "test" / f"{number:04d}.parquet"
            parquet.write_table(table.slice(start, rows), file)
        found.append(answers(plant, tmp_path / name, identity()))
    assert len(found[0]) == 45
    assert found[0] == found[1]


def test_no_answer_depends_on_a_label(pumps: Pumps, tmp_path: Path) -> None:
    label = contract(pumps.settings).label
    plain = cut_up(pumps, tmp_path / "plain", iter([slice(None)]))
    expected = answers(pumps, plain, pumps.graph)
    for name, change in {
        "other": lambda row: {**row, label: "3"},
        "none": lambda row: {key: value for key, value in row.items() if key != label},
    }.items():
        folder = cut_up(pumps, tmp_path / name, iter([]))
        write(folder / "test" / "a.csv", [change(row) for row in rows_of(pumps.recording)])
        assert answers(pumps, folder, pumps.graph) == expected


# --- a release -----------------------------------------------------------------------------------


def asked(pumps: Pumps, folder: Path, recordings: Path, **more: Any) -> Predicted:
    file = pumps.release(folder / "1.release")
    return asyncio.run(predict(Asked(file, recordings, pumps.node, **more)))


def test_a_release_answers_by_its_own_code_in_another_process(pumps: Pumps, tmp_path: Path) -> None:
    sys.modules.pop("detector.model", None)
    found = asked(pumps, tmp_path, changed(tmp_path / "rec", pumps.recording, lambda rows: rows))
    assert "detector.model" not in sys.modules
    assert found.states == {"answered": len(found.answers.windows)}
    whole = cut_up(pumps, tmp_path / "whole", iter([slice(None)]))
    assert [each.output for each in found.answers.windows] == answers(pumps, whole, pumps.graph)
    assert [each.answer for each in found.decided] == [
        float(np.argmax(each.output)) for each in found.answers.windows
    ]
    latency = found.latency_ms
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert {each.signal for each in found.inputs} == {each.name for each in contract(pumps.settings).signals}
    assert all(each.rows == found.answers.rows[0] for each in found.inputs)


def test_sensors_that_fail_are_treated_by_the_rules_of_the_release(pumps: Pumps, tmp_path: Path) -> None:
    length, step = contract(pumps.settings).window_rows

    def states(name: str, *numbers: int) -> list[str]:
        folder = changed(tmp_path / f"{name}-{len(numbers)}", pumps.recording, emptied(name, *numbers))
        found = asked(pumps, tmp_path, folder)
        for each, decided in zip(found.answers.windows, found.decided, strict=True):
            refused = each.window.state == "refused"
            assert (decided.answer == 0 and each.output == []) if refused else each.output
        return [each.window.state for each in found.answers.windows]

    def around(row: int, state: str, whole: int) -> list[str]:
        return [state if start <= row < start + length else "good" for start in range(0, whole * step, step)]

    for name, rows, state in [
        ("flow_m3_h", (30,), "mended"),
        ("current_a", (30,), "mended"),
        ("temperature_c", (30,), "refused"),
    ]:
        found = states(name, *rows)
        assert found == around(rows[0], state, len(found)), name
    stale = states("flow_m3_h", 30, 31, 32)
    assert "refused" in stale
    assert set(stale) == {"good", "refused"}


def test_what_no_rule_can_mend_is_refused_before_the_code_runs(pumps: Pumps, tmp_path: Path) -> None:
    def without(rows: list[Row]) -> list[Row]:
        return [{key: cell for key, cell in row.items() if key != "flow_m3_h"} for row in rows]

    with pytest.raises(ContractBroken, match="flow_m3_h"):
        asked(pumps, tmp_path, changed(tmp_path / "a", pumps.recording, without))
    with pytest.raises(ContractBroken, match="another unit|median"):
        hot = changed(
            tmp_path / "b", pumps.recording, lambda rows: [{**row, "temperature_c": "321"} for row in rows]
        )
        asked(pumps, tmp_path, hot)
    with pytest.raises(DataError, match=f"^{tmp_path}/c/a.csv has 5 rows, a window 12"):
        asked(pumps, tmp_path, changed(tmp_path / "c", pumps.recording, lambda rows: rows[:5]))


def test_a_load_that_cuts_otherwise_than_it_says_is_named(pumps: Pumps, tmp_path: Path) -> None:
    source = (pumps.folder / "detector" / "samples.py").read_text()
    other = tmp_path / "other"
    make_project(other, sample=False)
    (other / "detector" / "samples.py").write_text(
        source.replace("*agreed.window_rows", "agreed.window_rows[0], 1")
    )
    file = pumps.release(tmp_path / "1.release", pack_bundle(other))
    with pytest.raises(LearnerError, match=r"load made 229 windows of the recordings, .* 39"):
        asyncio.run(
            predict(Asked(file, changed(tmp_path / "a", pumps.recording, lambda rows: rows), pumps.node))
        )


def test_a_load_that_looks_beyond_a_window_is_found_when_asked(pumps: Pumps, tmp_path: Path) -> None:
    recordings = changed(tmp_path / "a", pumps.recording, lambda rows: rows)
    assert asked(pumps, tmp_path, recordings, check_windows=True).states["answered"] == 39
    other = tmp_path / "other"
    make_project(other, sample=False)
    samples = other / "detector" / "samples.py"
    source = samples.read_text()
    beyond = "table.filled(names)\n    values = values - values.mean(axis=0)"
    samples.write_text(source.replace("table.filled(names)", beyond))
    file = pumps.release(tmp_path / "2.release", pack_bundle(other))
    wanted = Asked(file, recordings, pumps.node)
    assert asyncio.run(predict(wanted)).states["answered"] == 39
    with pytest.raises(LearnerError, match=r"a/a\.csv: rows 1 to 12 have other features"):
        asyncio.run(predict(replace(wanted, check_windows=True)))


def test_a_load_that_gives_no_samples_is_named(pumps: Pumps, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_project(other, sample=False)
    with (other / "detector" / "model.py").open("a") as model:
        model.write("\n\ndef load(folder, settings):\n    return {}\n")
    file = pumps.release(tmp_path / "1.release", pack_bundle(other))
    with pytest.raises(LearnerError, match=r"load gave a dict, and predicting needs a reuna\.Dataset"):
        asyncio.run(predict(Asked(file, pumps.node)))


def test_tables_that_the_node_scales_by_must_keep_the_contract(pumps: Pumps, tmp_path: Path) -> None:
    node = tmp_path / "node"
    rows = rows_of(min((pumps.node / "train").iterdir()))
    write(node / "train" / "a.csv", [{**row, "temperature_c": "-100"} for row in rows])
    write(node / "test" / "a.csv", rows)
    with pytest.raises(ContractBroken, match=f"{node}/train/a.csv"):
        asyncio.run(predict(Asked(pumps.release(tmp_path / "1.release"), node)))


def test_a_release_whose_papers_cannot_be_read_is_refused(pumps: Pumps, tmp_path: Path) -> None:
    lineage = {**{name: finished()[name] for name in KEPT}, "source": {}}
    file = pumps.release(tmp_path / "1.release", lineage=canonical(lineage))
    with pytest.raises(Corrupted, match="names no entry"):
        asyncio.run(predict(Asked(file, pumps.node)))
    file = pumps.release(tmp_path / "1.release", bins=canonical({"bins": 3}))
    with pytest.raises(Corrupted, match=r"bins\.json of release 1"):
        asyncio.run(predict(Asked(file, pumps.node)))


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        (b"\xc1", "cannot be read"),
        (msgspec.msgpack.encode(Answers([], [], 1, [Answered(0, 0, Window("good"))])), "that there are not"),
        (msgspec.msgpack.encode(Answers(["a"], [], 1, [])), "that there are not"),
        (None, "cannot be read"),
    ],
)
def test_what_a_worker_wrote_is_not_believed(tmp_path: Path, written: bytes | None, complaint: str) -> None:
    if written is not None:
        (tmp_path / "answers").write_bytes(written)
    with pytest.raises(WorkerFailed, match=complaint):
        read_answers(tmp_path / "answers")


def test_a_damaged_release_and_a_weak_sandbox_are_refused(pumps: Pumps, tmp_path: Path) -> None:
    with pytest.raises(SandboxTooWeak, match="4 is asked for"):
        asked(pumps, tmp_path, pumps.node / "test", min_level=4)
    file = pumps.release(tmp_path / "2.release")
    data = bytearray(file.read_bytes())
    at = data.index(pumps.graph)
    data[at + 20] ^= 1
    file.write_bytes(data)
    with pytest.raises(Untrusted, match=r"model\.onnx"):
        asyncio.run(predict(Asked(file, pumps.node)))


@pytest.mark.parametrize(
    ("data", "node", "complaint"),
    [
        ("data/pump-1/train", "data/pump-1/test", "has no folder train"),
        ("data", None, "holds no CSV"),
        ("half", None, "has train, and no test with recordings"),
        ("nowhere", None, "there is no folder"),
    ],
)
def test_folders_that_cannot_be_meant_are_named(
    pumps: Pumps, tmp_path: Path, data: str, node: str | None, complaint: str
) -> None:
    file = pumps.release(tmp_path / "1.release")
    half = pumps.folder / "half"
    half.mkdir(exist_ok=True)
    (half / "train").unlink(missing_ok=True)
    (half / "train").symlink_to(pumps.node / "train")
    wanted = Asked(file, pumps.folder / data, None if node is None else pumps.folder / node)
    with pytest.raises(DataError, match=complaint):
        asyncio.run(predict(wanted))


# --- the command ---------------------------------------------------------------------------------


def test_the_command_tells_of_each_window(pumps: Pumps, tmp_path: Path) -> None:
    file = pumps.release(tmp_path / "1.release")
    recordings = changed(tmp_path / "rec", pumps.recording, emptied("temperature_c", 0))
    words = ["predict", str(file), "--data", str(recordings), "--node", str(pumps.node)]
    said = RUN.invoke(app, [*words, "--json"])
    assert said.exit_code == 0
    told = json.loads(said.stdout)
    first, second = told["windows"][:2]
    assert (first["recording"], first["first_row"], first["last_row"]) == ("a.csv", 1, 12)
    assert (first["state"], first["answer"], first["why"]) == ("safe", 0, "temperature_c: missing")
    assert (second["first_row"], second["state"], second["why"]) == (7, "answered", "")
    assert math.isclose(sum(second["output"]), 1, abs_tol=1e-5)
    assert told["states"] == {"safe": 1, "answered": 38}
    plain = RUN.invoke(app, words)
    assert "a.csv: 240 rows; " in plain.stdout
    assert "1 x safe (temperature_c: missing)" in plain.stdout
    assert "latency: p50 " in plain.stdout


def test_the_command_ends_with_1_when_no_window_is_answered(pumps: Pumps, tmp_path: Path) -> None:
    file = pumps.release(tmp_path / "1.release")
    recordings = changed(tmp_path / "rec", pumps.recording, emptied("temperature_c", *range(0, 240, 6)))
    said = RUN.invoke(app, ["predict", str(file), "--data", str(recordings), "--node", str(pumps.node)])
    assert said.exit_code == 1
    assert "windows: 39 safe" in said.stdout


def test_what_is_missing_is_named_with_the_next_step(pumps: Pumps, tmp_path: Path) -> None:
    with pytest.raises(ReleaseNotFound, match=r"there is no file .*none\.release"):
        asyncio.run(predict(Asked(tmp_path / "none.release", pumps.node)))
    alone = changed(tmp_path / "rec", pumps.recording, lambda rows: rows)
    with pytest.raises(LearnerError, match=r"samples\.py:\d+: KeyError") as raised:
        asyncio.run(predict(Asked(pumps.release(tmp_path / "1.release"), alone)))
    assert raised.value.next_step.endswith("with --node.")


def test_a_folder_of_a_node_is_predicted_by_its_own_split(pumps: Pumps, tmp_path: Path) -> None:
    file = pumps.release(tmp_path / "1.release")
    found = asyncio.run(predict(Asked(file, pumps.node)))
    assert found.answers.recordings == sorted(each.name for each in (pumps.node / "test").iterdir())
