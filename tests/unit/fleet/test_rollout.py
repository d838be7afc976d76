"""From a project's settings and a signed list to what is asked of the cloud, and how that goes on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reuna.core.errors import RolloutProblem, Unreachable
from reuna.core.project import ProjectSettings, project_settings
from reuna.core.rollout import Wave
from reuna.core.settings import Source
from reuna.fleet import rollout
from reuna.fleet.rollout import follow, line, name_of, spec_of, version_of
from reuna.wire.build import sha256
from reuna.wire.release import decode
from tests.releases import release

ANSWER = {
    "fogs": {"north": ["e1", "e2"], "south": ["e3"]},
    "releases": [
        {"project": "pumps", "version": 3, "digest": "3" * 64},
        {"project": "pumps", "version": 4, "digest": "4" * 64},
        {"project": "ovens", "version": 9, "digest": "9" * 64},
    ],
}
NOW = 1_767_225_600.0


def project(**more: object) -> ProjectSettings:
    values = {"project": {"name": "pumps"}, "machines": {"small": ["e1", "e3"]}, **more}
    return project_settings([Source("reuna.toml", values)], {"fedavg": ()})


def test_without_a_word_it_is_the_newest_that_is_listed_by_the_projects_own_waves() -> None:
    found = spec_of(project(rollout={"waves": ["small", "all"], "soak_s": 5}), ANSWER, None, [], "", NOW)
    assert (found.version, found.sha256) == (4, "4" * 64)
    assert found.waves == (Wave("small", ("e1", "e3")), Wave("all"))
    assert found.terms.soak_s == 5.0
    assert found.rollout == "pumps-4-20260101-000000"
    assert not found.approval


def test_what_is_said_stands_above_what_is_usual() -> None:
    settings = project(release={"approval": True})
    found = spec_of(settings, ANSWER, 3, ["e2", "all"], "mine", NOW)
    assert (found.version, found.waves, found.rollout) == (3, (Wave("e2"), Wave("all")), "mine")
    assert found.approval


def test_a_release_that_is_not_listed_yet_is_waited_for() -> None:
    wanted = version_of(decode(release(7)), "pumps")
    found = spec_of(project(), ANSWER, wanted, [], "", NOW)
    assert (found.version, found.sha256, found.waits) == (7, sha256(release(7)), True)
    with pytest.raises(RolloutProblem, match="the release is of ovens, the project is pumps"):
        version_of(decode(release(7, "ovens")), "pumps")


@pytest.mark.parametrize("version", [5, 9])
def test_a_version_that_no_node_may_take_is_refused_with_those_that_there_are(version: int) -> None:
    with pytest.raises(RolloutProblem, match=f"of pumps {version} is not listed for nodes; listed: 3, 4"):
        spec_of(project(), ANSWER, version, [], "", NOW)


def test_a_name_can_stand_in_a_path_whatever_the_project_is_called() -> None:
    assert name_of("Pumps, hall 2", "back", NOW) == "pumps-hall-2-back-20260101-000000"
    assert name_of("Ö", 1, NOW).startswith("project-1-")


class Cloud:
    """Answers with one thing after the other; an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers: Iterator[Any] = iter(answers)
        self.marks: list[int] = []

    def rollout(self, _name: str, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
        self.marks.append(after)
        found = next(self.answers)
        if isinstance(found, Exception):
            raise found
        return dict(found)


def where(phase: str, mark: int, **more: Any) -> dict[str, Any]:
    wave = {"name": "north", "nodes": ["e1", "e2"], "confirmed": 1, "rolled_back": 0}
    base = {
        "mark": mark,
        "rollout": "ro-1",
        "phase": phase,
        "wave": 1,
        "waves": [wave],
        "why": "",
        "next": None,
    }
    return {**base, "nodes": {"e1": {"said": "confirmed"}, "e2": {"said": ""}}, **more}


def test_it_is_followed_to_its_end_also_over_a_cloud_that_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "AWAY_S", 0.0)
    cloud = Cloud(where("wave", 1), Unreachable("away"), where("wave", 2), where("done", 3))
    assert [each["phase"] for each in follow(cloud, "ro-1")] == ["wave", "done"], "the same is told once"
    assert cloud.marks == [0, 1, 1, 2]


def test_a_cloud_that_stays_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "PATIENCE_S", -1.0)
    with pytest.raises(Unreachable):
        list(follow(Cloud(Unreachable("away")), "ro-1"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (where("wave", 1), "wave 1/1 north  █████░░░░░ 1/2 confirmed"),
        (
            where("wave", 1, next=NOW),
            "wave 1/1 north  █████░░░░░ 1/2 confirmed; until 2026-01-01 00:00:00 UTC",
        ),
        (
            where("paused", 1, why="paused by anna"),
            "wave 1/1 north  █████░░░░░ 1/2 confirmed, paused: paused by anna",
        ),
        (where("shadow", 1), "shadow   █████░░░░░ 1/2 of the nodes run it beside"),
        (where("planned", 1, wave=0), "planned"),
        (where("wave", 1, trouble="R108 no key"), "waits, for its stages cannot be signed: R108 no key"),
        (where("failed", 1, why="e1 went back: safe"), "ro-1 is failed: e1 went back: safe"),
    ],
)
def test_where_it_is_is_one_line(found: dict[str, Any], said: str) -> None:
    assert line(found) == said
