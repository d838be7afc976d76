"""A fleet of three levels of fogs, with real processes: cloud, firm (kiln), north under it (press), hall (saw).

On one fleet: the deepest site's authority renews itself, releases go out in waves and go back, and a run of
overlapping rounds goes on while its processes are killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters import certificates
from reuna.adapters.certificates import CertificateAuthority
from reuna.core.health import Health
from reuna.fleet.client import Operator
from reuna.fleet.data import DataNode
from reuna.fleet.layout import HOSTS, Fleet, make_fleet, open_fleet
from reuna.fleet.open_project import open_settings
from reuna.fleet.replay import Replayed, replay
from reuna.fleet.session import Job, prepare, ready, sign_code, train
from reuna.fleet.supervise import Supervisor, log_path
from reuna.template import make_project
from tests import commands
from tests.releases import model, runnable

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
FOGS = {"firm": ("kiln",), "north": ("press",), "hall": ("saw",)}
ABOVE = {"north": "firm", "hall": "north"}
EDGES = ("kiln", "press", "saw")
DATA = dict(zip(EDGES, ("pump-1", "pump-2", "pump-3"), strict=True))
#: After so many steps which process is killed.
KILLS = {2: "cloud/main", 4: "north/main", 5: "saw/egress", 7: "firm/egress", 8: "hall/main"}
STEPS = 12
BUFFERED = [
    f"strategy.rounds={STEPS}", "strategy.name=fedbuff", "strategy.momentum=", "strategy.buffer=2",
    "run.local=false", "round.deadline_s=30",
]  # fmt: skip
WAVES = '[project]\nname = "ovens"\n[rollout]\nwaves = ["saw", "all"]\nsoak_s = 0.5\n'
WITHIN_S = 40.0


@dataclass
class Told:
    """What came of it."""

    fleet: Fleet
    operator: Operator
    project: Path
    folder: Path
    good: dict[str, Any] = field(default_factory=dict)
    bad: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, tuple[int, str, str]]] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    replayed: Replayed | None = None
    ended: list[float] = field(default_factory=list)  #: ends of the first certificates of `aged`, epoch s
    ends: list[float] = field(default_factory=list)  #: and of those that are there now
    shape: tuple[Any, ...] = ()  #: of the fleet, after that


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    pytest.importorskip("onnxruntime")
    return asyncio.run(all_of_it(tmp_path_factory.mktemp("at-work")))


async def all_of_it(folder: Path) -> Told:
    project = folder / "pumps"
    make_project(project, sample=True)
    data = {fog: {edge: project / "data" / DATA[edge] for edge in edges} for fog, edges in FOGS.items()}
    made = make_fleet(folder / "fleet", "firm", data, announce_s=0.3, above=ABOVE)
    for name in (*EDGES, *FOGS):
        file = next(place.settings for place in made.places if place.name == name)
        file.write_text("hello_s = 0.5\n" + file.read_text())
    fleet = open_fleet(made.folder / "fleet.toml")
    found = Told(fleet, Operator.of(fleet), project, folder)
    age(fleet)
    found.ended = ends(fleet)
    supervisor = Supervisor(fleet)
    await supervisor.start()
    try:
        await ready(fleet, found.operator, supervisor)
        await rolled_out(found, supervisor)
        await trained(found, supervisor)
        await renewed(found)
    finally:
        await supervisor.stop()
    return found


def aged(fleet: Fleet) -> list[Path]:
    """Files whose certificates end soon: of the deepest site's authority, of its fog, and of its edge."""
    north, hall = (fleet.folder / fog / "issuer" for fog in ("north", "hall"))
    return [hall / "authority.crt", north / "fog-hall.pem", hall / "edge-saw.pem"]


def ends(fleet: Fleet) -> list[float]:
    return [certificates.validity(file.read_bytes())[1] for file in aged(fleet)]


