"""What the cloud trained by itself is released here, from git's code and gates; or it says why it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from reuna.adapters.files import replace_file
from reuna.adapters.project import load_entry, pack_bundle
from reuna.cloud.train import round_summary
from reuna.core.desired import Trained
from reuna.core.records import Event, Member, ReleaseAsked, RunSpec
from reuna.core.tensors import layout_of, pack
from reuna.fleet.client import Operator
from reuna.fleet.fetched import span, within
from reuna.fleet.layout import Fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.release import Catalogue, lineage
from reuna.fleet.trained import Workplace, look, release
from reuna.loop.deploy import next_trained, trained_line
from reuna.template import make_project
from reuna.trust.ledger import Entry
from reuna.wire import digest_bytes

GATES = "\n[gates]\nall = {{ min = {min}, max_drop = 0.05 }}\n"


class Cloud:
    """Knows runs that it began by itself, and what was proposed to it."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.listed: list[dict[str, Any]] = []
        self.asked_: dict[str, RunSpec] = {}
        self.models: dict[str, bytes] = {}
        self.outcomes: dict[str, Any] = {}
        self.proposed: list[dict[str, Any]] = []
        self.fetched: list[str] = []

    def train(self, run: str, value: float, *, seed: int = 1, why: str = "schedule nightly") -> None:
        """A run of the code that lies there now; ``seed`` makes another model."""
        told = open_settings(self.project, [])
        tensors = load_entry(self.project, told.entry).learner(told.settings).init(told.seed)
        model = pack({name: array + seed for name, array in tensors.items()})
        bundle = pack_bundle(self.project)
        self.asked_[run] = RunSpec(
            run, "pumps", told.task, told.metric, 2, told.strategy, {"north": ("pump-1",)}, "ab" * 32, 9,
            layout_of(tensors).params, digest_bytes(bundle), len(bundle), settings=dict(told.settings), why=why,
        )  # fmt: skip
        self.models[digest_bytes(model)] = model
        self.outcomes[run] = {
            "model": digest_bytes(model), "rounds": 2, "federated": {"pump-1": {"all": value}},
        }  # fmt: skip
        self.listed.insert(0, {"run": run, "project": "pumps", "state": "done", "why": why})

    def runs(self) -> list[dict[str, Any]]:
        return self.listed

    def asked(self, run: str) -> RunSpec:
        self.fetched.append(run)
        return self.asked_[run]

    def status(self, run: str) -> dict[str, Any]:
        return {"state": "done", "result": self.outcomes[run]}

    def timeline(self, run: str, _after: int) -> list[dict[str, Any]]:
        fields = round_summary(1, [Member("pump-1", 96, metrics={"loss": 0.5})], 4.0, 9)
        return [msgspec.to_builtins(Event("cloud", "b", 1, 104.0, "round", run, 1, fields))]

    def get_blob(self, digest: str) -> bytes:
        return self.models[digest]

    def proposals(self) -> list[dict[str, Any]]:
        return self.proposed

    def propose_release(self, asked: ReleaseAsked) -> str:
        import hashlib

        number = f"p-{len(self.proposed) + 1}"
        self.proposed.append({
            "id": number, "action": "releases.make", "summary": asked.summary(), "waiting": True,
            "digest": hashlib.sha256(msgspec.json.encode(asked)).hexdigest(), "by": "anna", "at": 1.0,
            "decided": "", "decided_by": "", "decided_at": 0.0,
        })  # fmt: skip
        return number

    def decide(self, word: str) -> None:
        self.proposed[-1].update(waiting=False, decided=word, decided_by="ben", decided_at=2.0)


