"""Runs in a tracking server: the fake of the simulator, MLflow's own database, a real MLflow server.

MLflow is in an environment of its own; `make test-extras` runs all of this file.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reuna.adapters.mlflow_tracking import installed
from reuna.adapters.mlflow_tracking.names import cut, key, parts
from reuna.cli import app
from reuna.core.errors import NotUsable, Unreachable
from reuna.core.tracking import Measure, Tracked
from reuna.fleet.open_project import open_settings
from reuna.fleet.ports import free_ports
from reuna.fleet.registry import FILES, send_releases, show
from reuna.fleet.release import Catalogue
from reuna.fleet.tracking import Live, default_uri, open_store, send
from reuna.sim.tracker import MemoryTracker
from reuna.template import make_project
from tests.catalogues import add, release
from tests.finished import finished

real = pytest.mark.skipif(not installed(), reason="MLflow is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(170)]
AT = 1795765247.0


@dataclass
class Server:
    """A real MLflow server process, which can be stopped and started again on the same database."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.process is not None:
            return
        words = ["-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        words += ["--artifacts-destination", str(self.folder / "kept")]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        env = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **quiet}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words], stdout=log, stderr=log, env=env, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 100
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < until, (
                self.folder / "server.log"
            ).read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """With its worker, at once."""
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Not started yet."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder whose database is made once: MLflow takes seconds for it."""
    return tmp_path_factory.mktemp("embedded") / "runs"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@dataclass
class Seen:
    """What a tracker holds of a run, whichever tracker it is."""

    state: str
    experiment: str
    params: dict[str, str]
    tags: dict[str, str]
    points: dict[tuple[str, ...], list[tuple[int, float]]]
    files: set[str]


def seen(tracker: Any, run: str) -> Seen:
    if isinstance(tracker, MemoryTracker):
        shown = tracker.runs[run]
        points: dict[tuple[str, ...], list[tuple[int, float]]] = {}
        for each in shown.measures:
            points.setdefault(each.name, []).append((each.step, each.value))
        names = {Path(each).name for each in shown.files}
        return Seen(shown.state, shown.experiment, shown.params, shown.tags, points, names)
    client, there_as = tracker._client, tracker.find(run)
    there = client.get_run(there_as)
    curves = {
        parts(k): [(m.step, m.value) for m in client.get_metric_history(there_as, k)]
        for k in there.data.metrics
    }
    params = {parts(k)[0]: value for k, value in there.data.params.items()}
    experiment = client.get_experiment(there.info.experiment_id).name
    files = {each.path for each in client.list_artifacts(there_as)}
    return Seen(there.info.status.lower(), experiment, params, dict(there.data.tags), curves, files)


def round_event(run: str, number: int) -> dict[str, Any]:
    fields = {
        "round": number,
        "loss": 1 / number,
        "took_part": 2,
        "bytes": 64.0,
        "seconds": 0.1,
        "saturated": 0,
    }
    return {
        "what": "round",
        "run": run,
        "round": number,
        "at": AT + number,
        "node": "cloud",
        "fields": fields,
    }


def keep(runs: Path, run: str, rounds: int = 3, **more: Any) -> Path:
    """A finished run's folder."""
    folder = runs / run
    folder.mkdir(parents=True, exist_ok=True)
    timeline = [round_event(run, number) for number in range(1, rounds + 1)]
    result = finished(run, rounds=rounds, timeline=timeline, **more)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "model.safetensors").write_bytes(b"model")
    return folder


TRACKERS = ["memory", pytest.param("database", marks=real), pytest.param("server", marks=real)]


@pytest.fixture(params=TRACKERS)
def tracker(request: pytest.FixtureRequest, database: Path, server: Server) -> Any:
    if request.param == "memory":
        return MemoryTracker()
    if request.param == "database":
        return open_store(database, "")
    server.start()
    return open_store(database, server.uri)


def sync(runs: Path, *words: str) -> Any:
    where = ["--runs", str(runs), "--releases", str(runs / "releases")]
    return CliRunner().invoke(app, ["mlflow", "sync", *where, *words])


# A server that comes and goes.


