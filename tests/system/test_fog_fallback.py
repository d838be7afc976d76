"""A small model at the edge, a bigger one at the fog: unsure windows go there as far as the policy lets them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import pytest

from reuna.adapters.answer_store import StoredAnswers
from reuna.adapters.ledger_file import entries
from reuna.adapters.processes import children
from reuna.adapters.project import pack_bundle
from reuna.adapters.trust_keys import read_key
from reuna.core.errors import NotUsable
from reuna.core.outcomes import Outcome
from reuna.core.project import TASKS
from reuna.exchange.predict import read_release
from reuna.fleet.code import allow_code
from reuna.fleet.layout import make_fleet
from reuna.fleet.officer import amend, key_file
from tests.pumps import RULES, make, offline
from tests.system.test_live import PRESENCE, SOURCES, STEP_S, command_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
T = TypeVar("T")
WINDOWS = '[[flows]]\nkind = "window"\nto = ["gateway"]\n\n'
SMALL = """
[inference]
place = "edge-then-fog"
fog_project = "pumps-big"
unsure_below = {unsure}
fog_timeout_s = 5
"""
BIG = '\n[inference]\nplace = "fog"\n'


class Site:
    """A fleet with one edge and its fog, both models signed for it."""

    running: subprocess.Popen[bytes]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        plain = make(folder / "plain", TASKS[0], RULES)
        (folder / "recordings").mkdir()
        (folder / "recordings" / "a.csv").write_bytes(plain.recording.read_bytes())
        alone = asyncio.run(offline(plain.release(folder / "0.release"), folder / "recordings", plain.node))
        self.unsure = median(each.confidence for each in alone if each.confidence is not None)
        small = make(folder / "pumps", TASKS[0], RULES + SMALL.format(unsure=self.unsure))
        big = make(folder / "big", TASKS[0], RULES + BIG, seed=2)
        self.fleet = make_fleet(folder / "line", "local", {"fog-1": {"pump-1": small.node}})
        releases = {"pumps": small.release(folder / "s.release")}
        releases["pumps-big"] = big.release(folder / "b.release", project="pumps-big")
        self.big = read_release(releases["pumps-big"]).digest
        (folder / "sources.toml").write_text(SOURCES.format(folder=folder / "recordings"))
        edge, fog = (
            self.fleet.folder / name / f"{kind}.toml" for name, kind in (("pump-1", "edge"), ("fog-1", "fog"))
        )
        edge.write_text(
            f'sources = "{folder / "sources.toml"}"\n{edge.read_text()}\n[live]\nlateness_s = 1.2\n'
        )
        fog.write_text(f'{fog.read_text()}\n[inference]\ndata = "{small.node}"\n')
        for each in (small, big):
            allow_code(self.fleet, pack_bundle(each.folder), "pumps")
        for name, file in releases.items():
            words = ("trust", "add", str(file), "--kind", "release", "--name", f"{name}-1",
                     "--folder", str(self.fleet.folder / "trust"))  # fmt: skip
            subprocess.run(
                [sys.executable, "-m", "reuna.cli", *words], check=True, capture_output=True, timeout=60
            )
        self.state = self.fleet.folder / "pump-1" / "state"

    def start(self) -> None:
        command = [sys.executable, "-m", "reuna.cli", "up", str(self.fleet.folder / "fleet.toml")]
        with (self.folder / "up.log").open("wb") as out:
            self.running = subprocess.Popen(command, stderr=out, stdout=out, start_new_session=True)

    def stop(self) -> None:
        self.running.send_signal(signal.SIGINT)
        self.running.wait(60)

    def answers(self) -> list[Outcome]:
        try:
            store = StoredAnswers(self.state / "answers")
        except NotUsable:
            return []
        try:
            return [each.outcome for each in store.after(0, 10_000) if each.role == "live"]
        finally:
            store.close()

    def until(self, holds: Callable[[], T]) -> T:
        deadline = time.monotonic() + 90
        while not (found := holds()):
            assert self.running.poll() is None
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)
        return found

    def logs(self) -> str:
        logs = [self.fleet.folder / name / "place.log" for name in ("pump-1", "fog-1")]
        return "\n".join(each.read_text()[-3000:] for each in logs)

    def more(self, word: str, count: int = 2) -> list[Outcome]:
        """So many further windows of which the fog's word is this."""
        before = len(self.answers())

        def found() -> list[Outcome]:
            new = [each for each in self.answers()[before:] if each.fog and each.fog.word == word]
            return new if len(new) >= count else []

        return self.until(found)

    def kill(self, settings: str, meanwhile: Callable[[], T]) -> T:
        """End the place with that settings file at once; `reuna up` starts it again after ``meanwhile``."""
        pid = self.until(lambda: self.find(settings)) or 0
        self.running.send_signal(signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            result = meanwhile()
        finally:
            self.running.send_signal(signal.SIGCONT)
        self.until(lambda: (found := self.find(settings)) and found != pid)
        return result

    def find(self, settings: str) -> int | None:
        return next((pid for pid in children(self.running.pid) if settings in command_of(pid)), None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    pytest.importorskip("onnxruntime")
    made = Site(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_unsure_windows_go_to_the_fog_within_the_policy_and_it_may_be_away(site: Site) -> None:
    kept_here = site.more("policy")
    assert {each.place for each in kept_here} == {"edge"}
    assert all(each.answer == each.own and each.why.startswith("unsure: confidence ") for each in kept_here)
    assert not leaving(site, "intent"), "no byte of a window left"
    assert leaving(site, "refused")

    policy = site.fleet.folder / "pump-1" / "policy.toml"
    amend(policy, read_key(key_file(site.fleet.folder)), PRESENCE, WINDOWS + PRESENCE)
    by_fog = site.more("answered", 4)
    assert {(each.place, each.fog and each.fog.project) for each in by_fog} == {("fog", "pumps-big")}
    assert {each.fog and each.fog.release for each in by_fog} == {site.big}
    assert {each.to for each in leaving(site, "intent")} == {"spiffe://fog-1.local/gateway/fog-1"}

    alone = site.kill("fog.toml", lambda: site.more("away", 1))
    assert all(each.place == "edge" and each.answer == each.own for each in alone)
    site.more("answered")
    site.kill("edge.toml", site.answers)
    site.more("answered")
    site.until(lambda: any(each.fog is None and each.state != "safe" for each in site.answers()))

    told = said(site)
    starts = [each["first_ns"] for each in told["answers"]]
    steps = [round((after - before) / (STEP_S * 1e9), 6) for before, after in pairwise(starts)]
    assert all(step >= 1 and step == int(step) for step in steps), "once each, in order"
    assert sum(step - 1 for step in steps) == told["projects"]["pumps"]["passed"], "and none is lost"
    assert told["counts"]["places"].keys() == {"edge", "fog"}
    assert told["counts"]["fog"].keys() >= {"answered", "policy"}
    assert all(each["place"] == "edge" for each in told["answers"] if each["fog"] is None)
    shown = site.until(lambda: with_answers(shown_at(site), "pump-1"))
    assert [each["project"] for each in shown["projects"]] == ["pumps-big"]
    assert shown["edges"]["pump-1"]["answered"] >= 1
    print(told["counts"], shown)


def leaving(site: Site, kind: str) -> list[Any]:
    lines = [entry for _, entry in entries(site.state / "ledger")]
    return [each for each in lines if each.kind == kind and each.flow == "window"]


def shown_at(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (site.fleet.folder / "fog-1" / "state" / "inference.json").read_bytes()
    )
    return found


def with_answers(shown: dict[str, Any], edge: str) -> dict[str, Any] | None:
    """What a fog shows, once it counts answers; it starts from nothing, and an edge may first be refused."""
    return shown if "answered" in shown["edges"].get(edge, {}) else None


def said(site: Site) -> dict[str, Any]:
    command = [sys.executable, "-m", "reuna.cli", "answers", str(site.state), "--last", "100000", "--json"]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    return found
