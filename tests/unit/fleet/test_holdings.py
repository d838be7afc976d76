"""Which edge holds which release: what a person and a script see, and how long they wait for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reuna.core.errors import NotHeld, SettingsError, Unreachable
from reuna.core.operating import Operating
from reuna.core.records import Holding
from reuna.fleet.holdings import as_dict, look, runs, state_of, wait, wanted_of
from tests.releases import release, target

ONE, TWO = target(release(1), 1), target(release(2), 2)
KNOWN = {"e1": "north", "e2": "north"}


def answer(
    said: dict[str, list[tuple[int, str]]], mark: int = 1, *more: Any, listed: int = 2
) -> dict[str, Any]:
    """What the cloud says; ``said``: edge -> number and refusal of each release."""
    releases = [
        {"path": each.path, "project": "pumps", "version": each.number, "digest": each.sha256, "size": each.size,
         "where": []}
        for each in (ONE, TWO)[:listed]
    ]  # fmt: skip
    nodes = {
        node: {"at": 5.0, "held": [msgspec.to_builtins(holding(*each)) for each in held]}
        for node, held in said.items()
    }
    return {
        "mark": mark,
        "fleet": "demo",
        "fogs": {"north": ["e1", "e2"]},
        "releases": releases,
        "nodes": nodes,
    }


def holding(number: int, refused: str = "") -> Holding:
    each = (ONE, TWO)[number - 1]
    return Holding(each.path, "pumps", number, each.sha256, 7.0, refused)


ALL = {"e1": [(1, ""), (2, "")], "e2": [(2, "")]}


class Cloud:
    """Answers one after the other, and remembers how long it was asked to wait."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers, self.asked, self.time = list(answers), list[tuple[int, int]](), 0.0

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds

    def releases(self, after: int = 0, wait_s: int = 0) -> dict[str, Any]:
        self.asked.append((after, wait_s))
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        if found["mark"] == after:
            self.time += wait_s
        return found


def wait_at(cloud: Cloud, seconds: float) -> Any:
    return wait(cloud, KNOWN, seconds, cloud.now, cloud.pause)


def test_all_hold_the_newest_that_is_for_them() -> None:
    found = look(answer(ALL), {})
    assert found.complete
    assert as_dict(found)["complete"] is True
    assert [node["node"] for node in as_dict(found)["nodes"]] == ["e1", "e2"]


@pytest.mark.parametrize(
    ("said", "state"),
    [([(1, "")], "waits"), ([(1, ""), (2, "mismatch")], "refused: mismatch"), (None, "nothing heard")],
)
def test_an_edge_that_does_not_hold_it_is_named_with_what_is_known(
    said: list[tuple[int, str]] | None, state: str
) -> None:
    given = {"e1": [(2, "")]} | ({} if said is None else {"e2": said})
    found = look(answer(given), {})
    assert not found.complete
    assert [(node, each.version) for node, each in found.lacking] == [("e2", 2)]
    assert state_of(found, "e2", found.lacking[0][1]) == state
    assert as_dict(found)["nodes"][1]["missing"] == [{"project": "pumps", "version": 2, "digest": TWO.sha256}]
    with pytest.raises(NotHeld, match=rf"after 0\.5 s not held: e2 \({state}\)"):
        wait_at(Cloud(answer(given)), 0.5)


def test_an_edge_of_the_fleets_files_that_was_never_heard_is_waited_for() -> None:
    assert [node for node, _ in look(answer(ALL), {"e3": "south"}).lacking] == ["e3"]


@pytest.mark.parametrize(("listed", "why"), [(0, "no release is listed")])
def test_where_nothing_is_listed_nothing_is_complete(listed: int, why: str) -> None:
    with pytest.raises(NotHeld, match=why):
        wait_at(Cloud(answer({}, listed=listed)), 0.5)


def test_waiting_asks_the_cloud_to_answer_when_something_changes() -> None:
    cloud = Cloud(answer({}, 1), answer({"e1": [(2, "")]}, 2), answer(ALL, 3))
    assert wait_at(cloud, 50).complete
    assert cloud.asked == [(0, 20), (1, 20), (2, 20)]


def test_waiting_ends_in_time_and_with_a_status() -> None:
    cloud = Cloud(answer({}, 1))
    with pytest.raises(NotHeld) as over:
        wait_at(cloud, 45)
    assert over.value.exit_status == 2
    assert 44 <= cloud.time <= 46


def test_a_cloud_that_is_away_for_a_while_is_asked_again() -> None:
    assert wait_at(Cloud(Unreachable("away"), answer(ALL)), 10).complete
    with pytest.raises(Unreachable):
        wait_at(Cloud(Unreachable("away")), 3)


def test_an_answer_that_is_none_of_ours_is_said() -> None:
    with pytest.raises(Unreachable, match="another way"):
        look({"mark": "x"}, {})


def test_who_waits_for_one_version_is_not_content_with_the_one_before() -> None:
    only_one = answer({"e1": [(1, "")], "e2": [(1, "")]}, 1, listed=1)
    for wanted in (None, ("pumps", 1)):
        assert wait(Cloud(only_one), KNOWN, 0.5, wanted=wanted).releases
    cloud = Cloud(only_one)
    with pytest.raises(NotHeld, match=r"pumps 2 is not listed among what nodes may take"):
        wait(cloud, KNOWN, 0.5, cloud.now, cloud.pause, ("pumps", 2))
    cloud = Cloud(only_one, answer(ALL, 2))
    assert wait(cloud, KNOWN, 50, cloud.now, cloud.pause, ("pumps", 2)).holds(("pumps", 2))


def test_other_projects_do_not_matter_to_who_waits_for_one() -> None:
    found = look(answer({"e1": [(2, "")]}), {})
    assert not found.holds(("pumps", 1))
    assert not found.holds(("fans", 1)), "it is not listed"


@pytest.mark.parametrize("text", ["pumps@", "pumps@two", "@3", "pumps@0", "pumps@-1"])
def test_what_names_no_version_is_one_mistake(text: str) -> None:
    with pytest.raises(SettingsError, match="is no version of a release"):
        wanted_of(text)


def test_what_a_node_does_with_each_release_is_said_in_words() -> None:
    told = answer(ALL)
    one = Operating("pumps", 1, ONE.sha256, "confirmed")
    cases = [
        (one, "runs, confirmed", ""),
        (msgspec.structs.replace(one, phase="trial"), "runs, trial", ""),
        (msgspec.structs.replace(one, phase="shadow", beside=2), "runs, confirmed", "shadow"),
        (msgspec.structs.replace(one, phase="rolled_back", gave_up=2, reason="safe"), "runs, confirmed",
         "given up: safe"),
        (msgspec.structs.replace(one, muted=True, reason="latency"), "runs, safe answer alone: latency", ""),
        (msgspec.structs.replace(one, project="ovens"), "", ""),
    ]  # fmt: skip
    for operates, first, second in cases:
        told["nodes"]["e1"]["operates"] = [msgspec.to_builtins(operates)]
        found = look(told, KNOWN)
        said = found.said["e1"]
        assert runs(said, "pumps", ONE.sha256, 1) == first
        assert runs(said, "pumps", TWO.sha256, 2) == second
        assert as_dict(found)["nodes"][0]["operates"] == told["nodes"]["e1"]["operates"]


def test_a_cloud_of_before_says_nothing_of_what_runs() -> None:
    assert as_dict(look(answer(ALL), KNOWN))["nodes"][0]["operates"] == []