@real
def test_a_server_that_is_away_from_the_start_costs_one_line_and_gets_all_later(
    tmp_path: Path, server: Server, asked: None
) -> None:
    server.kill()
    said: list[str] = []
    live = follow(tmp_path, lambda: open_store(tmp_path / "runs", server.uri), said)
    began = time.monotonic()
    for number in range(1, 4):
        live.watch(round_event("r-away", number))
    assert time.monotonic() - began < 0.1
    folder = keep(tmp_path / "runs", "r-away")
    assert not live.finish(folder, json.loads((folder / "result.json").read_text()), grace_s=30)
    assert len(said) == 1 and "reuna mlflow sync" in said[0] and server.uri in said[0]
    done = sync(tmp_path / "runs", "--to", server.uri)
    assert isinstance(done.exception, Unreachable)

    server.start()
    done = sync(tmp_path / "runs", "--to", server.uri, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"to": server.uri, "runs": {"r-away": "sent"}, "releases": {}}
    assert_complete(open_store(tmp_path, server.uri), "r-away", 3)


@real
def test_a_server_that_dies_in_mid_run_and_comes_back_has_each_round_once(
    tmp_path: Path, server: Server, asked: None
) -> None:
    server.start()
    said: list[str] = []
    live = follow(tmp_path, lambda: open_store(tmp_path / "runs", server.uri), said)
    store = open_store(tmp_path, server.uri)
    for number in range(1, 11):
        live.watch(round_event("r-dies", number))
    wait(lambda: store.find("r-dies") and len(seen(store, "r-dies").points.get(("loss",), [])) == 10)
    assert seen(store, "r-dies").state == "running"
    server.kill()
    for number in range(11, 21):
        live.watch(round_event("r-dies", number))
    wait(lambda: said)
    server.start()
    for number in range(21, 31):
        live.watch(round_event("r-dies", number))
    wait(lambda: len(seen(store, "r-dies").points[("loss",)]) == 30)
    folder = keep(tmp_path / "runs", "r-dies", rounds=30)
    assert live.finish(folder, json.loads((folder / "result.json").read_text()), grace_s=60)
    assert len(said) == 1
    assert_complete(store, "r-dies", 30)


def follow(tmp_path: Path, opened: Any, said: list[str]) -> Live:
    make_project(tmp_path / "pumps", sample=False)
    settings = replace(open_settings(tmp_path / "pumps", []), name="pumps")
    return Live(opened, tmp_path / "pumps", settings, said.append, pause_s=0.5)


def wait(is_true: Any, patience_s: float = 60.0) -> None:
    until = time.monotonic() + patience_s
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.1)


def assert_complete(tracker: Any, run: str, rounds: int) -> None:
    shown = seen(tracker, run)
    assert shown.points[("loss",)] == [(n, pytest.approx(1 / n)) for n in range(1, rounds + 1)]
    assert shown.points[("site", "pump-1", "federated", "all")] == [(rounds, 0.9)]
    assert (shown.state, shown.experiment) == ("finished", "pumps")
    assert shown.tags["reuna.worst_site"] == "pump-1"
    assert shown.files == {"report.html", "result.json", "model.safetensors"}


# Every tracker.


def run_of(name: str, **more: Any) -> Tracked:
    return Tracked(run=name, experiment="pumps", began_s=AT, **more)


def test_what_is_put_twice_is_there_once(tracker: Any) -> None:
    points = tuple(Measure(("loss",), 1 / n, n, AT + n) for n in (1, 2, 2, 3))
    whole = run_of(
        "r-twice", params={"strategy.rounds": "3"}, tags={"a": "b"}, measures=points, ended_s=AT + 9
    )
    assert [tracker.put(replace(whole, version=v)) for v in ("1-a", "1-a", "1-b")] == [
        "sent",
        "unchanged",
        "sent",
    ]
    shown = seen(tracker, "r-twice")
    assert shown.points == {("loss",): [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]}
    assert (shown.state, shown.params, shown.tags["a"]) == ("finished", {"strategy.rounds": "3"}, "b")


