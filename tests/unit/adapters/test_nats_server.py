"""Finding, configuring and keeping a nats-server; the processes here are real and short."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.nats_server import (
    HubConfig,
    LeafConfig,
    NatsServer,
    find_server,
    parse_version,
)
from reuna.adapters.tls import KeyPair
from reuna.core.errors import (
    PortInUse,
    ServerFailed,
    ServerMissing,
    ServerTooOld,
    SettingsError,
)
from reuna.fleet.ports import free_ports

HOST = "127.0.0.1"
SOON_S = 10.0
PAIR = KeyPair(Path("/pki/a.crt"), Path("/pki/a.key"), Path("/pki/authority.crt"))
HUB = HubConfig("demo", "cloud", ("north", "south"), HOST, 4222, 7422, PAIR)
LEAF = LeafConfig("demo", "north", ("plant-1",), HOST, 4222, PAIR, "10.0.0.1:7422", PAIR)


def script(path: Path, says: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def lines(text: str, word: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if word in line]


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("nats-server: v2.15.1", (2, 15, 1)),
        ("nats-server: v2.11.0-RC.1", (2, 11, 0)),
        ("no such thing", None),
    ],
)
def test_the_version_is_read_from_what_the_server_says(
    said: str, version: tuple[int, int, int] | None
) -> None:
    assert parse_version(said) == version


def test_a_server_is_found_on_this_machine() -> None:
    binary = find_server()
    assert binary.version >= (2, 11, 0)


def test_the_named_server_is_taken(tmp_path: Path) -> None:
    path = script(tmp_path / "mine", "nats-server: v2.12.3")
    assert find_server(path).version == (2, 12, 3)


def test_a_named_server_that_is_too_old_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = script(tmp_path / "old", "nats-server: v2.9.10")
    with pytest.raises(ServerTooOld, match=r"2\.9\.10.*2\.11\.0"):
        find_server(path)


@pytest.mark.parametrize("says", ["something else v2.15.1", "nats-server: unknown"])
def test_a_program_that_is_no_server_is_refused(tmp_path: Path, says: str) -> None:
    with pytest.raises(ServerMissing):
        find_server(script(tmp_path / "other", says))


def test_a_path_without_a_program_is_refused_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(ServerMissing) as caught:
        find_server(tmp_path / "nothing")
    assert "Install" in caught.value.next_step


def test_an_old_system_server_gives_way_to_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "nats-server", "nats-server: v2.9.10")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server().version > (2, 11, 0)


def test_without_system_server_and_wheel_the_next_step_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("reuna.adapters.nats_server.WHEEL", "reuna-no-such-wheel")
    with pytest.raises(ServerMissing):
        find_server()


def test_every_listener_verifies_and_speaks_tls_1_3_only() -> None:
    for config in (HUB, LEAF):
        text = config.text(Path("/state"))
        blocks = text.count("tls {")
        assert blocks == 2
        assert text.count('min_version: "1.3"') == blocks
        assert text.count("handshake_first: true") == blocks
    assert HUB.text(Path("/state")).count("verify_and_map: true") == 2
    assert LEAF.text(Path("/state")).count("verify_and_map: true") == 1  # the other one dials


def test_storage_is_synced_at_each_write() -> None:
    for config in (HUB, LEAF):
        assert "sync_interval: always" in config.text(Path("/state"))


def test_little_waits_for_who_takes_nothing_and_a_thin_line_has_time_for_a_word() -> None:
    for config in (HUB, LEAF):
        text = config.text(Path("/state"))
        assert lines(text, "max_pending:") == ["max_pending: 8000000"]
        assert lines(text, "write_deadline:") == ['write_deadline: "60s"']


def test_only_the_out_account_is_bound_to_the_link_and_it_stores_nothing() -> None:
    text = LEAF.text(Path("/state"))
    assert lines(text, "account:") == ['account: "OUT"']
    out = text[text.index("  OUT {") :]
    assert "jetstream" not in out
    assert out.count("user:") == 1
    assert "spiffe://demo/fog/north" in out


def test_a_lone_site_has_no_link() -> None:
    assert "leafnodes" not in replace(LEAF, hub=None).text(Path("/state"))


def test_each_child_may_only_speak_under_its_own_name() -> None:
    for text, child in ((LEAF.text(Path("/s")), "plant-1"), (HUB.text(Path("/s")), "south")):
        [user] = lines(text, f"/{child}")
        assert f'publish: {{ allow: ["event.{child}", "hello.{child}", "roster.{child}"] }}' in user
        hears = f'["plan.{child}", "news.{child}", "whole.{child}", "_INBOX.{child}.>"]'
        assert f"subscribe: {{ allow: {hears} }}" in user


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "A", "a b", 'a"', "a\n", "-a", "a" * 64])
def test_a_name_that_could_widen_a_subject_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        replace(LEAF, edges=("plant-1", name)).text(Path("/state"))
    with pytest.raises(SettingsError):
        replace(HUB, fogs=(name,)).text(Path("/state"))


@pytest.mark.parametrize("edges", [("a", "a"), ("north",)])
def test_a_name_that_stands_twice_is_refused(edges: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError):
        replace(LEAF, edges=edges).text(Path("/state"))


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Place:
    """A folder with certificates and a free port for one server."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        authority = CertificateAuthority.create(folder / "pki", "demo")
        pair = authority.issue("gateway", "north", [HOST], site="north")
        self.config = LeafConfig("demo", "north", ("plant-1",), HOST, self.port, pair)
        self.folder = folder / "nats"
        self.restarts: list[str] = []
        self.restarted = asyncio.Event()
        self.server = NatsServer(find_server(), self.config, self.folder, self._on_restart)

    def _on_restart(self, reason: str) -> None:
        self.restarts.append(reason)
        self.restarted.set()

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    await made.server.stop()