class Place:
    """A project, a catalogue, and a cloud."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.project = folder, folder / "pumps"
        make_project(self.project, sample=False)
        self.gated(0.9)
        self.cloud = Cloud(self.project)
        fleet = Fleet("mill", folder, (), {"north": ("pump-1",)})
        self.at = Workplace(
            fleet, cast("Operator", self.cloud), folder / "runs", folder / "releases", {"pumps": self.project}
        )

    def gated(self, least: float, more: str = "") -> None:
        file = self.project / "reuna.toml"
        file.write_text(file.read_text().partition("\n[gates]")[0] + GATES.format(min=least) + more)

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue.of(self.folder / "releases", "pumps")

    def turn(self) -> tuple[list[str], list[str]]:
        return release(self.at, [each for each in look(self.at) if each.state == "ready"])

    def said(self) -> list[tuple[str, str, str]]:
        return [(each.run, each.state, each.said) for each in look(self.at)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    pytest.importorskip("onnxruntime")
    return Place(tmp_path)


def test_what_passes_becomes_the_challenger_once_and_says_where_it_comes_from(place: Place) -> None:
    place.cloud.train("nightly-1", 0.95)
    assert place.said() == [("nightly-1", "ready", "closest all min 0.9 at north, which has 0.95")]
    done, left = place.turn()
    assert (done, left) == (
        [f"release pumps 1 of nightly-1, the challenger: {place.catalogue.file(1)}"],
        [],
    )
    history = lineage(place.catalogue.read("challenger"))
    assert (history["run"], history["data"]) == ("nightly-1", [{"node": "pump-1", "samples": 96}])
    assert place.said() == []
    assert place.turn() == ([], [])
    kept = json.loads((place.folder / "runs" / "nightly-1" / "result.json").read_text())
    assert (kept["asked"]["why"], kept["wall_s"]) == ("schedule nightly", 4.0)


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_kill_while_a_release_is_added_loses_and_doubles_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    place.cloud.train("nightly-1", 0.95)
    ready = look(place.at)
    left = iter(range(writes))

    def cut(*words: Any) -> None:
        replace_file(*words)
        if next(left) == writes - 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("reuna.fleet.release.replace_file", cut)
        release(place.at, ready)
    place.turn()
    assert (place.catalogue.versions(), place.catalogue.aliases()) == ([1], {"challenger": 1})
    place.catalogue.promote(1)
    place.turn()
    assert place.catalogue.aliases() == {"champion": 1}, "what was finished is not begun again"


def test_what_fails_its_gates_is_not_released_and_says_where(place: Place) -> None:
    place.cloud.train("nightly-1", 0.7)
    assert place.turn() == ([], [])
    (found,) = look(place.at)
    assert trained_line(found) == (
        "✗ nightly-1 of pumps, schedule nightly, is not released: worst all min 0.9 at north, which has 0.7"
    )
    assert place.catalogue.versions() == []


def test_the_champion_of_the_catalogue_is_what_it_is_held_against(place: Place) -> None:
    place.cloud.train("nightly-1", 0.99)
    place.turn()
    place.catalogue.promote(1)
    place.cloud.train("nightly-2", 0.91, seed=2)
    ((_, state, said),) = place.said()
    assert (state, "max_drop" in said) == ("stopped", True)


def test_a_result_is_fetched_once(place: Place) -> None:
    place.cloud.train("nightly-1", 0.7)
    for _ in range(3):
        look(place.at)
    assert place.cloud.fetched.count("nightly-1") == 2, "the run's code is compared, then all is collected"


def test_data_that_did_not_change_give_no_new_release(place: Place) -> None:
    place.cloud.train("nightly-1", 0.95)
    place.turn()
    place.cloud.train("nightly-2", 0.95)
    assert place.said() == [("nightly-2", "same", "it is the model of release 1")]
    assert place.turn() == ([], [])
    place.cloud.train("nightly-3", 0.95, seed=3)
    place.turn()
    assert place.catalogue.versions() == [1, 2]


def other_code(place: Place) -> None:
    (place.project / "detector" / "model.py").write_text("# other\n")


def other_settings(place: Place) -> None:
    file = place.project / "reuna.toml"
    file.write_text(file.read_text().replace("rate = 0.1", "rate = 0.2"))


def no_gates(place: Place) -> None:
    file = place.project / "reuna.toml"
    file.write_text(file.read_text().partition("\n[gates]")[0])


def gone(place: Place) -> None:
    place.at.sources["pumps"].rename(place.folder / "away")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_code, "that of nightly-1"),
        (other_settings, "is not what nightly-1 had"),
        (no_gates, "declares no gates"),
        (gone, "is no project"),
    ],
)
def test_what_git_has_now_must_be_what_the_run_had(
    place: Place, change: Callable[[Place], None], said: str
) -> None:
    place.cloud.train("nightly-1", 0.95)
    change(place)
    ((_, state, why),) = place.said()
    assert (state, said in why) == ("stopped", True), why
    assert place.turn() == ([], [])


def test_the_gates_are_those_of_git_whatever_the_cloud_says_of_them(place: Place) -> None:
    place.cloud.train("nightly-1", 0.7)
    place.cloud.listed[0]["gates"] = {"decision": "pass"}
    assert place.said()[0][1] == "stopped"


def test_a_second_person_is_asked_where_the_project_says_so_and_the_wait_shows(place: Place) -> None:
    place.gated(0.9, "\n[release]\napproval = true\n")
    place.cloud.train("nightly-1", 0.95)
    done, (left,) = place.turn()
    assert (done, "pumps 1 waits for a second person" in left) == ([], True)
    assert place.said() == [("nightly-1", "waits", "reuna proposals approve p-1")]
    assert place.turn() == ([], []), "asked once"
    assert (len(place.cloud.proposed), place.catalogue.versions()) == (1, [])
    place.cloud.decide("approved")
    assert place.said()[0][1] == "ready"
    assert len(place.turn()[0]) == 1
    assert (place.catalogue.approval(1) or {})["decided_by"] == "ben"


def test_what_a_second_person_refused_is_not_asked_again(place: Place) -> None:
    place.gated(0.9, "\n[release]\napproval = true\n")
    place.cloud.train("nightly-1", 0.95)
    place.turn()
    place.cloud.decide("rejected")
    assert place.said() == [("nightly-1", "refused", "proposal p-1 was rejected by ben")]
    assert place.turn() == ([], [])
    assert len(place.cloud.proposed) == 1


def run(name: str, **more: Any) -> dict[str, Any]:
    return {"run": name, "project": "pumps", "state": "done", "why": "schedule n", **more}


@pytest.mark.parametrize(
    ("runs", "released", "found"),
    [
        ([], (), None),
        ([run("b"), run("a")], (), "b"),
        ([run("c", state="running"), run("b"), run("a")], (), "b"),
        ([run("c", state="failed"), run("b")], (), "b"),
        ([run("b", why=""), run("a")], (), "a"),
        ([run("b", project="ovens"), run("a")], (), "a"),
        ([run("b"), run("a")], ("b",), None),
        ([run("b", why=""), run("a")], ("b",), None),
        ([run("b"), run("a")], ("a",), "b"),
    ],
)
def test_the_newest_that_the_cloud_began_and_nobody_released_since_is_next(
    runs: list[dict[str, Any]], released: tuple[str, ...], found: str | None
) -> None:
    told = next_trained(runs, "pumps", released)
    assert (told and told["run"]) == found


def test_what_left_is_counted_from_the_first_step_to_the_last() -> None:
    events: list[dict[str, Any]] = [
        {"what": "disk was full", "at": 50.0, "fields": {"seconds": "many"}},
        {"what": "round", "at": 104.0, "fields": {"seconds": 4.0}},
        {"what": "evaluate", "at": 110.0, "fields": {"seconds": 2.5}},
    ]
    assert span(events) == (100.0, 110.0)
    assert span([]) == (0.0, 0.0)
    early, late = (Entry(time_ms=at, kind="intent") for at in (110_000, 110_001))
    assert within({"pump-1": [early, late]}, 110.0) == {"pump-1": [early]}


def test_each_state_has_its_own_sign() -> None:
    signs = {
        state: trained_line(Trained("p", "r", "w", state))[0]
        for state in ("ready", "waits", "same", "refused")
    }
    assert signs == {"ready": "+", "waits": "…", "same": "=", "refused": "✗"}
