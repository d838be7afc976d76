"""A real fleet from the command line: processes, TLS, nats-server; and what it leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from drills import kill
from reuna.adapters.processes import part_of
from reuna.adapters.sandbox import probe
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.result import ResultFile
from reuna.template import make_project
from tests import commands

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]


def reuna(*args: str, cwd: Path, timeout: float = 150) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    command = [sys.executable, "-m", "reuna.cli", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def of_session(session: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "pumps"
    make_project(folder, sample=True)
    return folder


@pytest.fixture
def pair(project: Path) -> Path:
    """The project with two of its four pumps: one fog, and half the processes."""
    for name in ("pump-3", "pump-4"):
        shutil.rmtree(project / "data" / name)
    return project


def test_a_run_compares_the_three_ways_and_sends_no_row(project: Path) -> None:
    done = reuna("run", "--rounds", "5", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(done.stdout, type=ResultFile)
    assert [site.site for site in result.sites] == ["pump-1", "pump-2", "pump-3", "pump-4"]
    assert all(site.federated["all"] > site.local["all"] + 0.2 for site in result.sites)
    assert set(result.bytes_by_kind) - {"head"} == {
        "model_update",
        "metric",
        "statistic",
        "log",
        "presence",
    }
    assert [each.node for each in result.contract] == ["pump-1", "pump-2", "pump-3", "pump-4"]
    assert not any(line.failed for each in result.contract for line in each.rules)
    assert result.bins is not None and result.bins.withheld == 0
    assert {each.nodes for each in result.bins.bins.values()} == {4}
    tables = (project / "data").glob("*/train/*.csv")
    rows = sum(len(path.read_text().splitlines()) - 1 for path in tables)
    assert {sum(each.counts) + each.outside for each in result.bins.bins.values()} == {rows}
    assert "bins" not in {event["what"] for event in result.timeline}
    # four edges and two fogs send 36 values a round: packed, so in less than 2-byte integers and 3-byte sums
    assert 0 < result.bytes_by_kind["model_update"] < 5 * (4 * 36 * 2 + 2 * 36 * 3)
    rounds = [event["fields"] for event in result.timeline if event["what"] == "round"]
    assert sum(fields["bytes"] for fields in rounds) == result.bytes_by_kind["model_update"]
    check_links(result)
    assert set(result.wall_by_method_s) == {"local", "federated", "centralised"}
    assert all(0 < seconds < result.wall_s for seconds in result.wall_by_method_s.values())
    assert {p.name for p in result.processes} >= {"cloud/main", "cloud/nats", "fog-1/egress", "pump-1/worker"}
    folder = project / "runs" / result.run
    assert json.loads((folder / "result.json").read_text()) == json.loads(done.stdout)
    page = (folder / "report.html").read_text()
    assert all(f'aria-label="{plot}"' in page for plot in PLOTS)
    assert not (folder / "fleet").exists(), "keys and state are removed"
    shown = reuna("show", result.run, "--json", cwd=project)
    assert json.loads(shown.stdout) == json.loads(done.stdout)


PLAIN = ("--set", "run.local=false", "--set", "run.centralised=false")  #: nothing to compare with
PLOTS = ("all per site", "loss by round", "bytes by link and kind", "peak memory by process")


def check_links(result: ResultFile) -> None:
    """Every link in both directions; what went up is what the ledgers say, what came down what was asked for."""
    up = {flow.link for flow in result.flows}
    assert {link for link in result.bytes_by_link if link in up} == up
    assert sum(result.bytes_by_link[link] for link in up) == sum(result.bytes_by_kind.values())
    down = {tuple(flow.link.split(" → ")): {} for flow in result.came}
    for flow in result.came:
        down[tuple(flow.link.split(" → "))][flow.kind] = flow
    assert {(child, parent) for parent, child in down} == {tuple(link.split(" → ")) for link in up}
    for kinds in down.values():
        assert set(kinds) >= {"plan", "bundle", "metadata"}
        assert kinds["bundle"].messages == 1
        assert kinds["plan"].messages >= 7  # five rounds, alone, evaluated


def test_equal_seeds_give_equal_models_and_diff_says_so(project: Path) -> None:
    runs = [reuna("run", "--rounds", "3", "--again", "--json", *PLAIN, cwd=project) for _ in range(2)]
    first, second = (json.loads(done.stdout) for done in runs)
    assert first["model_digest"] == second["model_digest"]
    told = json.loads(reuna("diff", first["run"], second["run"], "--json", cwd=project).stdout)
    assert told["same_model"] is True
    listed = json.loads(reuna("runs", "--json", cwd=project).stdout)
    assert {line["run"] for line in listed} == {first["run"], second["run"]}


def test_a_run_in_which_a_node_was_missing_is_replayed_bit_by_bit(project: Path) -> None:
    drop_column(project)  # so pump-2 sits out every round
    done = reuna("run", "--rounds", "3", "--json", "--set", "round.quorum=0.5", *PLAIN, cwd=project)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run"]
    again = reuna("replay", "--json", cwd=project)
    assert json.loads(again.stdout)["same"] is True
    assert again.returncode == 0
    result = project / "runs" / run / "result.json"
    closed = [event for event in json.loads(result.read_text())["timeline"] if event["what"] == "round"]
    assert all("pump-2" not in event["fields"]["members"] for event in closed)
    assert len(closed) == 3
    second = closed[1]["fields"]["members"]
    change(result, f'"members": "{second}"', f'"members": "{second.partition(", ")[2]}"')
    other = reuna("replay", run, cwd=project)  # the first event with these members is round 1
    assert (other.returncode, "round 1 is the first that differs" in other.stderr) == (2, True), other.stderr
    change(project / "detector" / "features.py", "def scale", "LATER = 1\n\n\ndef scale")
    other = reuna("replay", run, cwd=project)
    assert (other.returncode, "is not the code of" in other.stderr) == (2, True), other.stderr


@pytest.mark.parametrize("after", ["starting", "training"])
def test_ctrl_c_ends_every_process_and_removes_the_keys(pair: Path, after: str) -> None:
    command = [sys.executable, "-m", "reuna.cli", "run", "--rounds", "100000"]
    running = subprocess.Popen(
        command,
        cwd=pair,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    session = running.pid
    wait_until(lambda: len(of_session(session)) > (3 if after == "starting" else 10))
    if after == "training":
        wait_until(lambda: any(pair.glob("runs/*/fleet/pump-1/state/ledger/*.ledger")))
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    while "stopping" not in running.stderr.readline():
        assert running.poll() is None, "it says at once that it stops"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):  # impatience changes nothing
        running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in said
    wait_until(lambda: not of_session(session))
    assert not (pair / "runs").exists(), "no keys, no logs, no empty folder"


def wait_until(happened: Any, seconds: float = 60) -> None:
    """Poll a condition of other processes, with an end."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


