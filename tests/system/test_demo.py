"""`reuna demo` as a person runs it: six plants as real processes, the loop closed once, nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from reuna.fleet.result import ResultFile
from tests.system.test_fleet import of_session, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]


def begin(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The demo in a folder, with what it puts aside in ``tmp`` there."""
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    (folder / "tmp").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "reuna.cli", "demo", *words],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def nothing_is_left(running: subprocess.Popen[str], folder: Path) -> None:
    wait_until(lambda: not of_session(running.pid))
    assert not list((folder / "tmp").iterdir())


def test_the_training_writes_its_result_and_leaves_nothing_behind(tmp_path: Path) -> None:
    running = begin(tmp_path, "--training", "--rounds", "3", "--split", "2", "--json")
    said, complaint = running.communicate(timeout=160)
    assert running.returncode == 0, complaint
    result = msgspec.json.decode(said, type=ResultFile)
    assert (result.rounds, result.split) == (3, 2)
    assert [site.site for site in result.sites] == [f"plant-{number}" for number in range(1, 7)]
    assert all(site.local and site.federated and site.centralised for site in result.sites)
    assert {(line.node, line.kind) for line in result.refused_by_policy} == {("plant-3", "metric")}
    assert result.scaling is not None
    (folder,) = (tmp_path / "runs").iterdir()
    assert msgspec.json.decode((folder / "result.json").read_bytes(), type=ResultFile) == result
    assert {path.name for path in folder.iterdir()} == {
        "logs",
        "model.safetensors",
        "report.html",
        "result.json",
    }
    nothing_is_left(running, tmp_path)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_story_ends_with_a_new_champion_on_every_edge(tmp_path: Path) -> None:
    pytest.importorskip("asyncua", reason="the extra `opcua` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    running = begin(tmp_path, "--rounds", "20", "--json")
    said, complaint = running.communicate(timeout=580)
    assert running.returncode == 0, complaint
    told = msgspec.json.decode(said)
    story, training = told["story"], told["training"]
    edges = [f"plant-{number}" for number in range(1, 7)]
    assert story["edges"] == dict.fromkeys(edges, story["champion"])
    assert story["champion"] == 2
    assert "the process moved" in story["alarm"]
    assert story["moments"]["drift"] < story["moments"]["alarm"] < story["moments"]["run"]
    assert story["run"] == training["run"] != story["retrained"]
    for name in edges:
        assert story["before"][name] > 0.7, story["before"]
        assert story["after"][name] > 0.7, story["after"]
    drifted = [each for each in story["drifted"].values() if each is not None]
    assert sum(drifted) / len(drifted) < 0.6
    runs = tmp_path / "runs"
    assert {each.name for each in runs.iterdir()} == {story["run"], story["retrained"]}
    again = msgspec.json.decode((runs / story["retrained"] / "result.json").read_bytes(), type=ResultFile)
    assert again.gates is not None
    page = (tmp_path / told["page"]).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert page.count("<svg") >= 5
    assert all(f"{name}: release {number}" in page for name in edges for number in (1, 2)), "bars"
    assert page.count("<polyline") >= 1 + len(edges), "shares, and a level for each edge"
    assert {each.name for each in (runs / story["run"]).iterdir()} >= {
        "releases",
        "report.html",
        "story.html",
        "logs",
    }
    nothing_is_left(running, tmp_path)


def test_a_port_that_is_taken_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    pytest.importorskip("asyncua", reason="the extra `opcua` is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = begin(tmp_path, "--port", str(port))
        _, complaint = running.communicate(timeout=160)
    assert running.returncode != 0
    assert f"something else listens on port {port}" in complaint
    assert "R204" in complaint
    assert "Traceback" not in complaint
    nothing_is_left(running, tmp_path)


def test_ctrl_c_ends_the_story_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("asyncua", reason="the extra `opcua` is not installed")
    running = begin(tmp_path)
    assert running.stdout is not None
    wait_for = "$ reuna up"
    assert any(wait_for in line for line in running.stdout), "the fleet is about to begin"
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=160)
    assert running.returncode == 130, complaint
    assert "stopping" in complaint
    assert not (tmp_path / "runs").exists()
    nothing_is_left(running, tmp_path)
