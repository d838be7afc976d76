"""A run's model leaves as ONNX only when it answers what the project's learner answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from reuna.adapters.onnx_export import run_graph
from reuna.adapters.project import load_entry
from reuna.cli import app
from reuna.core.errors import Corrupted, LearnerError, ProjectError
from reuna.core.tensors import pack
from reuna.demo.job import PROJECT
from reuna.fleet.export import MODEL, export_run
from reuna.fleet.open_project import open_settings
from reuna.template import make_project
from reuna.wire import digest_bytes
from tests.finished import finished

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path / "pumps", sample=False)
    return tmp_path / "pumps"


def kept(project: Path, runs: Path, **more: Any) -> tuple[Path, dict[str, Any]]:
    """A run of the project as it lies in the folder of runs, its model filled at random."""
    settings = open_settings(project, [])
    learner = load_entry(project, settings.entry).learner(settings.settings)
    rng = np.random.default_rng(1)
    model = pack({name: rng.normal(size=t.shape).astype(np.float32) for name, t in learner.init(1).items()})
    folder = runs / "r-1"
    folder.mkdir(parents=True)
    result = finished(project=settings.name, model_digest=digest_bytes(model), **more)
    (folder / MODEL).write_bytes(model)
    (folder / "result.json").write_text(json.dumps(result))
    return folder, result


def test_a_run_of_a_project_is_written_and_answers_probabilities(project: Path) -> None:
    run, result = kept(project, project / "runs")
    done = export_run(run, result, project, project / "model.onnx")
    assert done.difference is not None
    assert done.difference < 1e-5
    y = run_graph(done.file.read_bytes(), np.zeros((3, 8), np.float32))
    assert y.shape == (3, 4)
    assert y.sum(axis=1) == pytest.approx(1)


def test_a_learner_that_exports_another_model_writes_nothing(project: Path) -> None:
    run, result = kept(project, project / "runs")
    estimator = project / "detector" / "estimator.py"
    twice = (
        "\n\nclass Twice(SoftmaxClassifier):\n    def export(self, model):\n"
        "        return super().export({k: 2 * v for k, v in model.items()})\n"
    )
    text = estimator.read_text().replace("return SoftmaxClassifier(", "return Twice(")
    estimator.write_text(text + twice)
    with pytest.raises(LearnerError, match="the exported ONNX differs from the learner"):
        export_run(run, result, project, project / "model.onnx")
    assert not (project / "model.onnx").exists()


def test_code_that_makes_another_model_by_now_is_named(project: Path) -> None:
    run, result = kept(project, project / "runs")
    toml = project / "reuna.toml"
    toml.write_text(toml.read_text().replace("[signals]", "[signals]\nmore = {}"))
    with pytest.raises(LearnerError, match="makes a model of other names or shapes") as caught:
        export_run(run, result, project, project / "model.onnx")
    assert "--set" in caught.value.next_step


def test_another_project_than_the_runs_is_refused(project: Path) -> None:
    run, result = kept(project, project / "runs")
    with pytest.raises(ProjectError, match="is the project 'tennessee-eastman', the run was of 'pumps'"):
        export_run(run, result, PROJECT, project / "model.onnx")


@pytest.mark.parametrize(
    "harm", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes() + b" ")]
)
def test_a_model_that_is_not_the_runs_is_refused(project: Path, harm: Any) -> None:
    run, result = kept(project, project / "runs")
    harm(run / MODEL)
    with pytest.raises(Corrupted):
        export_run(run, result, project, project / "model.onnx")


def test_the_command_finds_the_demos_own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(PROJECT, tmp_path / "runs", split=1)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", "plants.onnx"])
    assert done.exit_code == 0
    assert "plants.onnx: " in done.output
    assert "the learner's answers on 256 rows" in done.output
    told = json.loads(CliRunner().invoke(app, ["export", "plants.onnx", "r-1", "--json"]).output)
    assert told["bytes"] == (tmp_path / "plants.onnx").stat().st_size
    assert told["largest_difference"] < 1e-5