@pytest.mark.asyncio
async def test_a_started_server_listens_and_a_stopped_one_is_gone(place: Place) -> None:
    await place.server.start()
    pid = place.server.pid
    assert place.listens()
    await place.server.stop()
    assert not alive(pid)
    assert place.server.pid == 0


@pytest.mark.asyncio
async def test_the_configuration_is_readable_by_its_owner_only(place: Place) -> None:
    await place.server.start()
    mode = (place.folder / "nats.conf").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    await place.server.reload(replace(place.config, edges=("plant-1", "plant-2")))
    assert stat.S_IMODE((place.folder / "nats.conf").stat().st_mode) == 0o600
    assert "plant-2" in (place.folder / "nats.conf").read_text()


@pytest.mark.asyncio
async def test_the_server_is_told_how_much_memory_to_aim_at(place: Place) -> None:
    await place.server.start()
    environment = Path(f"/proc/{place.server.pid}/environ").read_bytes()
    assert {b"GOMEMLIMIT=64MiB", b"GOGC=25"} <= set(environment.split(b"\0"))


@pytest.mark.asyncio
async def test_a_taken_port_is_named(place: Place) -> None:
    with socket.socket() as other:
        other.bind((HOST, place.port))
        other.listen()
        with pytest.raises(PortInUse, match=str(place.port)):
            await place.server.start()


@pytest.mark.asyncio
async def test_a_killed_server_is_started_again_and_told_of(place: Place) -> None:
    await place.server.start()
    first = place.server.pid
    os.kill(first, signal.SIGKILL)
    await asyncio.wait_for(place.restarted.wait(), SOON_S)
    assert place.server.pid not in (0, first)
    assert place.listens()
    assert place.restarts == ["ended with status -9"]


@pytest.mark.asyncio
async def test_a_server_that_cannot_start_shows_its_last_words(place: Place) -> None:
    broken = replace(place.config.tls, certificate=Path("/no/such/certificate.crt"))
    server = NatsServer(find_server(), replace(place.config, tls=broken), place.folder)
    with pytest.raises(ServerFailed) as caught:
        await server.start()
    assert "certificate.crt" in caught.value.message
    assert str(server.log_file) in caught.value.message
    assert server.pid == 0


@pytest.mark.asyncio
async def test_a_refused_reload_leaves_the_server_as_it_was(place: Place) -> None:
    await place.server.start()
    with pytest.raises(ServerFailed, match="refused"):
        await place.server.reload(replace(place.config, name="south"))
    assert place.listens()
    assert "demo-north" in (place.folder / "nats.conf").read_text()


PARENT = """
import asyncio, sys
from pathlib import Path
from reuna.adapters.nats_server import *
from reuna.adapters.tls import KeyPair
folder, port = Path(sys.argv[1]), int(sys.argv[2])
names = "gateway-north.pem", "gateway-north.pem", "authority.crt"
pair = KeyPair(*(folder / "pki" / name for name in names))
async def main():
    config = LeafConfig("demo", "north", (), "127.0.0.1", port, pair)
    server = NatsServer(find_server(), config, folder / "n")
    await server.start()
    print(server.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_server_ends_with_a_killed_parent(tmp_path: Path) -> None:
    place = Place(tmp_path)
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(place.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    deadline = time.monotonic() + SOON_S
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)  # it is no child of ours, so nothing tells us of its end
    assert not alive(child)


def test_a_fog_of_fogs_is_a_hub_to_them_and_they_speak_under_their_own_names(tmp_path: Path) -> None:
    deep = replace(LEAF, fogs=("hall",), leaf_port=7422, over="firm")
    text = deep.text(tmp_path)
    assert deep.ports == (4222, 7422)
    (hall,) = lines(text, "spiffe://north.demo/fog/hall")
    assert "allowed_connection_types: [LEAFNODE]" in hall
    assert 'publish: { allow: ["event.hall", "hello.hall", "roster.hall"] }' in hall
    (own,) = lines(text, '"spiffe://firm.demo/fog/north"')
    assert "allowed_connection_types: [STANDARD]" in own
    assert text.count("leafnodes {") == 1
    assert "$SYS.REQ.SERVER.PING.CONNZ" in lines(text, "gateway/north")[0], "it ends links of who is gone"


def test_a_fog_without_fogs_listens_for_none(tmp_path: Path) -> None:
    text = LEAF.text(tmp_path)
    assert "system_account" not in text
    assert not [line for line in lines(text, "listen:") if "7422" in line]


def test_a_name_of_an_edge_and_of_a_fog_under_the_same_fog_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a name stands twice"):
        replace(LEAF, fogs=("plant-1",), leaf_port=7422).text(tmp_path)
