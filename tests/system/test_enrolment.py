"""A fleet that nobody made in one go: cloud, fog and edges enrol with the commands a person types."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters import certificates as c
from reuna.cloud.settings import CLOUD
from reuna.fleet.admit import Desk
from reuna.fleet.officer import give_policy, make_officer
from reuna.fleet.place import read_settings
from reuna.fleet.ports import free_ports
from reuna.fog.settings import FOG
from tests import commands

pytestmark = [pytest.mark.system, pytest.mark.timeout(170)]
HOST = "127.0.0.1"
TABLES = {"cloud": (CLOUD, "REUNA_CLOUD_", "fog"), "fog": (FOG, "REUNA_FOG_", "edge")}


def until(happened: Callable[[], Any], seconds: float = 40) -> Any:
    """Poll a condition of other processes, with an end."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.1)
    return found


class Plant:
    """Folders and processes of one fleet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.officer = make_officer(folder)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}

    def reuna(self, *args: str, fails: bool = False) -> str:
        done = commands.reuna(*args, cwd=self.folder, env=self.env)
        assert (done.returncode != 0) == fails, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if fails else done.stdout

    def start(self, role: str, name: str, *sets: str) -> None:
        settings = self.folder / name / f"{role}.toml"
        command = [sys.executable, "-m", "reuna.cli", role, "--settings", str(settings)]
        command += [word for pair in sets for word in ("--set", pair)]
        with (self.folder / f"{name}.log").open("ab") as out:
            self.running[name] = subprocess.Popen(command, stdout=out, stderr=out)

    def stop(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(20)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def nodes(self, place: str, role: str) -> dict[str, dict[str, Any]]:
        rows = json.loads(self.reuna("node", "list", "--settings", f"{place}/{role}.toml", "--json"))
        return {row["name"]: row for row in rows}

    def token(self, place: str, role: str, name: str, *more: str) -> str:
        settings = ("--settings", f"{place}/{role}.toml")
        return str(json.loads(self.reuna("site", "invite", name, *settings, "--json", *more))["token"])

    def make_cloud(self, *sets: str, people_port: int = 0) -> None:
        self.reuna("site", "cloud", "demo", "--folder", "cloud")
        file = self.folder / "cloud" / "cloud.toml"
        text = file.read_text()
        names = ("nats_port", "leaf_port", "freight_port", "api_port", "port")
        for name, port in zip(names, free_ports(5), strict=True):
            text = re.sub(rf"^{name} = \d+", f"{name} = {port}", text, flags=re.MULTILINE)
        text = text.replace("[listen]", f"[listen]\npeople_port = {people_port}")
        file.write_text(text.replace("[enrol]", "[enrol]\n" + "\n".join(sets)))
        self.start("cloud", "cloud")
        until(lambda: "ready" in self.log("cloud"))

    def make_fog(self, name: str, *more: str) -> None:
        names = ("listen.nats_port", "listen.freight_port", "enrol.port")
        sets = [f"{setting}={port}" for setting, port in zip(names, free_ports(3), strict=True)]
        flags = [word for pair in (*sets, *more) for word in ("--set", pair)]
        self.reuna("join", self.token("cloud", "cloud", name), "--folder", name, *flags)
        self.policy(name, name)
        self.start("fog", name, "hello_s=0.5")
        until(lambda: "ready" in self.log(name))

    def make_fog_under(self, over: str, name: str) -> None:
        names = ("listen.nats_port", "listen.freight_port", "enrol.port")
        sets = [f"{setting}={port}" for setting, port in zip(names, free_ports(3), strict=True)]
        flags = [word for pair in sets for word in ("--set", pair)]
        self.reuna("join", self.token(over, "fog", name, "--fog"), "--folder", name, *flags)
        place = self.folder / name
        give_policy(place, place / "state", self.officer, "local", name, "demo", name, over)
        self.start("fog", name, "hello_s=0.5")
        until(lambda: "ready" in self.log(name))

    def make_edge(self, fog: str, name: str) -> None:
        self.reuna("join", self.token(fog, "fog", name), "--folder", name)
        self.policy(name, fog)
        self.start("edge", name, "hello_s=0.5")

    def policy(self, node: str, fog: str) -> None:
        """What the site's officer does by hand."""
        place = self.folder / node
        give_policy(place, place / "state", self.officer, "local", node, "demo", fog)

    def seen(self, place: str, role: str, name: str) -> dict[str, Any]:
        """What `nodes` says of one, for a look again and again: no process for each."""
        table, prefix, below = TABLES[role]
        settings = read_settings(table, prefix, self.folder / place / f"{role}.toml", None)
        desk = Desk.of(settings, below)
        with closing(desk.register):
            return next((row for row in desk.nodes(time.time()) if row["name"] == name), {})

    def heard(self, place: str, role: str, name: str) -> bool:
        return self.seen(place, role, name).get("heard") is not None


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    for process in reversed(made.running.values()):
        process.terminate()
    for process in made.running.values():
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def serial(file: Path) -> int:
    return c.read_chain(file.read_bytes())[0].serial_number