def test_kills_in_a_run_change_no_bit() -> None:
    """The drill, short: one kill in each phase of a run, of cloud, worker, fog, egress and nats-server."""
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "drills.kill", "--kills", "5", "--json"],
        cwd=repository, capture_output=True, text=True, timeout=160,
    )  # fmt: skip
    assert done.stdout, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (
        result["kills"] == sum(times for roles in result["killed"].values() for times in roles.values()) == 5
    )
    assert (result["lost"], result["double_counted"], result["same_bits"]) == (0, 0, True)
    assert result["rounds_retrained"] >= 1, "a worker was killed at its work"
    assert done.returncode == 0


def test_the_full_kill_drill_aims_at_each_role_in_each_phase() -> None:
    aimed = [(phase, role) for number in range(len(kill.ROLES)) for phase, role in kill.aims(number).items()]
    assert sorted(aimed) == sorted((phase, role) for phase in kill.PHASES for role in kill.ROLES)
    assert len(aimed) == kill.ALL >= 20


def test_a_kill_counts_in_the_phase_where_it_fell_and_what_is_missing_is_aimed_at_again() -> None:
    timeline = [
        {"what": what, "at": at}
        for what, at in (
            ("round", 10.0),
            ("short", 11.0),
            ("round", 12.0),
            ("local", 14.0),
            ("evaluate", 15.0),
        )
    ]
    moments = (4.9, 5.1, 11.0, 13.0, 14.5, 16.0)
    assert [kill.phase_at(at, 5.0, timeline) for at in moments] == [*kill.PHASES, "after the run"]
    watched = kill.Watched()
    watched.kills.update({(phase, role): 1 for phase in kill.PHASES for role in kill.ROLES})
    assert not watched.missing()
    for pair in (("local", "fog nats"), ("local", "cloud main"), ("submit", "edge main")):
        del watched.kills[pair]
    assert kill.next_aims(watched.missing()) == {"submit": "edge main", "local": "cloud main"}