def age(fleet: Fleet) -> None:
    """Give them certificates of 21 hours, 20 of which are over."""
    of_site, fog, edge = aged(fleet)
    life, then = timedelta(hours=21), datetime.now(UTC) - timedelta(hours=20)
    root = CertificateAuthority.load(fleet.folder / "ca")
    key = certificates.read_key((of_site.parent / "authority.key").read_bytes())
    short = root.certify_site(key.public_key(), "hall", HOSTS, life, then)
    certificates.write_private(of_site, certificates.to_pem([short]), 0o644)
    for file in (fog, edge):
        issuer, own = CertificateAuthority.load(file.parent), certificates.read_key(file.read_bytes())
        identity = certificates.identity_in(certificates.read_chain(file.read_bytes())[0])
        chain = issuer.chain(issuer.certify(own.public_key(), identity, (), life, then))
        certificates.write_private(file, certificates.key_pem(own) + certificates.to_pem(chain))


async def renewed(found: Told) -> None:
    end = time.monotonic() + WITHIN_S
    while min(ends(found.fleet)) in found.ended and time.monotonic() < end:
        await asyncio.sleep(0.1)
    found.ends = ends(found.fleet)
    found.shape = await asyncio.to_thread(found.operator.fleet)


# --- releases ----------------------------------------------------------------------------------


async def rolled_out(found: Told, supervisor: Supervisor) -> None:
    """A good release, while two processes between are killed; one that fails on the deepest; one on all."""
    (found.folder / "ovens").mkdir()
    (found.folder / "ovens" / "reuna.toml").write_text(WAVES)
    rules = Health(trial_s=0.5)
    await signed(found, 1, runnable(1, model(1), rules, "ovens"))
    going = asyncio.create_task(rollout(found, 1))
    while not found.operator.rollouts():
        await asyncio.sleep(0.05)
    for name in ("north/main", "firm/egress"):
        os.kill(dict(supervisor.processes())[name], signal.SIGKILL)
    found.good = await going
    found.runs.append(runs(await asyncio.to_thread(found.operator.releases)))
    await signed(found, 2, runnable(2, model(2, wrong=True), rules, "ovens"))
    found.bad = await rollout(found, 2)
    found.runs.append(runs(await asyncio.to_thread(found.operator.releases)))
    await signed(found, 3, runnable(3, model(3, wrong=True), rules, "ovens"))
    await rollout(found, 3, "--wave", "all")
    found.runs.append(runs(await asyncio.to_thread(found.operator.releases)))


async def signed(found: Told, version: int, data: bytes) -> None:
    file = found.folder / f"ovens-{version}"
    file.write_bytes(data)
    trust = ("--folder", str(found.fleet.folder / "trust"))
    await reuna(found, "trust", "add", file.name, "--kind", "release", "--name", file.name, *trust)


async def rollout(found: Told, version: int, *more: str) -> dict[str, Any]:
    """Where it ended."""
    fleet = ("--fleet", str(found.fleet.folder / "fleet.toml"), "--project", "ovens")
    said = await reuna(
        found, "rollout", "start", *fleet, "--version", str(version), "--follow", "--json", *more
    )
    return dict(json.loads(said))