def test_a_site_enrols_an_edge_with_the_cloud_away_and_the_cloud_learns_of_it_later(plant: Plant) -> None:
    plant.make_cloud()
    plant.make_fog("mill-3")
    until(lambda: plant.heard("cloud", "cloud", "mill-3"))
    plant.stop("cloud")
    plant.make_edge("mill-3", "press-1")
    until(lambda: plant.heard("mill-3", "fog", "press-1"))
    plant.start("cloud", "cloud")
    until(lambda: plant.seen("cloud", "cloud", "press-1"))
    row = plant.nodes("cloud", "cloud")["press-1"]
    assert (row["role"], row["site"], row["state"]) == ("edge", "mill-3", "active")
    plant.reuna("node", "revoke", "press-1", "--settings", "cloud/cloud.toml", "--reason", "stolen")
    until(lambda: "Authorization Violation" in plant.log("press-1"))  # the fog asks the cloud
    until(lambda: "admitted are now none" in plant.log("mill-3"))
    said = plant.reuna("site", "invite", "press-1", "--settings", "mill-3/fog.toml", fails=True)
    assert "R309" in said


def test_certificates_renew_by_themselves_and_are_shown_without_a_restart(plant: Plant) -> None:
    """Lives of 15 seconds: all of this happens in half a minute instead of a month."""
    plant.make_cloud("life_days = 0.000174")
    plant.make_fog("mill-3", "enrol.life_days=0.000174")
    until(lambda: plant.heard("cloud", "cloud", "mill-3"))
    plant.make_edge("mill-3", "press-1")
    until(lambda: plant.heard("mill-3", "fog", "press-1"))
    pids = {name: process.pid for name, process in plant.running.items()}
    own = {
        name: plant.folder / name
        for name in ("mill-3/identity.pem", "mill-3/gateway.pem", "press-1/identity.pem")
    }
    first = {name: serial(path) for name, path in own.items()}
    until(lambda: all(serial(path) != first[name] for name, path in own.items()))
    time.sleep(16)  # longer than a life: what still speaks now speaks with renewed certificates
    assert {name: process.pid for name, process in plant.running.items() if process.poll() is None} == pids
    for place, role, name in (("cloud", "cloud", "mill-3"), ("mill-3", "fog", "press-1")):
        row = plant.nodes(place, role)[name]
        assert row["state"] == "active", plant.log(name)
        assert time.time() - row["heard"] < 18, plant.log(name)
    assert plant.log("press-1").count("renewed identity.pem") >= 2, plant.log("press-1")


