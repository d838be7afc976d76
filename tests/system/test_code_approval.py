"""Pushed code on a fleet whose machines joined: it waits at the site until its officers have signed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.sandbox import probe
from reuna.fleet.ports import free_ports
from reuna.template import make_project
from tests.system.test_enrolment import Plant, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(200)]
SITE = "mill-3"
EDGES = ("press-1", "press-2")
EDITED = "import numpy as np"  #: a line of the project's code


class Mill:
    """A plant of one site and two edges, its two officers, and an engineer with a project."""

    def __init__(self, folder: Path) -> None:
        self.plant = Plant(folder)
        self.folder = folder
        self.desk = folder / "officers"  # a machine of theirs, away from the nodes
        self.runs: list[subprocess.Popen[bytes]] = []
        self.people_port = free_ports(1)[0]

    def reuna(self, *args: str, fails: bool = False) -> str:
        return self.plant.reuna(*args, fails=fails)

    # --- what the operator does --------------------------------------------------------------

    def stand_up(self) -> None:
        make_project(self.folder / "detector", sample=True)
        self.plant.make_cloud(people_port=self.people_port)
        names = ("listen.nats_port", "listen.freight_port", "enrol.port")
        sets = [f"{name}={port}" for name, port in zip(names, free_ports(3), strict=True)]
        self.join("cloud", "cloud", "fog", SITE, *sets)
        for edge, data in zip(EDGES, ("pump-1", "pump-2"), strict=True):
            own = self.folder / "detector" / "data" / data
            level = f"sandbox.min_level={probe().number}"
            self.join(SITE, "fog", "edge", edge, level, data=own)

    def join(self, place: str, role: str, kind: str, name: str, *sets: str, data: Path | None = None) -> None:
        more = [word for pair in sets for word in ("--set", pair)]
        more += ["--data", str(data)] if data else []
        self.said = self.reuna("join", self.plant.token(place, role, name), "--folder", name, *more)
        self.plant.start(kind, name, "hello_s=0.5")
        if kind == "fog":  # it takes its edges in while it waits for a policy
            until(lambda: "who may sign its policy" in self.plant.log(name))

    # --- what the officers do ----------------------------------------------------------------

    def policy(self) -> None:
        """Two officers, both of whom must sign."""
        self.desk.mkdir()
        keys = [self.reuna("policy", "key", name, "--out", f"officers/{name}.key").strip()
                for name in ("dpo", "ot-owner")]  # fmt: skip
        signers = [word for key in keys for word in ("--signer", key)]
        whose = ("--site", SITE, "--fog", SITE, "--fleet", "demo")
        self.reuna("policy", "init", "--preset", "company", *whose, *signers, "--out", "officers/policy.toml")
        file = self.desk / "policy.toml"
        level = f"min_sandbox_level = {min(1, probe().number)}"
        text = file.read_text().replace("min_sandbox_level = 1", level)
        file.write_text(re.sub(r"^kill_switch.*\n", "", text, flags=re.MULTILINE))
        for name in ("dpo", "ot-owner"):
            self.sign(name)
        self.hand_out()
        for node in (SITE, *EDGES):
            self.reuna("policy", "pin", f"{node}/policy.toml", "--folder", f"{node}/state/policy")

    def sign(self, officer: str) -> None:
        self.reuna("policy", "sign", "officers/policy.toml", "--key", f"officers/{officer}.key")

    def approve(self, digest: str) -> str:
        own = ("--policy", "officers/policy.toml", "--key", "officers/dpo.key")
        return self.reuna("code", "approve", digest, *own)

    def hand_out(self) -> None:
        """Copied as a whole: a node that looks in between sees a policy that is not accepted yet."""
        for node in (SITE, *EDGES):
            for name in ("policy.sig", "policy.toml"):
                (self.folder / node / name).write_bytes((self.desk / name).read_bytes())

    def review(self, edge: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.reuna("code", "review", edge, "--json"))
        return found

    # --- what the engineer does --------------------------------------------------------------

    def run(self, name: str, fleet: str = "cloud/cloud.toml") -> subprocess.Popen[bytes]:
        """Begin a run; what it prints goes to ``name``.log."""
        command = [sys.executable, "-m", "reuna.cli", "run", "detector"]
        command += ["--fleet", fleet, "--rounds", "2"]
        with (self.folder / f"{name}.log").open("wb") as out:
            running = subprocess.Popen(command, cwd=self.folder, env=self.plant.env, stdout=out, stderr=out)
        self.runs.append(running)
        return running

    def sign_in(self, name: str, role: str) -> str:
        """An account's way to the cloud; the address."""
        (self.folder / "password").write_text("seven green boats sail\n")
        secret = ("--password-file", "password")
        self.reuna("people", "add", name, "--role", role, "--settings", "cloud/cloud.toml", *secret)
        address = f"https://127.0.0.1:{self.people_port}"
        self.reuna("login", address, "--name", name, "--authority", "cloud/ca/authority.crt", *secret)
        return address

    def said_by(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / "detector" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def mill(tmp_path: Path) -> Iterator[Mill]:
    made = Mill(tmp_path)
    yield made
    for process in [*made.runs, *reversed(made.plant.running.values())]:
        process.terminate()
    for process in [*made.runs, *made.plant.running.values()]:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def test_code_waits_for_the_sites_officers_and_configuration_does_not(mill: Mill) -> None:
    mill.stand_up()
    assert f"--site {SITE} --fog {SITE} --fleet demo" in mill.said, "join says how a policy begins"
    assert mill.plant.nodes(SITE, "fog")["press-1"]["heard"] is None, "nothing leaves without a policy"
    mill.policy()
    until(lambda: all(mill.plant.seen("cloud", "cloud", name) for name in (SITE, *EDGES)), 20)

    first = mill.run("first")
    until(lambda: "waits for the officers of press-1, press-2" in mill.said_by("first"), 20)
    waiting = mill.review("press-1")
    assert f"reuna code approve {waiting['digest']}" in mill.said_by("first")
    assert (waiting["before"], "detector/model.py" in waiting["files"]) == ("", True)
    assert f"R312 code {waiting['digest']}" in mill.plant.log("press-1")
    assert "signed by 1 of 2" in mill.approve(waiting["digest"])
    mill.hand_out()
    until(lambda: "is not accepted: signed by 1 of the 2" in mill.plant.log("press-2"))
    assert first.poll() is None, "one officer alone lets nothing run"
    mill.sign("ot-owner")
    mill.hand_out()
    until(lambda: "waits for the fleet's code role" in mill.plant.log("press-1"), 60)
    assert first.poll() is None, "the site's officers alone let nothing run that the fleet did not sign"
    assert f"code {waiting['digest']} is not signed by the fleet's code role" in mill.said_by("first")
    mill.reuna("trust", "add", "detector", "--kind", "code", "--folder", "cloud/trust")
    assert first.wait(60) == 0, mill.said_by("first")  # the same run goes on
    assert "no code waits" in mill.reuna("code", "review", "press-1", fails=True)

    mill.edit("reuna.toml", "rate = 0.1", "rate = 0.05")
    assert mill.run("second").wait(30) == 0, mill.said_by("second")
    assert "waits" not in mill.said_by("second"), "configuration needs nobody"

    mill.edit("detector/features.py", EDITED, EDITED + "  # again")
    mill.run("third")
    until(lambda: "waits for the officers" in mill.said_by("third"), 20)
    found = mill.review("press-2")
    assert found["before"] == waiting["digest"]
    assert [line for line in found["changes"] if line[0] in "+-"][2:] == [f"-{EDITED}", f"+{EDITED}  # again"]
    mill.edit("detector/features.py", EDITED + "  # again", EDITED)
    assert mill.run("fourth").wait(30) == 0, mill.said_by("fourth")  # code approved before goes on beside it
    run = re.search(r"reuna stop (\S+)", mill.said_by("third"))
    assert run is not None
    assert "nobody is signed in" in mill.reuna("stop", run[1], "--fleet", "https://127.0.0.1", fails=True)
    cloud = mill.sign_in("anna", "engineer")
    asked = json.loads(mill.reuna("check", "detector", "--against", cloud, "--json"))["against"]
    assert asked["ready"], "while a run waits for other code"
    assert [(edge["site"], edge["node"]) for edge in asked["edges"]] == [(SITE, edge) for edge in EDGES]
    assert all(edge["contract"]["rules"] for edge in asked["edges"]), "the site lets counts leave"
    assert not [edge for edge in asked["edges"] if "memory_free_mib" in edge], "its policy lists no such name"
    mill.reuna("stop", run[1], "--fleet", cloud)
    until(lambda: "was stopped" in mill.said_by("third"))
    assert mill.run("fifth", cloud).wait(30) == 0, mill.said_by("fifth")  # with no key of the fleet
    states = [each["state"] for each in json.loads(mill.reuna("runs", "--fleet", cloud, "--json"))]
    assert states == ["done", "done", "cancelled", "done", "done"], "the newest first"
    assert f"{run[1]}  cancelled" in mill.reuna("runs", "--fleet", "cloud/cloud.toml")
    assert "nobody is signed in at https://127.0.0.2" in mill.reuna(
        "run", "detector", "--fleet", "https://127.0.0.2", fails=True
    )
    mill.sign_in("vera", "viewer")
    assert "may not do that" in mill.reuna("run", "detector", "--fleet", cloud, fails=True)