async def reuna(found: Told, *words: str) -> str:
    done = await asyncio.to_thread(commands.reuna, *words, cwd=found.folder, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    return done.stdout


def runs(answer: dict[str, Any]) -> dict[str, tuple[int, str, str]]:
    """Edge -> version, phase and reason."""
    return {
        node: (each.get("version", 0), each.get("phase", "none"), each.get("reason", ""))
        for node, said in answer["nodes"].items()
        for each in said["operates"]
        if each["project"] == "ovens"
    }


def test_a_release_goes_out_in_waves_to_every_level_while_fogs_between_are_killed(told: Told) -> None:
    assert told.good["phase"] == "done"
    assert [wave["nodes"] for wave in told.good["waves"]] == [["saw"], ["kiln", "press"]]
    assert told.runs[0] == dict.fromkeys(EDGES, (1, "confirmed", ""))


def test_a_bad_release_is_rolled_back_by_the_deepest_device_and_goes_no_further(told: Told) -> None:
    assert (told.bad["phase"], told.bad["why"]) == ("failed", "saw went back: self-test")
    assert told.runs[1]["saw"] == (1, "rolled_back", "self-test")
    assert {told.runs[1][edge] for edge in ("kiln", "press")} == {(1, "confirmed", "")}


def test_one_that_goes_to_all_at_once_is_rolled_back_by_each_device_that_took_it(told: Told) -> None:
    """The first that fails may end the rollout before another has taken it."""
    assert told.runs[2].keys() == set(EDGES)
    back = (1, "rolled_back", "self-test")
    assert back in told.runs[2].values()
    assert set(told.runs[2].values()) <= {back, (1, "confirmed", "")}


# --- overlapping rounds ------------------------------------------------------------------------


async def trained(found: Told, supervisor: Supervisor) -> None:
    nodes = [DataNode(edge, edge, found.project / "data" / DATA[edge]) for edge in EDGES]
    job = Job(found.project, open_settings(found.project, BUFFERED), nodes, found.folder / "runs")
    sign_code(job, found.fleet, lambda _event: None)
    spec, parts = await asyncio.to_thread(prepare, job, found.fleet, "r-buffered")

    def hear(event: dict[str, Any]) -> None:
        found.timeline.append(event)
        name = KILLS.get(event["fields"]["round"]) if event["what"] == "round" else None
        if name is not None:
            os.kill(dict(supervisor.processes())[name], signal.SIGKILL)
            found.killed.append(name)

    outcome = await train(found.operator, spec, parts, job, hear)
    result = {
        "run": spec.run,
        "rounds": spec.rounds,
        "asked": msgspec.to_builtins(spec),
        "timeline": found.timeline,
    }
    found.replayed = await replay(found.project, nodes, {**result, "model_digest": outcome["model"]})


def test_overlapping_rounds_go_on_through_every_kill_and_the_replay_has_the_same_bits(told: Told) -> None:
    assert told.killed == list(KILLS.values())
    rounds = [event["fields"] for event in told.timeline if event["what"] == "round"]
    assert [each["round"] for each in rounds] == list(range(1, STEPS + 1))
    assert told.replayed is not None
    assert (told.replayed.same, told.replayed.differs) == (True, 0)


def test_nothing_that_was_on_its_way_to_a_killed_parent_was_refused_by_the_one_after_it(told: Told) -> None:
    assert not [event["fields"] for event in told.timeline if event["what"] == "refused"]
    logs = {place.name: log_path(place).read_text() for place in told.fleet.places}
    assert not [name for name, text in logs.items() if "not-invited" in text]


def test_every_node_gave_to_the_run_also_after_the_kills(told: Told) -> None:
    rounds = [event["fields"]["members"] for event in told.timeline if event["what"] == "round"]
    for edge in EDGES:
        assert any(f"{edge}@" in members for members in rounds[max(KILLS) :]), rounds


# --- certificates ------------------------------------------------------------------------------


def test_the_deepest_site_renews_its_authority_its_fog_and_its_edge(told: Told) -> None:
    assert min(told.ends) > max(told.ended) + 5 * 86_400
    of_site, *_ = aged(told.fleet)
    key = certificates.read_key((of_site.parent / "authority.key").read_bytes())
    assert certificates.read_chain(of_site.read_bytes())[0].public_key() == key.public_key()


def test_a_fleet_whose_fogs_renewed_has_the_same_places(told: Told) -> None:
    assert told.shape == ("firm", FOGS, ABOVE)


def test_no_place_says_that_something_is_wrong_with_us(told: Told) -> None:
    assert not [place.name for place in told.fleet.places if "Traceback" in log_path(place).read_text()]