def test_the_same_key_in_two_places_is_refused_until_somebody_decides(plant: Plant) -> None:
    plant.make_cloud()
    plant.make_fog("mill-3")
    plant.make_edge("mill-3", "press-1")
    until(lambda: plant.heard("mill-3", "fog", "press-1"))
    assert plant.nodes("mill-3", "fog")["press-1"]["alarms"] == []
    thief = plant.folder / "thief"
    thief.mkdir()
    settings = (plant.folder / "press-1" / "edge.toml").read_text()
    own = str(plant.folder / "press-1" / "state")
    (thief / "edge.toml").write_text(settings.replace(own, str(thief / "state")))
    shutil.copytree(plant.folder / "press-1" / "state" / "policy", thief / "state" / "policy")
    plant.start("edge", "thief", "hello_s=0.5")
    until(lambda: plant.seen("mill-3", "fog", "press-1")["alarms"])
    assert "two places" in plant.nodes("mill-3", "fog")["press-1"]["alarms"][0]
    assert "ALARM" in plant.reuna("node", "list", "--settings", "mill-3/fog.toml")
    assert until(lambda: plant.seen("cloud", "cloud", "press-1").get("alarms")), "the cloud hears of it too"
    assert plant.nodes("mill-3", "fog")["press-1"]["state"] == "held"
    for one in ("press-1", "thief"):
        until(lambda: "Authorization Violation" in plant.log(one))
    plant.running["thief"].kill()
    plant.reuna("node", "release", "press-1", "--settings", "mill-3/fog.toml")
    released = time.time()
    until(lambda: (plant.seen("mill-3", "fog", "press-1")["heard"] or 0) > released)
    assert plant.nodes("mill-3", "fog")["press-1"]["state"] == "active"


def test_a_renamed_node_ends_under_its_old_name_and_others_stay_connected(plant: Plant) -> None:
    plant.make_cloud()
    plant.make_fog("mill-3")
    for name in ("press-1", "press-2"):
        plant.make_edge("mill-3", name)
    until(lambda: plant.heard("mill-3", "fog", "press-1") and plant.heard("mill-3", "fog", "press-2"))
    said = plant.reuna("node", "rename", "press-1", "stamp-1", "--settings", "mill-3/fog.toml", "--json")
    plant.reuna("join", json.loads(said)["token"], "--folder", "stamp-1")
    plant.policy("stamp-1", "mill-3")
    plant.start("edge", "stamp-1", "hello_s=0.5")
    until(lambda: plant.heard("mill-3", "fog", "stamp-1"))
    nodes = plant.nodes("mill-3", "fog")
    assert (nodes["press-1"]["state"], nodes["press-1"]["reason"]) == ("revoked", "renamed to stamp-1")
    until(lambda: "Authorization Violation" in plant.log("press-1"))
    assert "refused" not in plant.log("press-2")
    assert os.kill(plant.running["press-2"].pid, 0) is None


def test_a_fog_enrols_under_a_fog_and_is_cut_off_there_when_the_cloud_revokes_it(plant: Plant) -> None:
    plant.make_cloud()
    plant.make_fog("firm", f"listen.leaf_port={free_ports(1)[0]}")
    plant.make_fog_under("firm", "north")
    plant.make_edge("north", "press-9")
    until(lambda: plant.heard("north", "fog", "press-9"))
    until(lambda: plant.heard("firm", "fog", "north"))
    until(lambda: plant.seen("cloud", "cloud", "press-9").get("site") == "north")
    until(lambda: plant.seen("cloud", "cloud", "north").get("serial"))
    assert plant.seen("cloud", "cloud", "north")["site"] == "firm"
    listed = plant.reuna("node", "list", "--settings", "cloud/cloud.toml")
    assert re.search(r"fog +north .*of firm, which hears it", listed)
    plant.reuna("node", "revoke", "north", "--settings", "cloud/cloud.toml")
    until(lambda: "Authorization Violation" in (plant.folder / "north/state/nats/nats.log").read_text())
    said = plant.reuna("site", "invite", "yard", "--fog", "--settings", "north/fog.toml", fails=True)
    assert "listen.leaf_port is 0: no fog can stand under this one" in said
