"""The benchmarks' lines: their keys, and that what they say of the fleet was observed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import encodings, gate, idle, observed, presence, robust, simulate, steady, stragglers
from benchmarks import round as rounds
from benchmarks.observed import Rounds, forces, is_durable, nats_syncs, topology
from reuna.adapters.nats_server import LeafConfig
from reuna.adapters.spool import DiskSpool
from reuna.adapters.tls import KeyPair
from reuna.fleet.layout import Fleet, PlaceFile
from reuna.learn.robust import FOLDS

ROUND_KEYS = {
    "median_s", "p90_s", "limit_s", "disk_limit_s", "bits", "value_bits", "topology", "durable", "update_sha256",
    "distinct_updates", "params", "nodes", "rounds", "cloud_peak_mib", "fog_peak_mib", "nats_peak_mib", "edge_main_peak_mib", "edge_egress_peak_mib", "edge_worker_peak_mib",
    "edge_idle_pss_mib", "edge_idle_before_pss_mib", "edge_idle_after_pss_mib", "edge_idle_uss_mib",
    "places_sharing", "cpu_ms_a_round",
}  # fmt: skip
IDLE_KEYS = {"reads", "places_sharing", "alone_mib", "pss_mib", "uss_mib", "own_mib"}
ENCODING_KEYS = {
    "bits", "exponent", "packed", "rounding", "feedback", "keep", "up_edge", "limit_edge", "up_fog", "limit_fog",
    "step", "model", "loss", "clipped", "score", "worst", "lost", "lost_sd",
}  # fmt: skip
SIMULATE_KEYS = {
    "clients_per_s",
    "clients_per_cpu_s",
    "numpy_clients_per_s",
    "clients",
    "rounds",
    "processes",
}
PRESENCE_KEYS = {
    "devices", "fogs", "churn", "tick_s", "bytes_per_tick", "largest_tick_bytes", "messages_per_tick", "hello_bytes",
    "fogs_cpu_ms_per_tick", "cloud_cpu_ms_per_tick", "whole_bytes", "largest_page_bytes", "roster_bytes_per_tick",
    "limit_bytes",
}  # fmt: skip
ROOT = Path(__file__).parents[2]
GOOD = "journal_mode=wal synchronous=2 bodies=3 forced=3"


@pytest.mark.system
def test_a_round_is_measured_on_a_fleet_that_was_looked_at() -> None:
    words = ["--params", "1000", "--nodes", "2", "--rounds", "2", "--idle", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.round", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == ROUND_KEYS
    assert (told["durable"], told["bits"], told["topology"]) == (True, 32, "2 edges, 2 fogs, 1 cloud")
    assert (told["rounds"], told["distinct_updates"], told["places_sharing"]) == (2, 2, 5)
    assert told["edge_idle_pss_mib"] == max(told["edge_idle_before_pss_mib"], told["edge_idle_after_pss_mib"])
    assert 0 < told["edge_idle_uss_mib"] <= told["edge_idle_pss_mib"]


@pytest.mark.system
def test_an_idle_edge_is_looked_at_process_by_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.idle", "--reads", "--rests", "0", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == IDLE_KEYS
    assert (told["reads"], told["places_sharing"]) == (True, 3)
    assert set(told["own_mib"]) == {"main", "egress", "reader", "starter"}
    assert 0 < told["uss_mib"] < told["pss_mib"] < told["alone_mib"]
    assert sum(told["own_mib"].values()) < told["alone_mib"]


MAP = """\
5581a000-5581b000 r-xp 00001000 08:01 1234   /usr/lib/libone.so
Size:                  8 kB
Rss:                  40 kB
Anonymous:             8 kB
5581b000-5581c000 rw-p 00002000 08:01 1234   /usr/lib/libone.so
Rss:                  12 kB
Anonymous:            12 kB
5581d000-5581e000 rw-p 00000000 00:00 0      [heap]
Rss:                 100 kB
Anonymous:           100 kB
5581f000-5581f100 rw-p 00000000 00:00 0
Rss:                  16 kB
Anonymous:            16 kB
"""


def test_pages_of_files_are_told_by_file_and_offset_without_what_was_written_to() -> None:
    found = [("/usr/lib/libone.so@00001000", 32), ("/usr/lib/libone.so@00002000", 0)]
    assert list(idle.shared_kib(MAP)) == found


def test_encodings_tell_bytes_their_limit_and_what_is_lost() -> None:
    words = ["--splits", "1", "--rounds", "2", "--cases", "2", "--json"]
    told = encodings.measure(encodings.arguments(words))
    plain, packed = told["encodings"]
    assert (told["splits"], told["rounds"]) == (1, 2)
    assert set(plain) == ENCODING_KEYS
    assert (plain["packed"], packed["packed"], packed["lost"]) == (False, True, 0.0)
    assert packed["limit_edge"] < packed["up_edge"] < plain["up_edge"]
    assert 0 < packed["step"] <= packed["model"]


def test_a_simulation_tells_clients_a_second_and_its_limit() -> None:
    told = simulate.measure(simulate.arguments(["--clients", "60", "--rounds", "1"]))
    assert set(told) == SIMULATE_KEYS
    assert (told["clients"], told["rounds"]) == (60, 1)
    assert told["clients_per_s"] > 0


def test_robust_folds_tell_their_seconds_and_that_their_bits_are_right() -> None:
    told = robust.measure(robust.arguments(["--params", "3000", "--nodes", "7", "--times", "1"]))
    assert told["same_bits"] is True
    assert {f"{name.replace('-', '_')}_cpu_s" for name in FOLDS} <= set(told)
    assert told["median_mib"] < 1


def test_silent_nodes_cost_their_part_and_no_round_stalls() -> None:
    told = stragglers.measure(stragglers.arguments(["--nodes", "20", "--rounds", "8"]))
    for way in ("synchronous", "over", "buffered"):
        assert 0.85 < told[f"{way}_silent_ratio"] < 1.1
        assert told[f"{way}_silent_longest_s"] < 5
    assert told["synchronous_slow_ratio"] < 0.3 < told["buffered_slow_ratio"]


def test_presence_of_many_devices_takes_bytes_by_who_comes_and_goes_and_not_by_who_is_there() -> None:
    few, many = (
        presence.measure(presence.arguments(["--devices", str(devices), "--churn", "0", "--ticks", "24"]))
        for devices in (100, 20_000)
    )
    assert set(many) == PRESENCE_KEYS
    assert many["bytes_per_tick"] == pytest.approx(few["bytes_per_tick"], rel=0.1)
    words = ["--devices", "20000", "--churn", "0.005", "--ticks", "24"]
    churned = presence.measure(presence.arguments(words))  # as many as of a hundred thousand a thousandth
    assert many["bytes_per_tick"] < churned["bytes_per_tick"] < churned["limit_bytes"] == 10_000
    assert churned["roster_bytes_per_tick"] > 20 * churned["bytes_per_tick"]
    assert churned["largest_page_bytes"] <= 1_000_000


@pytest.mark.parametrize("key", sorted(ROUND_KEYS | SIMULATE_KEYS | PRESENCE_KEYS))
def test_every_key_is_explained(key: str) -> None:
    assert f"`{key}`" in (ROOT / "docs/reference/benchmarks.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "argument --rounds: 0 is not at least 1"),
        (["--params", "-5"], "argument --params: -5 is not at least 1"),
        (["--nodes", "many"], "argument --nodes: 'many' is no whole number"),
        (["--value-bits", "40"], "argument --value-bits: 40 is not between 2 and 32"),
        (["--bits", "8", "--value-bits", "16"], "16 do not fit a grid of 8 bits"),
    ],
)
def test_a_number_out_of_bounds_is_refused_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        rounds.arguments(words)
    assert said in capsys.readouterr().err


# --- what is observed -----------------------------------------------------------------------------


def config(folder: Path) -> Path:
    pair = KeyPair(folder / "c", folder / "k", folder / "a")
    path = folder / "nats.conf"
    path.write_text(LeafConfig("mill", "fog-1", ("edge-1",), "127.0.0.1", 4222, pair).text(folder))
    return path


@contextmanager
def server_of(path: Path) -> Iterator[int]:
    """A process with a server's command line."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()", "--config", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"1"
        yield process.pid
    finally:
        process.communicate(b"\n")