@pytest.mark.parametrize(
    "broken",
    [
        {"same_bits": False}, {"lost": 1}, {"double_counted": 1}, {"rounds_retrained": 0},
        {"missing": ["fog nats: local"]},
    ],
    ids=lambda broken: next(iter(broken)),
)  # fmt: skip
def test_the_kill_drill_fails_when_any_part_of_its_promise_is_broken(broken: dict[str, Any]) -> None:
    watched = kill.Watched(calm="m", models={"m"}, retrained=1)
    watched.kills.update({(phase, role): 1 for phase in kill.PHASES for role in kill.ROLES})
    good = kill.told(watched, kill.ALL)
    assert kill.held(good)
    watched.models.add("another")
    assert not kill.held(kill.told(watched, kill.ALL))
    assert not kill.held({**good, **broken})


def test_a_fleet_that_is_up_takes_one_run_after_the_other(pair: Path) -> None:
    fleet = pair.parent / "line" / "fleet.toml"
    fleet.parent.mkdir()
    command = [sys.executable, "-m", "reuna.cli", "up", str(fleet), "--data", str(pair / "data")]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(fleet.exists)
        asked = ["--fleet", str(fleet), "--rounds", "3", "--json", "--again", *PLAIN]
        runs = [reuna("run", *asked, cwd=pair) for _ in range(2)]
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
    assert [done.returncode for done in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    first, second = (json.loads(done.stdout) for done in runs)
    assert first["model_digest"] == second["model_digest"]
    assert first["bytes_by_kind"]["model_update"] == second["bytes_by_kind"]["model_update"]
    wait_until(lambda: not of_session(running.pid))


def test_an_edge_is_added_to_a_running_fog_by_a_hangup_signal(project: Path) -> None:
    from reuna.adapters.toml_file import read_toml
    from reuna.core.errors import Unreachable
    from reuna.fleet.client import Operator
    from reuna.fleet.layout import write_toml

    data = {name: project / "data" / name for name in ("pump-1", "pump-2")}
    fleet = make_fleet(project.parent / "line", "local", {"fog-1": data})
    file = fleet.of("fog")[0].settings
    write_toml(file, {**read_toml(file).values, "edges": ["pump-1"]})
    operator = Operator.of(fleet)

    def heard() -> set[str]:
        try:
            return set(operator.nodes())
        except Unreachable:
            return set()

    command = [sys.executable, "-m", "reuna.cli", "up", str(fleet.folder / "fleet.toml")]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: heard() == {"fog-1", "pump-1"})
        write_toml(file, {**read_toml(file).values, "edges": ["pump-1", "pump-2"]})
        fog = next(pid for pid in of_session(running.pid) if "reuna.fleet.place fog" in command_of(pid))
        os.kill(fog, signal.SIGHUP)
        wait_until(lambda: heard() == {"fog-1", "pump-1", "pump-2"})
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def overheat(project: Path) -> None:
    """Half of a pump's training rows are far too hot: no wrong unit, but more than may be."""
    for path in sorted((project / "data" / "pump-2" / "train").iterdir()):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        place = rows[0].index("temperature_c")
        for row in rows[1:110]:
            row[place] = "400"
        path.write_text("\n".join(map(",".join, rows)) + "\n")


