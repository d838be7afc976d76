"""What `reuna check --against` makes of the answers, and what it asks for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.cli import against as shown
from reuna.core.errors import ABSENCES, RunFailed, Unreachable
from reuna.core.readiness import ABOUT, NEEDED, needs_of
from reuna.core.records import Event, Member, RunSpec, Said
from reuna.fleet import against
from reuna.fleet.against import ask, cell, report, sentence, signs_itself, smallest
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.officer import key_file
from reuna.fleet.open_project import open_settings
from reuna.loop import train
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec
from reuna.template import make_project
from reuna.trust.requests import REASONS
from reuna.wire import digest_bytes

YES = tuple(map(Said, ABOUT))
SPEC = make_spec(fleet_of(1, 2), Walker(), 1, run="c-1")[0]
COUNTS = {
    "version": 1,
    "passed/range": 90,
    "failed/range": 10,
    "passed/range/flow_m3_h": 90,
    "failed/range/flow_m3_h": 10,
}


def told(*members: Member) -> dict[str, Any]:
    return report(SPEC, list(members), {"a": "north", "b": "north"}, [])


def test_a_fleet_is_ready_when_every_edge_says_yes_to_all_that_counts() -> None:
    good = Member("a", said=YES)
    assert told(good)["ready"]
    assert not told()["ready"], "a fleet of which nobody answers is not"
    for about in ABOUT:
        said = (*(each for each in YES if each.about != about), Said(about, "wait"))
        assert told(good, Member("b", said=said))["ready"] is (about == "statistic")


def test_who_says_nothing_is_not_ready_and_why_is_told() -> None:
    reasons = {
        train.UNHEARD: "no answer in time",
        train.OLDER: "older version of Reuna",
        "": "its fog runs an older version",
        f"R401 {ABSENCES['R401']}": "its disk is full",
    }
    for absent, words in reasons.items():
        (edge,) = told(Member("a", absent=absent))["edges"]
        assert not edge["ready"]
        assert words in edge["absent"]


def test_every_word_that_is_no_plain_yes_has_a_sentence() -> None:
    for about in ABOUT:
        for why in ("", *REASONS, *ABSENCES):
            for word in ("wait", "no"):
                assert sentence(Said(about, word, why))  # type: ignore[arg-type]
        assert sentence(Said(about)) == ""
    assert sentence(Said("libraries", "yes", "numpy")) == "numpy has another version"
    assert "was not loaded" in sentence(Said("memory", "yes", "lower-bound"))


def test_the_smallest_node_is_that_with_the_least_to_spare() -> None:
    edges = told(
        Member("a", said=YES, metrics={NEEDED: 100.0, "memory_free_mib": 900.0}),
        Member("b", said=YES, metrics={NEEDED: 500.0, "memory_free_mib": 1000.0}),
        Member("c", said=YES),
    )["edges"]
    found = smallest(edges)
    assert found is not None
    assert found["node"] == "b"
    assert smallest(edges[2:]) is None


def test_the_table_says_each_thing_and_the_lines_below_it_why(capsys: pytest.CaptureFixture[str]) -> None:
    said = (Said("code", "wait", "code-ask"), *YES[1:3], Said("libraries", "no", "torch"))
    found = told(Member("a", said=YES), Member("b", said=said))
    assert [cell(found["edges"][1], about) for about in ("code", "data", "libraries", "memory")] == [
        "waits",
        "yes",
        "no",
        "–",
    ]
    shown._show(found)
    out = capsys.readouterr().out
    assert "north/b: code: waits: the code waits for an officer's approval [code-ask]; officers" in out
    assert "north/b: libraries: no: torch is not installed\n" in out
    assert "1 of 2 edges are ready" in out
    assert max(map(len, out.splitlines()[:3])) <= 80


# --- asking -----------------------------------------------------------------------------------


class Cloud:
    """A cloud that answers a check after some looks, as the test says."""

    def __init__(self, *states: str, members: list[Member] | None = None, late: int = 0) -> None:
        self.states = list(states)
        self.members = members if members is not None else [Member("pump-1", said=YES)]
        self.late = late
        self.blobs: list[str] = []
        self.spec: RunSpec | None = None

    def put_blob(self, data: bytes) -> str:
        self.blobs.append(digest_bytes(data))
        return self.blobs[-1]

    def check(self, spec: RunSpec) -> None:
        self.spec = spec

    def checked(self, run: str) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        found = {"state": state, "edges": ["pump-1"], "members": [], "message": "the disk is full"}
        return {**found, "members": msgspec.to_builtins(self.members)} if state == "done" else found

    def timeline(self, run: str, after: int) -> list[dict[str, Any]]:
        self.late -= 1
        event = Event("pump-1", "b", 1, 1.0, "contract", run, 1, dict(COUNTS))
        return [] if self.late >= 0 else [msgspec.to_builtins(event)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "pumps"
    make_project(folder, sample=False, learner="scikit-learn")
    return folder


def asked(cloud: Cloud, project: Path) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    fleet = Fleet("mill", project, (), {"north": ("pump-1",)})
    settings = open_settings(project, [])
    operator: Operator = cloud  # type: ignore[assignment]
    return asyncio.run(ask(fleet, operator, project, settings, 5.0, lines.append)), lines


def test_what_is_asked_is_the_run_that_would_be_begun(project: Path) -> None:
    cloud = Cloud("queued", "asking", "done")
    found, lines = asked(cloud, project)
    assert cloud.spec is not None
    assert cloud.spec.run.startswith("c-")
    assert cloud.blobs == [cloud.spec.bundle], "the code goes to the cloud, no model does"
    assert cloud.spec.deadline_s == 5.0
    needs = needs_of(cloud.spec.settings)
    assert {"numpy", "sklearn"} <= {each.name for each in needs.modules}
    assert all(each.version for each in needs.modules)
    assert "all" in needs.metrics
    assert len(needs.schema) == 64
    assert found["ready"]
    assert json.dumps(found)
    assert lines[0] == "waits for its turn among the rounds of runs"
    assert lines[-1] == "1 of 1 edges have answered (at most 5 s)"


def test_who_was_not_heard_of_does_not_count_as_an_answer(project: Path) -> None:
    cloud = Cloud("done", members=[Member("pump-1", absent=train.UNHEARD)])
    assert asked(cloud, project)[1] == ["0 of 1 edges have answered (at most 5 s)"]


def test_counts_that_come_later_than_the_words_are_waited_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against, "POLL_S", 0.001)
    found, _ = asked(Cloud("done", late=3), project)
    rules = found["edges"][0]["contract"]["rules"]
    assert [(x["rule"], x["signal"], x["broken"]) for x in rules][1] == ("range", "flow_m3_h", True)


def test_counts_of_a_site_that_keeps_them_are_not_waited_for(project: Path) -> None:
    said = (*(each for each in YES if each.about != "statistic"), Said("statistic", "no", "kind"))
    found, _ = asked(Cloud("done", members=[Member("pump-1", said=said)], late=10**9), project)
    assert found["ready"]
    assert found["edges"][0]["contract"] is None


def test_a_check_that_fails_or_never_has_its_turn_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunFailed, match="the disk is full"):
        asked(Cloud("failed"), project)
    monkeypatch.setattr(against, "QUEUE_S", -1.0)
    with pytest.raises(Unreachable, match="waited for its turn"):
        asked(Cloud("queued"), project)


def test_where_all_keys_lie_here_a_run_approves_the_code_itself(tmp_path: Path) -> None:
    waits = told(Member("a", said=(Said("code", "wait", "code-ask"),)))
    fleet = make_fleet(tmp_path / "fleet", "mill", {"north": {"a": tmp_path}})
    assert signs_itself(fleet, waits)
    assert not signs_itself(fleet, told(Member("a", said=YES)))
    assert not signs_itself(Fleet("mill", tmp_path, (), {"north": ("a",)}), waits)
    key_file(fleet.folder).unlink()
    assert not signs_itself(fleet, waits)