def test_a_server_without_sync_always_is_seen(tmp_path: Path) -> None:
    path = config(tmp_path)
    with server_of(path) as pid:
        assert nats_syncs(pid)
        path.write_text(path.read_text().replace("sync_interval: always", 'sync_interval: "2m"'))
        assert not nats_syncs(pid)


def fleet_of(folder: Path) -> Fleet:
    kinds = (("cloud", "cloud"), ("fog", "fog-1"), ("edge", "edge-1"))
    return Fleet(
        "mill", folder, tuple(PlaceFile(kind, name, folder / name / "x.toml") for kind, name in kinds)
    )


def all_good(fleet: Fleet) -> dict[str, dict[str, str]]:
    return {p.name: dict.fromkeys(observed.STORES[p.kind], GOOD) for p in fleet.places}


SYNCED = {"cloud/nats": True, "fog-1/nats": True}


def test_a_fleet_is_durable_when_all_servers_and_stores_say_so(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path)
    assert is_durable(fleet, SYNCED, all_good(fleet))


@pytest.mark.parametrize(
    "servers", [{}, {"cloud/nats": True}, {**SYNCED, "fog-1/nats": False}], ids=["none", "one", "one slack"]
)
def test_a_fleet_with_a_slack_or_missing_server_is_not_durable(
    tmp_path: Path, servers: dict[str, bool]
) -> None:
    fleet = fleet_of(tmp_path)
    assert not is_durable(fleet, servers, all_good(fleet))


