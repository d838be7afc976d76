"""A real cloud and the commands people type: accounts, a run that waits for a second person, the trail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reuna.adapters.tls import client_context
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import PermissionDenied
from reuna.fleet.client import Operator
from reuna.fleet.layout import write_toml
from reuna.fleet.ports import free_ports
from tests import commands
from tests.contract.provider import CLIENT, SECRET, IdentityProvider
from tests.system.test_enrolment import HOST, Plant, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
PASSWORD = "seven green boats sail"


class People:
    """A cloud, and two people with homes of their own."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.folder = plant.folder
        plant.reuna("site", "cloud", "works", "--folder", "cloud", "--host", HOST)
        file = self.folder / "cloud" / "cloud.toml"
        values = read_toml(file).values
        wanted = ("nats_port", "leaf_port", "freight_port", "api_port", "people_port")
        values["listen"] |= dict(zip(wanted, free_ports(5), strict=True))
        values["enrol"] |= {"port": free_ports(1)[0]}
        write_toml(file, {**values, "four_eyes": ["runs.submit"]})
        self.port = values["listen"]["people_port"]
        (self.folder / "password").write_text(PASSWORD + "\n")

    def reuna(self, who: str, *words: str, fails: bool = False) -> str:
        home = self.folder / "homes" / who
        home.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        done = commands.reuna(*words, cwd=self.folder, env=env)
        assert (done.returncode != 0) == fails, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr if fails else done.stdout

    def add(self, name: str, *roles: str) -> None:
        words = [word for role in roles for word in ("--role", role)]
        self.reuna(
            "root",
            "people",
            "add",
            name,
            *words,
            "--settings",
            "cloud/cloud.toml",
            "--password-file",
            "password",
        )

    def login(self, name: str, fails: bool = False, file: str = "password") -> str:
        words = ("--name", name, "--authority", "cloud/ca/authority.crt", "--password-file", file)
        return self.reuna(name, "login", f"https://{HOST}:{self.port}", *words, fails=fails)

    def with_provider(self, provider: IdentityProvider, client: str, secret: str) -> None:
        """Settings of the cloud as somebody would write them by hand."""
        (self.folder / "client-secret").write_text(secret)
        oidc = {
            "issuer": provider.issuer, "client_id": client, "authority": str(provider.authority),
            "secret_file": str(self.folder / "client-secret"),
        }  # fmt: skip
        lines = [f"{key} = {json.dumps(value)}" for key, value in oidc.items()]
        with (self.folder / "cloud" / "cloud.toml").open("a") as out:
            out.write("\n".join(("[oidc]", *lines, "[oidc.roles]", 'ml-team = ["engineer"]', "")))

    def browse(self, name: str, provider: IdentityProvider) -> str:
        """What the command says in the end; a browser beside it opens the page that it prints."""
        home = self.folder / "homes" / name
        home.mkdir(parents=True)
        env = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}
        words = (
            "login",
            f"https://{HOST}:{self.port}",
            "--authority",
            "cloud/ca/authority.crt",
            "--no-browser",
        )
        with subprocess.Popen(
            [sys.executable, "-m", "reuna.cli", *words],
            cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as command:  # fmt: skip
            assert command.stderr is not None
            page = next(line for line in command.stderr if line.startswith("https://"))
            provider.visit(page.strip())
            out, err = command.communicate(timeout=30)
        assert command.returncode == 0, err
        return out


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    plant = Plant(tmp_path)
    try:
        yield People(plant)
    finally:
        for name in list(plant.running):
            plant.stop(name)


def test_accounts_sign_in_and_what_they_may_not_do_is_said_and_noted(people: People) -> None:
    people.add("anna", "engineer")
    people.add("ben", "approver", "officer")
    people.plant.start("cloud", "cloud")
    until(lambda: "ready" in people.plant.log("cloud"))
    assert "anna: engineer" in people.login("anna")
    assert "ben" in people.login("ben")
    assert json.loads(people.reuna("anna", "whoami", "--json"))["roles"] == ["engineer"]
    assert "may not do that" in people.reuna("anna", "audit", "show", fails=True)
    (people.folder / "wrong").write_text("not the password at all\n")
    assert "do not belong together" in people.login("anna", fails=True, file="wrong")
    assert "no proposal 'x'" in people.reuna("ben", "proposals", "approve", "x", fails=True)
    trail = json.loads(people.reuna("ben", "audit", "show", "--json"))
    said = [(each["who"], each["what"], each["verdict"]) for each in trail]
    assert ("anna", "audit.read", "denied") in said
    assert ("anna", "session.begin", "denied") in said
    me = said[0][0]
    assert said[:3] == [(me, "site.operator", "allowed"), *[(me, "people.add", "allowed")] * 2]
    people.reuna("root", "people", "disable", "anna", "--settings", "cloud/cloud.toml")
    assert "is over" in people.reuna("anna", "whoami", fails=True)
    assert "lines, each as it was written" in people.reuna(
        "root", "audit", "verify", "--settings", "cloud/cloud.toml"
    )
    people.reuna("ben", "logout")
    assert "nobody is signed in" in people.reuna("ben", "whoami", fails=True)
    secrets = (PASSWORD, "not the password at all")
    places = [people.folder / "cloud.log", *(people.folder / "cloud" / "state").glob("*")]
    kept = b"".join(path.read_bytes() for path in places if path.is_file())
    assert not any(secret.encode() in kept for secret in secrets)
    pid = people.plant.running["cloud"].pid
    seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert not any(secret.encode() in seen for secret in secrets)


def test_somebody_signs_in_at_the_identity_provider(people: People) -> None:
    """The command prints the page, a browser goes through it and comes back to the command."""
    with IdentityProvider(people.folder) as provider:
        people.with_provider(provider, CLIENT, SECRET)
        people.plant.start("cloud", "cloud")
        until(lambda: "ready" in people.plant.log("cloud"))
        said = people.browse("anna", provider)
        assert "anna: engineer" in said
        assert json.loads(people.reuna("anna", "whoami", "--json"))["roles"] == ["engineer"]
        listed = people.reuna("root", "people", "list", "--settings", "cloud/cloud.toml")
        assert listed.split("\n")[0].endswith("engineer  (identity provider)")
        again = (
            "people",
            "password",
            "anna",
            "--settings",
            "cloud/cloud.toml",
            "--password-file",
            "password",
        )
        assert "signs in at the identity provider" in people.reuna("root", *again, fails=True)
        assert SECRET not in people.plant.log("cloud")


def test_an_operators_certificate_ends_when_it_is_made_anew_or_revoked(
    people: People, tmp_path: Path
) -> None:
    people.plant.start("cloud", "cloud")
    until(lambda: "ready" in people.plant.log("cloud"))
    root = people.folder / "cloud" / "ca" / "authority.crt"
    newest, stolen = people.folder / "cloud" / "ca" / "operator-operator.pem", tmp_path / "stolen.pem"
    stolen.write_bytes(newest.read_bytes())
    port = read_toml(people.folder / "cloud" / "cloud.toml").values["listen"]["api_port"]

    def fleet(pair: Path) -> str:
        return Operator(HOST, port, client_context(pair, pair, root)).fleet()[0]

    settings = ("--settings", "cloud/cloud.toml")
    assert fleet(stolen) == "works"
    assert "what was there before is refused" in people.reuna("root", "site", "operator", *settings)
    with pytest.raises(PermissionDenied, match="made anew"):
        fleet(stolen)
    assert fleet(newest) == "works"
    people.reuna("root", "node", "revoke", "operator", *settings)
    with pytest.raises(PermissionDenied, match="was revoked"):
        fleet(newest)
    assert "operator was revoked" in people.reuna("root", "site", "operator", *settings, fails=True)
    trail = people.reuna("root", "audit", "show", "--json", *settings)
    assert [each["why"] for each in json.loads(trail) if each["verdict"] == "denied"] == [
        "was made anew", "was revoked",
    ]  # fmt: skip


def test_a_mistake_is_one_sentence(people: People) -> None:
    (people.folder / "short").write_text("short\n")
    settings = ("--settings", "cloud/cloud.toml")
    add = ("people", "add", "anna", *settings)
    assert "12 to" in people.reuna("root", *add, "--role", "viewer", "--password-file", "short", fails=True)
    assert "is no role" in people.reuna(
        "root", *add, "--role", "boss", "--password-file", "password", fails=True
    )
    people.add("anna", "viewer")
    again = people.reuna("root", *add, "--role", "viewer", "--password-file", "password", fails=True)
    assert "there is an account anna" in again
    assert "no account 'eva'" in people.reuna("root", "people", "remove", "eva", *settings, fails=True)
    trail = people.folder / "cloud" / "state" / "audit.jsonl"
    trail.write_bytes(trail.read_bytes().replace(b"viewer", b"admin"))
    assert "line 2 is not as it was written" in people.reuna("root", "audit", "verify", *settings, fails=True)
