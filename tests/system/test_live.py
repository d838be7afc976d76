"""An edge reads its machine and answers by itself: whatever process is killed comes back, and no window twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reuna.adapters.answer_store import StoredAnswers
from reuna.adapters.ledger_file import entries
from reuna.adapters.processes import children, part_of
from reuna.adapters.project import pack_bundle
from reuna.adapters.trust_keys import read_key
from reuna.core.errors import NotUsable
from reuna.core.project import TASKS
from reuna.fleet.client import Operator
from reuna.fleet.code import allow_code
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.officer import amend, key_file
from reuna.fleet.ports import free_ports
from tests.pumps import RULES, make

pytestmark = [pytest.mark.system, pytest.mark.timeout(150)]
T = TypeVar("T")
STEP_S = 0.6  #: a window's step of a minute, a hundred times faster
SOURCES = """
[sources.pump]
kind = "replay"
folder = "{folder}"
time = "second"
speed = 100
repeat = true
[sources.pump.tags]
vibration_mm_s = {{ unit = "mm/s" }}
temperature_c = {{ unit = "degC" }}
flow_m3_h = {{ unit = "L/h", scale = 1000 }}
current_a = {{ unit = "A" }}
[labels.laboratory]
project = "pumps"
folder = "{folder}/../laboratory"
time = "sampled"
label = "fault"
every_s = 0.2
"""

SINKS = """
[sinks.archive]
kind = "file"
folder = "{folder}/archive"
every_s = 0.2
[sinks.elsewhere]
kind = "file"
folder = "{folder}/elsewhere"
every_s = 0.2
[sinks.alarms]
kind = "file"
folder = "{folder}/alarms"
what = "alarms"
every_s = 0.2
"""
RECIPIENTS = "[recipients]\n"
ALARMS = '[[flows]]\nkind = "statistic"\nto = ["alarms"]\nprotection = "clear"\n\n'
PRESENCE = '[[flows]]\nkind = "presence"\n'


class Edge:
    """A fleet with one edge that is up, and what it answers."""

    def __init__(
        self, folder: Path, fleet: Fleet, running: subprocess.Popen[bytes], ports: list[int]
    ) -> None:
        self.folder, self.fleet, self.ports = folder, fleet, ports
        self.state = fleet.folder / "pump-1" / "state"
        self.running = running

    def find(self, part: str) -> int | None:
        """The process of that kind which is the edge's, None while there is none."""
        agent = next((pid for pid in children(self.running.pid) if "edge.toml" in command_of(pid)), None)
        if part == "main" or agent is None:
            return agent
        below = [*children(agent), *(each for pid in children(agent) for each in children(pid))]
        return next((pid for pid in below if part_of(pid) == part), None)

    def answers(self) -> list[Any]:
        try:
            store = StoredAnswers(self.state / "answers")
        except NotUsable:
            return []
        try:
            return store.after(0, 10_000)
        finally:
            store.close()

    def until(self, holds: Callable[[], T]) -> T:
        """What it gives when that is something."""
        deadline = time.monotonic() + 60
        while not (found := holds()):
            assert self.running.poll() is None
            assert time.monotonic() < deadline, (self.state.parent / "place.log").read_text()[-4000:]
            time.sleep(0.05)
        return found

    def more(self, count: int) -> None:
        """So many further windows are answered by the model."""
        before = len(self.answers())
        self.until(lambda: sum(each.outcome.state != "safe" for each in self.answers()[before:]) >= count)

    def kill(self, part: str) -> None:
        """And wait until there is another one."""
        pid = self.until(lambda: self.find(part)) or 0
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: (found := self.find(part)) and found != pid)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def allow_sinks(fleet: Fleet, folder: Path) -> None:
    """Let answers leave to one sink, and to no other, and the node's own alarms to a third."""
    key, policy = read_key(key_file(fleet.folder)), fleet.folder / "pump-1" / "policy.toml"
    both = f'archive = "file:{folder}/archive"\nalarms = "file:{folder}/alarms"\n'
    amend(policy, key, RECIPIENTS, f"{RECIPIENTS}{both}")
    rules = '[[flows]]\nkind = "prediction"\nto = ["archive"]\n\n' + ALARMS
    amend(policy, key, PRESENCE, f"{rules}{PRESENCE}")


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    pytest.importorskip("onnxruntime")
    slow = "[operate]\nmax_latency_ms = 60000\n"  # a worker that is killed is no reason to go back
    pumps = make(tmp_path / "pumps", TASKS[0], RULES + slow)
    fleet = make_fleet(tmp_path / "line", "local", {"fog-1": {"pump-1": pumps.node}})
    release = pumps.release(tmp_path / "1.release")
    allow_code(fleet, pack_bundle(pumps.folder), "pumps")
    trust = ("--folder", str(fleet.folder / "trust"))
    add = ("trust", "add", str(release), "--kind", "release", "--name", "pumps-1", *trust)
    subprocess.run([sys.executable, "-m", "reuna.cli", *add], check=True, capture_output=True, timeout=60)
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    (tmp_path / "laboratory").mkdir()
    (recordings / "a.csv").write_bytes(pumps.recording.read_bytes())
    (tmp_path / "sources.toml").write_text(SOURCES.format(folder=recordings))
    (tmp_path / "sinks.toml").write_text(SINKS.format(folder=tmp_path))
    allow_sinks(fleet, tmp_path)
    file = fleet.folder / "pump-1" / "edge.toml"
    more = f'sources = "{tmp_path / "sources.toml"}"\nsinks = "{tmp_path / "sinks.toml"}"\n'
    file.write_text(f"{more}{file.read_text()}\n[live]\nlateness_s = 1.2\nsilent_s = 5\n")
    ports = free_ports(2)
    for name, place, port in zip(("pump-1", "fog-1"), ("edge", "fog"), ports, strict=True):
        file = fleet.folder / name / f"{place}.toml"
        file.write_text(f'{file.read_text()}\n[metrics]\nlisten = "127.0.0.1:{port}"\n')
    command = [sys.executable, "-m", "reuna.cli", "up", str(fleet.folder / "fleet.toml")]
    with (tmp_path / "up.log").open("wb") as out:
        running = subprocess.Popen(command, stderr=out, stdout=out, start_new_session=True)
    try:
        yield Edge(tmp_path, fleet, running, ports)
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def test_whatever_is_killed_comes_back_and_no_window_is_answered_twice_or_lost(edge: Edge) -> None:
    edge.more(5)
    watched = edge.until(lambda: Operator.of(edge.fleet).watch()["projects"])["pumps"]["pump-1"]
    assert watched["site"] == "fog-1"
    assert (watched["rows"], watched["blocks"]) == (60, 1)
    assert watched["windows"] >= 5
    known = [each.outcome for each in edge.answers() if each.outcome.state != "safe"][:5]
    label(edge, "a.csv", {each.last_ns: 1.0 - (each.answer or 0.0) for each in known[:4]})
    for part in ("reader", "worker", "egress", "main"):
        edge.kill(part)
        edge.more(3)
    label(edge, "b.csv", {each.last_ns: each.answer or 0.0 for each in known})
    edge.until(lambda: of_pumps(edge).get("labels") == 5)
    assert of_pumps(edge)["wrong"] == 4, "each label counts once, whatever was killed"
    command = [sys.executable, "-m", "reuna.cli", "answers", str(edge.state), "--last", "100000", "--json"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    starts = [each["first_ns"] for each in told["answers"]]
    steps = [round((after - before) / (STEP_S * 1e9), 6) for before, after in pairwise(starts)]
    assert all(step >= 1 and step == int(step) for step in steps), "once each, in order"
    passed = sum(step - 1 for step in steps)
    assert passed == told["projects"]["pumps"]["passed"], "those without any reading, which are counted"
    assert {each["version"] for each in told["answers"]} == {1}
    assert all(each["confidence"] for each in told["answers"] if each["state"] != "safe")
    print(told["counts"])
    tells_what_it_does(edge)
    tells_its_own_alarms(edge)
    went_where_the_policy_lets_them(edge)


def tells_what_it_does(edge: Edge) -> None:
    """The egress that listens is another one than at first, and so are the processes that tell it."""
    needed = {
        "reuna_live_windows_total", "reuna_live_seconds_bucket", "reuna_live_waiting", "reuna_release_info",
        "reuna_source_readings_total", "reuna_source_received_timestamp_seconds", "reuna_store_bytes",
        "reuna_store_readings_total", "reuna_sink_answers_total", "reuna_sink_waiting",
        "reuna_left_bytes_total", "reuna_came_bytes_total",
    }  # fmt: skip
    told = edge.until(lambda: found if (found := scraped(edge.ports[0])).keys() >= needed else {})
    parts = {labels["process"] for labels, _ in told["reuna_process_memory_bytes"]}
    assert {"main", "starter", "egress", "reader", "worker"} <= parts
    assert all(value > 1 << 20 for _, value in told["reuna_process_memory_bytes"])
    began = [value for _, value in told["reuna_process_start_timestamp_seconds"]]
    assert all(0 <= time.time() - each < 300 for each in began)
    assert told["reuna_live_windows_total"][0][0] == {
        "node": "pump-1",
        "project": "pumps",
        "state": "answered",
    }
    assert sum(value for _, value in told["reuna_live_windows_total"]) >= 1
    running = {"node": "pump-1", "project": "pumps", "version": "1"}
    assert running.items() <= told["reuna_release_info"][0][0].items()
    assert told["reuna_parent_connected"] == [({"node": "pump-1"}, 1.0)]
    assert told["reuna_source_up"] == [({"node": "pump-1", "source": "pump"}, 1.0)]
    sinks = {(labels["sink"], labels["what"]): value for labels, value in told["reuna_sink_answers_total"]}
    assert sinks["archive", "sent"] > 0
    assert sinks["elsewhere", "refused"] > 0
    fog = scraped(edge.ports[1])
    assert fog["reuna_place_info"][0][0]["place"] == "fog"
    assert fog["reuna_edges_present"] == [({"node": "fog-1"}, 1.0)]
    assert "nats" in {labels["process"] for labels, _ in fog["reuna_process_memory_bytes"]}
    assert fog["reuna_spool_bytes"][0][1] > 0


def scraped(port: int) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Series -> labels and value of each, as Prometheus' own reader has them."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            found.setdefault(each.name, []).append((each.labels, each.value))
    return found


def of_pumps(edge: Edge) -> dict[str, Any]:
    found: dict[str, Any] = Operator.of(edge.fleet).watch()["projects"]["pumps"]["pump-1"]
    return found


def label(edge: Edge, name: str, labels: dict[int, float]) -> None:
    """What the laboratory found out, at these times, ns."""
    lines = "".join(f"{time_ns // 10**9}.{time_ns % 10**9:09},{value}\n" for time_ns, value in labels.items())
    (edge.folder / "laboratory" / name).write_text("sampled,fault\n" + lines)


def tells_its_own_alarms(edge: Edge) -> None:
    """A machine that nobody reads any more gets the safe answer, which is an alarm until it is read again."""
    reader = edge.until(lambda: edge.find("reader")) or 0
    os.kill(reader, signal.SIGSTOP)
    try:
        edge.until(lambda: [each["state"] for each in sent(edge, "alarms") if each["kind"] == "safe"])
    finally:
        os.kill(reader, signal.SIGCONT)
    edge.until(lambda: [each for each in sent(edge, "alarms") if each["state"] == "ended"])


def went_where_the_policy_lets_them(edge: Edge) -> None:
    """To the one sink all of them, at least once and in order; to the other none. The ledger has each byte."""
    last = edge.answers()[-1].outcome.last_ns
    edge.until(lambda: any(each["last_ns"] >= last for each in sent(edge)))
    edge.running.send_signal(signal.SIGINT)
    edge.running.wait(60)
    known = list(dict.fromkeys(each["id"] for each in sent(edge)))
    kept = [f"pump-1/pumps/{each.outcome.first_ns}-{each.outcome.last_ns}" for each in edge.answers()]
    begun = kept.index(known[0])
    assert begun <= 3, "it begins with the node"
    assert kept[begun : begun + len(known)] == known
    assert not (edge.folder / "elsewhere").exists()
    lines = [entry for _, entry in entries(edge.state / "ledger")]
    intents = [each for each in lines if each.kind == "intent" and each.flow == "prediction"]
    written = sum(each.stat().st_size for each in (edge.folder / "archive").iterdir())
    assert {each.to for each in intents} == {f"file:{edge.folder}/archive"}
    assert written <= sum(each.payload_bytes for each in intents)
    assert any(each.kind == "refused" and each.to == f"file:{edge.folder}/elsewhere" for each in lines)


def sent(edge: Edge, sink: str = "archive") -> list[dict[str, Any]]:
    files = sorted((edge.folder / sink).glob(f"{sink}-*.jsonl"))
    return [json.loads(line) for each in files for line in each.read_text().splitlines(keepends=True)
            if line.endswith("\n")]  # fmt: skip
