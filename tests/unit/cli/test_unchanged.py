"""What is said of a run whose inputs an earlier one had, and of one where nobody can know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reuna.cli.unchanged import taken
from reuna.fleet.data import DataNode, find_nodes
from reuna.fleet.layout import Fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.session import Job
from reuna.template import make_project
from reuna.wire import digest_bytes
from tests.finished import finished


@pytest.fixture
def job(tmp_path: Path) -> Job:
    project = tmp_path / "pumps"
    make_project(project, sample=True)
    return Job(project, open_settings(project, []), find_nodes(project / "data"), tmp_path / "runs")


def ended(job: Job, name: str, fleet: Fleet | None = None) -> dict[str, Any]:
    """The job's result, as if it had been carried out."""
    folder = job.runs / name
    folder.mkdir(parents=True)
    notes = taken(job, fleet, again=True)[0].note(job.runs)
    fields = {"round": 1, "took_part": 4, "absent": "", "loss": 0.5}
    told = [{"what": "round", "round": 1, "at": 1.0, "fields": fields}]
    result = finished(name, rounds=1, timeline=told, model_digest=digest_bytes(b"model"), **notes)
    (folder / "model.safetensors").write_bytes(b"model")
    (folder / "result.json").write_text(json.dumps(result))
    return json.loads(json.dumps(result))  # type: ignore[no-any-return]


def test_an_unchanged_run_is_shown_and_said_to_be(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert taken(job, None, again=False)[1] is None
    result = ended(job, "r-1")
    assert capsys.readouterr().err == ""
    assert taken(job, None, again=False)[1] == (job.runs / "r-1", result)
    said = capsys.readouterr().err
    assert said.startswith(f"unchanged since r-1: model sha256:{digest_bytes(b'model')}")
    assert "--again" in said
    assert taken(job, None, again=True)[1] is None
    assert capsys.readouterr().err == ""


def test_of_results_that_cannot_be_read_none_answers_and_nothing_is_said(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ended(job, "r-1")["inputs"]["settings"]
    (job.runs / "r-1" / "result.json").write_text(f'{{"run": "{settings}"')
    assert taken(job, None, again=False)[1] is None
    assert capsys.readouterr().err == ""


def test_where_the_data_lie_elsewhere_it_is_said_that_they_are_not_known_and_it_trains(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Fleet("line-4", job.runs.parent, (), {"north": tuple(node.name for node in job.nodes)})
    far = replace(job, nodes=[DataNode(node.name, "north", Path()) for node in job.nodes])
    assert taken(far, fleet, again=False)[1] is None
    ended(far, "r-1", fleet)
    assert taken(far, fleet, again=False)[1] is None
    assert "are those of r-1; the data of the sites are not known to be unchanged" in capsys.readouterr().err
    other = replace(fleet, name="line-5")
    assert taken(far, other, again=False)[1] is None
    assert capsys.readouterr().err == "", "another fleet's run says nothing of this one"