def test_a_site_whose_data_break_the_contract_sits_out_with_the_reason_and_the_run_goes_on(
    project: Path,
) -> None:
    overheat(project)
    checked = reuna("contract", "check", cwd=project)
    assert checked.returncode == 1, checked.stderr
    assert "pump-2: BREAKS version 1" in checked.stdout
    done = reuna("run", "--rounds", "2", "--set", "round.quorum=0.75", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "pump-2 sat out round" in done.stderr
    assert "range of 'temperature_c'" in done.stderr
    assert "pump-2's data break version 1 of the contract: range of temperature_c" in done.stdout
    assert reuna("show", cwd=project).stdout == done.stdout
    (folder,) = (project / "runs").glob("r-*")
    result = msgspec.json.decode((folder / "result.json").read_bytes(), type=ResultFile)
    assert {site.site: site.absent for site in result.sites if site.absent} == {
        "pump-2": {"pump-2": "R114 its data break the contract"}
    }
    (broken,) = [(each.node, x) for each in result.contract for x in each.rules if x.broken]
    assert (broken[0], broken[1].rule, broken[1].signal) == ("pump-2", "range", "temperature_c")
    assert all("all" in site.centralised for site in result.sites if site.site != "pump-2")
    page = (folder / "report.html").read_text()
    assert "<h2>Data contract</h2>" in page
    assert "break version 1 of the contract: range of temperature_c" in page


def drop_column(project: Path) -> None:
    for path in (project / "data" / "pump-2" / "train").iterdir():
        change(path, "flow_m3_h", "flow")


def empty_site(project: Path) -> None:
    for path in (project / "data" / "pump-3").rglob("*.csv"):
        path.unlink()


MISTAKES: dict[str, tuple[Any, list[str], int, str]] = {
    "a setting out of range": (
        lambda p: change(p / "reuna.toml", "rounds = 20", "rounds = -1"),
        ["check"], 2, "strategy.rounds is -1, must be between",
    ),
    "no TOML": (lambda p: (p / "reuna.toml").write_text("[project"), ["check"], 2, "is not valid TOML"),
    "no project": (lambda p: (p / "reuna.toml").unlink(), ["run"], 2, "is no project"),
    "a missing column": (drop_column, ["check"], 2, "has no column 'flow_m3_h' (did you mean 'flow'?)"),
    "another unit": (
        lambda p: change(p / "data/pump-2/train/fault-0-0.csv", "temperature_c", "temperature_c [K]"),
        ["check"], 2, "column 'temperature_c [K]': its unit is 'K', the contract says 'degC'",
    ),
    "an empty site": (empty_site, ["check"], 2, "holds no CSV or Parquet file"),
    "no data": (lambda p: None, ["run", "--data", "nowhere"], 2, "there is no folder nowhere"),
    "broken code": (
        lambda p: (p / "detector" / "model.py").write_text("import nothing_like_it\n"),
        ["check"], 2, "model.py:1",
    ),
    "a run on data with a missing column": (drop_column, ["run"], 2, "has no column 'flow_m3_h'"),
    "a run of broken code": (
        lambda p: (p / "detector" / "model.py").write_text("def load(folder, settings): 1 / 0\n"
                                                           "def learner(settings): return 1 / 0\n"),
        ["run"], 2, "model.py:2: ZeroDivisionError",
    ),
    "an unknown run": (lambda p: None, ["show", "r-0"], 2, "no finished run 'r-0'"),
    "an unknown strategy": (
        lambda p: change(p / "reuna.toml", '"fedavgm"', '"fedmagic"'),
        ["check"], 2, "must be one of fedavg",
    ),
    "a setting of another strategy": (
        lambda p: None, ["run", "--set", "strategy.name=fedadam"], 2,
        "strategy.momentum is set, but fedadam does not use it; fedavgm does",
    ),
    "a sum that could overflow": (
        lambda p: None,
        ["run", "--set", "round.grid_bits=32", "--set", "round.max_weight=2147483648"], 2, "could overflow a 64-bit sum",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gives_one_clear_message_and_a_next_step(project: Path, mistake: str) -> None:
    make, command, status, message = MISTAKES[mistake]
    make(project)
    done = commands.reuna(*command, cwd=project)  # none of them trains
    assert message in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == status
    assert not (project / "runs").exists()


@pytest.fixture(scope="module")
def idle_fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet of which single places are started."""
    folder = tmp_path_factory.mktemp("idle")
    return make_fleet(folder / "fleet", "local", {"fog-1": {"edge-1": folder}})


@pytest.mark.parametrize(
    ("place", "port"),
    [
        ("cloud", "listen.nats_port"),
        ("cloud", "listen.leaf_port"),
        ("cloud", "listen.freight_port"),
        ("cloud", "listen.api_port"),
        ("cloud", "listen.people_port"),
        ("cloud", "enrol.port"),
        ("fog", "listen.nats_port"),
        ("fog", "listen.freight_port"),
        ("fog", "enrol.port"),
    ],
)
def test_a_port_in_use_is_named(idle_fleet: Fleet, tmp_path: Path, place: str, port: str) -> None:
    settings = str(idle_fleet.of(place)[0].settings)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        done = reuna(place, "--settings", settings, "--set", f"{port}={number}", cwd=tmp_path)
    assert f"cannot listen on 127.0.0.1:{number}" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


def test_without_a_nats_server_the_cloud_says_what_to_install(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", "local", {"fog-1": {"edge-1": tmp_path}})
    missing = f"nats_server={tmp_path / 'no-server'}"
    done = reuna("cloud", "--settings", str(fleet.of("cloud")[0].settings), "--set", missing, cwd=tmp_path)
    assert "no-server" in done.stderr
    assert "Install nats-server" in done.stderr
    assert done.returncode == 3


def test_the_edge_agent_has_no_socket_to_the_network(project: Path) -> None:
    """Only the egress speaks to the fog: agent and worker have no inet socket at all."""
    command = [sys.executable, "-m", "reuna.cli", "run", "--rounds", "100000"]
    running = subprocess.Popen(
        command, cwd=project, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: any(project.glob("runs/*/fleet/pump-1/state/work/project")))
        # an agent that starts its worker is for a moment two processes, of one command and one network
        wait_until(lambda: [part_of(pid) for pid in of_session(running.pid)].count("worker") == 4)
        inet = inet_inodes()
        owners = {what_it_is(pid) for pid in of_session(running.pid) if sockets_of(pid) & inet}
        networks = [(what_it_is(pid), network_of(pid)) for pid in of_session(running.pid)]
        lent = {what_it_is(pid): libraries_of(pid) for pid in of_session(running.pid)}
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
    assert "egress" in owners
    assert not {"edge", "worker"} & owners
    assert lent["edge"] == set(), "an agent in a run needs neither numpy nor what trust is made of"
    assert lent["egress"] == {"numpy", "cryptography"}
    if probe().agent:
        pytest.skip(f"an agent keeps the network here: {probe().agent}")
    ours = network_of(os.getpid())
    agents = [network for command, network in networks if command == "edge"]
    assert len(agents) == len(set(agents)) == 4, "each agent is in a namespace of its own"
    assert ours not in agents
    assert {network for command, network in networks if command == "egress"} == {ours}


def network_of(pid: int) -> str:
    """The network namespace of a process."""
    return str(Path(f"/proc/{pid}/ns/net").readlink())


def libraries_of(pid: int) -> set[str]:
    """Those of two large libraries that a process has in memory."""
    mapped = Path(f"/proc/{pid}/maps").read_text()
    return {name for name in ("numpy", "cryptography") if f"/{name}/" in mapped}


def inet_inodes() -> set[str]:
    """Inodes of all TCP sockets of this machine."""
    lines = [
        line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {line.split()[9] for line in lines}


def sockets_of(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def what_it_is(pid: int) -> str:
    """Which part of a place, or which place its main process is."""
    part = part_of(pid)
    return "edge" if part == "main" and "edge --settings" in command_of(pid) else part


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