def test_a_run_that_goes_on_gets_longer_and_may_fail(tracker: Any) -> None:
    tracker.put(run_of("r-fails", measures=(Measure(("loss",), 0.5, 1, AT),)))
    assert seen(tracker, "r-fails").state == "running"
    tracker.put(run_of("r-fails", measures=(Measure(("loss",), 0.4, 2, AT),), ended_s=AT + 3, failed=True))
    shown = seen(tracker, "r-fails")
    assert (shown.state, shown.points[("loss",)]) == ("failed", [(1, 0.5), (2, 0.4)])


def test_names_and_numbers_of_any_kind_arrive(tracker: Any) -> None:
    odd = ["Jyväskylä", "hall 2/b", "..", "", "%$ö e\u0301", "a.b"]
    points = [Measure(("site", name, "federated", "all"), 0.5, 1, AT) for name in odd]
    points += [Measure(("loss",), math.nan, 1, AT)]
    tracker.put(run_of("r-odd", measures=tuple(points), params={"settings.ä|b": "ö" * 10}))
    shown = seen(tracker, "r-odd")
    assert {name[1] for name in shown.points if len(name) > 1} == set(odd)
    assert math.isnan(shown.points[("loss",)][0][1])
    assert shown.params == {"settings.ä|b": "ö" * 10}


def test_many_rounds_arrive_whole(tracker: Any) -> None:
    points = tuple(Measure((name,), float(n), n, AT + n) for n in range(2500) for name in ("loss", "bytes"))
    params = {f"settings.{number}": "ö" * 9000 for number in range(120)}
    tracker.put(run_of("r-many", measures=points, params=params, version="1-a"))
    shown = seen(tracker, "r-many")
    assert (
        [step for step, _ in shown.points[("loss",)]]
        == list(range(2500))
        == [s for s, _ in shown.points[("bytes",)]]
    )
    assert len(shown.params) == 120


# MLflow alone.


@real
def test_the_database_beside_the_runs_is_the_default_and_a_second_sync_changes_nothing(
    database: Path, asked: None
) -> None:
    keep(database, "r-20261127-101500-aaaa", gates=JUDGED)
    keep(database, "r-20261127-111500-bbbb")
    first, second = sync(database), sync(database)
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    assert first.stdout == "r-20261127-101500-aaaa: sent\nr-20261127-111500-bbbb: sent\n"
    assert second.stdout == first.stdout.replace("sent", "there already")
    store = open_store(database, default_uri(database))
    shown = seen(store, "r-20261127-101500-aaaa")
    assert shown.tags["reuna.gates"] == "fail" and "north" in shown.tags["reuna.gates.why"]
    assert_complete(store, "r-20261127-101500-aaaa", 3)
    began = store._client.get_run(store.find("r-20261127-101500-aaaa")).info.start_time
    assert began == 1795774500000  # as its name says


@real
def test_a_run_cut_off_in_the_middle_is_completed(database: Path, asked: None, monkeypatch: Any) -> None:
    folder = keep(database, "r-cut", rounds=1500)
    store = open_store(database, "")
    kept = store._client.log_batch
    calls = []

    def third_fails(*words: Any, **more: Any) -> None:
        calls.append(more)
        if len([each for each in calls if "metrics" in each]) == 3:
            raise ConnectionError("gone")
        kept(*words, **more)

    monkeypatch.setattr(store._client, "log_batch", third_fails)
    with pytest.raises(Unreachable, match="gone"):
        send(store, folder, json.loads((folder / "result.json").read_text()))
    assert sync(database).exit_code == 0
    assert_complete(open_store(database, ""), "r-cut", 1500)


JUDGED = {
    "run": "r", "decision": "fail", "verdicts": [],
    "worst": {"gate": "all min", "metric": "all", "limit": "min", "bound": 0.9, "site": "north", "outcome": "fail",
              "value": 0.7, "margin": -0.2},
}  # fmt: skip


@real
def test_a_run_that_somebody_deleted_there_stays_deleted(database: Path, asked: None) -> None:
    store = open_store(database, "")
    store.put(run_of("r-deleted"))
    store._client.delete_run(store.find("r-deleted"))
    assert open_store(database, "").put(run_of("r-deleted", version="1-a")) == "deleted"
    assert len(open_store(database, "")._client.search_runs(["1"], "tags.`reuna.run` = 'r-deleted'")) == 0


