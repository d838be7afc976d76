"""What is said of a run whose inputs an earlier one had, and of one where nobody can know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.cli.unchanged import taken
from reuna.core.errors import PermissionDenied, ReunaError
from reuna.core.fingerprint import Window, as_fields
from reuna.fleet import same
from reuna.fleet.client import Operator
from reuna.fleet.data import DataNode, find_nodes
from reuna.fleet.layout import Fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.same import Told
from reuna.fleet.session import Job
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec
from reuna.template import make_project
from reuna.wire import digest_bytes
from tests.finished import finished

ASKED = msgspec.to_builtins(make_spec(fleet_of(1, 2), Walker(), 1)[0])


@pytest.fixture
def job(tmp_path: Path) -> Job:
    project = tmp_path / "pumps"
    make_project(project, sample=True)
    return Job(project, open_settings(project, []), find_nodes(project / "data"), tmp_path / "runs")


def ended(
    job: Job,
    name: str,
    opened: tuple[Fleet, Operator] | None = None,
    more: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The job's result, as if it had been carried out."""
    folder = job.runs / name
    folder.mkdir(parents=True)
    notes = taken(job, opened, again=True)[0].note(job.runs)
    fields = {"round": 1, "took_part": 4, "absent": "", "loss": 0.5}
    told = [*more, {"what": "round", "round": 1, "at": 1.0, "fields": fields}]
    result = finished(
        name, rounds=1, timeline=told, model_digest=digest_bytes(b"model"), asked=ASKED, **notes
    )
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


# --- machines that joined --------------------------------------------------------------------------

NOBODY: Operator = None  # type: ignore[assignment]  # who is not asked


class Nodes:
    """What the nodes of a fleet say of their data, one more each time they are asked."""

    def __init__(self, *told: dict[str, Told] | ReunaError) -> None:
        self.told = list(told)
        self.asked: list[str] = []

    async def ask(self, _operator: Operator, _folder: Path, result: Any, _watch: Any) -> dict[str, Told]:
        self.asked.append(result["run"])
        told = self.told.pop(0)
        if isinstance(told, ReunaError):
            raise told
        return told


def far(job: Job) -> tuple[Job, tuple[Fleet, Operator]]:
    """The same machines, which are somewhere else."""
    fleet = Fleet("line-4", job.runs.parent, (), {"north": tuple(node.name for node in job.nodes)})
    return replace(job, nodes=[DataNode(node.name, "north", Path()) for node in job.nodes]), (fleet, NOBODY)


def has(job: Job, mark: str = "a") -> dict[str, Told]:
    return {node.name: Told(mark * 64, "5" * 64) for node in job.nodes}


def told_in(told: dict[str, Told]) -> list[dict[str, Any]]:
    return [
        {"what": "data", "node": node, "round": 1, "at": 1.0,
         "fields": as_fields(Window(each.fingerprint, 1, 9, each.setup), 90)}
        for node, each in told.items()
    ]  # fmt: skip


@pytest.fixture
def there(job: Job) -> tuple[Job, tuple[Fleet, Operator]]:
    return far(job)


def test_when_every_node_says_that_it_has_the_same_data_nothing_is_trained(
    there: tuple[Job, tuple[Fleet, Operator]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, opened = there
    nodes = Nodes(has(job, "a"), has(job, "c"))
    monkeypatch.setattr(same, "ask", nodes.ask)
    assert taken(job, opened, again=False)[1] is None
    assert nodes.asked == [], "of a run that there never was nobody asks"
    ended(job, "r-1", opened, told_in(has(job, "a")))
    ended(job, "r-2", opened, told_in(has(job, "b")))
    before = taken(job, opened, again=False)[1]
    assert before is not None
    assert before[1]["run"] == "r-1", "the data are again what they were before"
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "code, settings and participants are those of r-2; every node is asked whether its data are the same"
    )
    assert said[1].startswith(f"unchanged since r-1: model sha256:{digest_bytes(b'model')}; nothing")
    assert taken(job, opened, again=False)[1] is None
    assert "since r-2 the data changed at 4 of 4 nodes: pump-1, pump-2, pump-3, pump-4; so it trains" in (
        capsys.readouterr().err
    )
    assert nodes.asked == ["r-2", "r-2"]
    assert taken(job, opened, again=True)[1] is None
    assert taken(job, (replace(opened[0], name="line-5"), NOBODY), again=False)[1] is None
    assert nodes.asked == ["r-2", "r-2"], "nobody asks for --again, nor of another fleet's run"
    assert capsys.readouterr().err == ""


def test_when_nobody_can_be_asked_or_no_answer_would_do_it_is_said_and_it_trains(
    there: tuple[Job, tuple[Fleet, Operator]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, opened = there
    nodes = Nodes(PermissionDenied("vera may not do that"))
    monkeypatch.setattr(same, "ask", nodes.ask)
    some = has(job)
    del some["pump-3"]
    ended(job, "r-1", opened, told_in(some))
    assert taken(job, opened, again=False)[1] is None
    assert "those of r-1; it has no fingerprint of the data of pump-3 (" in capsys.readouterr().err
    assert nodes.asked == []
    ended(job, "r-0", opened, told_in(has(job)))
    assert taken(job, opened, again=False)[1] is None
    assert nodes.asked == ["r-0"]
    assert (
        "the nodes could not be asked: vera may not do that [R302]; so it trains" in capsys.readouterr().err
    )