@pytest.mark.parametrize("place", ["cloud", "fog-1", "edge-1"])
def test_a_place_that_said_nothing_is_not_durable(tmp_path: Path, place: str) -> None:
    fleet = fleet_of(tmp_path)
    assert not is_durable(fleet, SYNCED, {**all_good(fleet), place: {}})


@pytest.mark.parametrize(
    "said",
    ["", "journal_mode=delete synchronous=2", "journal_mode=wal synchronous=1", f"{GOOD[:-1]}2"],
    ids=["silent", "no journal", "normal", "a body not forced"],
)
def test_a_store_that_does_not_force_what_it_writes_is_seen(said: str) -> None:
    assert forces(GOOD)
    assert not forces(said)


def test_a_spool_reads_its_settings_back_from_the_open_database(tmp_path: Path) -> None:
    spool = DiskSpool(tmp_path)
    assert forces(spool.durability())
    spool._writing.execute("PRAGMA synchronous = OFF")
    assert not forces(spool.durability())
    spool.close()


def test_rows_that_disagree_with_the_processes_give_no_figure(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path)
    running = [("cloud/main", 1), ("fog-1/main", 2), ("edge-1/main", 3), ("edge-1/egress", 4)]
    assert topology(fleet, running, Rounds(1, 1, 32)) == "1 edges, 1 fogs, 1 cloud"
    with pytest.raises(RuntimeError, match="1 edges and 1 fogs ran"):
        topology(fleet, running, Rounds(2, 1, 32))


def test_the_gate_tells_milliseconds_and_its_limit(tmp_path: Path) -> None:
    told = gate.measure(10, 2, tmp_path)
    assert {"median_ms", "p90_ms", "disk_limit_ms"} <= set(told)


TOLD = """ESTAB 0      0      127.0.0.1:36480    127.0.0.1:31206 users:(("python",pid=18156,fd=15))
\t bbr wscale:10,10 bytes_sent:{sent} bytes_acked:1 bytes_received:{received} segs_out:{out} segs_in:2
LISTEN 0      0      127.0.0.1:31206    0.0.0.0:* users:(("nats-server",pid=7,fd=3))
\t cubic cwnd:10
"""


def test_what_passed_a_connection_is_counted_from_the_first_look_and_a_new_one_from_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter([TOLD.format(sent=100, received=50, out=4), TOLD.format(sent=160, received=70, out=6)])
    monkeypatch.setattr(steady, "told_by_ss", lambda: next(looks))
    sockets = steady.Sockets([18156])
    sockets.look()
    sockets.look()
    (line,) = sockets.lines.values()
    assert (line.port, line.passed("bytes_sent", "bytes_received"), line.passed("segs_out")) == (31206, 80, 2)
    assert steady.Line(9, {}, {"bytes_sent": 7}).passed("bytes_sent") == 7


def test_a_day_is_reckoned_from_usual_intervals_and_a_head_follows_each_news() -> None:
    minutes = {"statistic": (10, 2000), "presence": (60, 3000), "head": (10, 13600)}
    found = steady.by_cause(minutes, bus_bytes=40_000, https_bytes=20_000, walk_bytes=5, seconds=300.0)
    assert found["head"] == pytest.approx(144 * 2000), "as many as there is news in a day"
    assert found["statistic"] / 144 - 200 == pytest.approx(found["presence"] / 1440 - 50), "all else alike"
    assert found["metadata"] == 5