@real
def test_an_experiment_that_somebody_deleted_is_named_with_the_way_back(database: Path, asked: None) -> None:
    store = open_store(database, "")
    made = store._client.create_experiment("gone")
    store._client.delete_experiment(made)
    with pytest.raises(NotUsable, match="'gone' is deleted") as found:
        store.put(replace(run_of("r-gone"), experiment="gone"))
    assert f"restore -x {made}" in found.value.next_step


@real
def test_a_name_that_is_too_long_is_kept_whole_in_a_tag(database: Path) -> None:
    name = ("site", "x" * 300, "federated", "all")
    store = open_store(database, "")
    store.put(run_of("r-long", measures=(Measure(name, 0.5, 1, AT),)))
    there = store._client.get_run(store.find("r-long")).data
    assert list(there.metrics) == [key(name)]
    assert json.loads(there.tags[f"reuna.name.{cut(key(name))}"]) == list(name)


@real
def test_what_is_no_address_of_mlflow_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NotUsable) as found:
        open_store(tmp_path, "nonsense://somebody:secret@host/x")
    assert "secret" not in str(found.value) and "\n" not in str(found.value)


# Releases.


class Shelf:
    """A catalogue of a project of its own, and what a tracker has of it."""

    def __init__(self, folder: Path, tracker: Any, project: str) -> None:
        self.folder, self.tracker, self.project = folder, tracker, project

    def make(self, version: int, run: str) -> Catalogue:
        return add(self.folder / "releases", release(version, self.project, run, model=graph()))

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue.of(self.folder / "releases", self.project)

    def send(self) -> list[str]:
        return list(send_releases(self.tracker, self.catalogue).values())

    def versions(self) -> dict[int, str]:
        """Our version -> digest."""
        if isinstance(self.tracker, MemoryTracker):
            return {each.version: each.digest for each in self.tracker.models.get(self.project, [])}
        found = self.tracker._client.search_model_versions(f"name = '{self.model}'")
        assert len({each.tags["reuna.version"] for each in found}) == len(found), "none is there twice"
        return {int(each.tags["reuna.version"]): each.tags["reuna.release"] for each in found}

    def aliases(self) -> dict[str, int]:
        if isinstance(self.tracker, MemoryTracker):
            of = {digest: version for version, digest in self.versions().items()}
            return {alias: of[digest] for alias, digest in self.tracker.aliases[self.project].items()}
        client = self.tracker._client
        found = client.get_registered_model(self.model).aliases
        return {
            alias: int(client.get_model_version(self.model, version).tags["reuna.version"])
            for alias, version in found.items()
        }

    @property
    def model(self) -> str:
        return key((self.project,))

    def assert_follows(self) -> None:
        """What MLflow has is what the catalogue says."""
        catalogue = self.catalogue
        assert self.versions() == {
            version: catalogue.read(version).digest for version in catalogue.versions()
        }
        assert self.aliases() == catalogue.aliases()


def graph() -> bytes:
    """The smallest ONNX graph there is: what goes in comes out."""
    helper = pytest.importorskip("onnx").helper
    ends = [helper.make_tensor_value_info(name, 1, ["n", 2]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    made = helper.make_graph([node], "same", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString())


def test_releases_become_versions_and_aliases_follow(tracker: Any, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, tracker, "hall 2/b: pumps.v2")
    for version in (1, 2, 3):
        shelf.make(version, f"r-follows-{version}")
    assert shelf.send() == ["sent"] * 3
    assert shelf.send() == ["unchanged"] * 3
    shelf.assert_follows()
    for wanted in (1, 3, "previous", 2):
        shelf.catalogue.promote(wanted)
        assert shelf.send() == ["unchanged"] * 3
        shelf.assert_follows()


def test_a_release_knows_its_run_and_a_run_that_comes_later_completes_it(
    tracker: Any, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path, tracker, "later")
    shelf.make(1, "r-later")
    assert shelf.send() == ["sent"]
    assert seen(tracker, "r-later").points[("site", "pump-1", "federated", "all")] == [(3, 0.9)]
    folder = keep(tmp_path / "runs", "r-later", project="later")
    assert send(tracker, folder, json.loads((folder / "result.json").read_text())) == "sent"
    assert seen(tracker, "r-later").points[("loss",)] == [(n, pytest.approx(1 / n)) for n in (1, 2, 3)]
    assert seen(tracker, "r-later").points[("site", "pump-1", "federated", "all")] == [(3, 0.9)]
    assert shelf.send() == ["unchanged"]


@real
@pytest.mark.parametrize(
    "call",
    ["create_run", "log_artifacts", "create_registered_model", "create_model_version", "set_tag",
     "set_registered_model_alias", "delete_registered_model_alias"],
)  # fmt: skip
@pytest.mark.parametrize("when", ["before", "after"])
def test_releases_cut_off_anywhere_are_completed_by_the_next_sync(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, when: str
) -> None:
    store = open_store(database, "")
    shelf = Shelf(tmp_path, store, f"cut {call} {when}")
    shelf.make(1, f"r-cut-{call}-{when}")
    if call == "delete_registered_model_alias":
        shelf.send()
        shelf.catalogue.promote(1)
    kept = getattr(store._client, call)

    def lost(*words: Any, **more: Any) -> None:
        if when == "after":
            kept(*words, **more)
        raise ConnectionError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(store._client, call, lost)
        with pytest.raises(Unreachable, match="gone"):
            shelf.send()
    shelf.tracker = open_store(database, "")
    assert shelf.send() in (["sent"], ["unchanged"])
    shelf.assert_follows()
    assert shelf.send() == ["unchanged"]


@real
def test_a_server_away_stops_no_release_and_gets_all_later(
    tmp_path: Path, server: Server, asked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.kill()
    shelf = Shelf(tmp_path, None, "away")
    shelf.make(1, "r-away-1")
    said: list[str] = []
    show(lambda: open_store(tmp_path, server.uri), shelf.catalogue, said.append)
    assert len(said) == 1 and "reuna mlflow sync" in said[0]
    places = ["--releases", str(tmp_path / "releases"), "--to", server.uri]

    server.start()
    assert sync(tmp_path / "runs", *places).stdout == "away 1: sent\n"
    shelf.tracker = open_store(tmp_path, server.uri)
    shelf.assert_follows()
    server.kill()
    shelf.make(2, "r-away-2")
    shelf.catalogue.promote(2)
    assert isinstance(sync(tmp_path / "runs", *places).exception, Unreachable)
    server.start()
    assert sync(tmp_path / "runs", *places).stdout == "away 1: there already\naway 2: sent\n"
    shelf.tracker = open_store(tmp_path, server.uri)
    shelf.assert_follows()


@real
def test_mlflow_loads_the_champion_and_shows_its_card(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    shelf = Shelf(tmp_path, open_store(tmp_path, server.uri), "loaded")
    shelf.make(1, "r-loaded")
    shelf.catalogue.promote(1)
    shelf.send()
    import mlflow
    import mlflow.onnx
    import numpy

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    mlflow.set_tracking_uri(server.uri)
    try:
        loaded = mlflow.pyfunc.load_model("models:/loaded@champion")
        rows = numpy.ones((3, 2), numpy.float32)
        assert loaded.predict(rows)["y"].tolist() == rows.tolist()
    finally:
        mlflow.set_tracking_uri(None)
    client = shelf.tracker._client
    found = client.get_model_version_by_alias("loaded", "champion")
    assert found.run_id == shelf.tracker.find("r-loaded")
    names = {Path(each.path).name for each in client.list_artifacts(found.run_id, "release-0001")}
    assert names == {"MLmodel", *FILES}


@real
def test_a_version_that_somebody_deleted_there_stays_deleted_and_other_aliases_stay(
    database: Path, tmp_path: Path
) -> None:
    shelf = Shelf(tmp_path, open_store(database, ""), "pruned")
    for version in (1, 2):
        shelf.make(version, f"r-pruned-{version}")
    shelf.send()
    client = shelf.tracker._client
    client.set_registered_model_alias("pruned", "theirs", "2")
    client.delete_model_version("pruned", "1")
    shelf.catalogue.promote(1)
    assert shelf.send() == ["deleted", "unchanged"]
    assert shelf.versions().keys() == {2}
    assert shelf.aliases() == {"theirs": 2, "challenger": 2}
