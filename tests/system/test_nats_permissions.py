"""A real hub, a real site, real certificates: who can say and hear what, and what crosses.

Some of these servers or clients are hostile on purpose: a fog whose own server allows it
everything, a cloud that asks for everything, an edge that speaks the protocol by hand.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.js.errors import APIError

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.nats_bus import NatsBus, StreamLimits
from reuna.adapters.nats_server import HubConfig, LeafConfig, NatsServer, ServerBinary, find_server
from reuna.adapters.tls import KeyPair, client_context
from reuna.core.errors import BusDown, PermissionDenied
from reuna.fleet.ports import free_ports

pytestmark = [pytest.mark.asyncio, pytest.mark.system]
HOST = "127.0.0.1"
SOON_S = 10.0


class OpenFog(LeafConfig):
    """A fog in hostile hands: its own server lets its egress do anything and denies nothing."""

    def text(self, folder: Path) -> str:
        text = re.sub(r"(/fog/.*?), permissions: .*", r"\1 }", super().text(folder))
        return re.sub(r"deny_\w+: .*", "", text)


class CuriousHub(HubConfig):
    """A cloud that may subscribe to everything, so that its interest in all reaches every leaf."""

    def text(self, folder: Path) -> str:
        return super().text(folder).replace('"event.>", "hello.>"', '">"', 1)


class Fleet:
    """Starts servers and clients of one fleet and ends them all."""

    def __init__(self, folder: Path, stack: AsyncExitStack, binary: ServerBinary) -> None:
        self.folder = folder
        self.authority = CertificateAuthority.create(folder / "pki", "demo")
        self.port, self.leaf_port, self.site_port = free_ports(3)
        self._binary = binary
        self._stack = stack

    def hub_config(self, kind: type[HubConfig] = HubConfig) -> HubConfig:
        tls = self.authority.issue("cloud", "cloud", [HOST])
        return kind("demo", "cloud", ("north", "south"), HOST, self.port, self.leaf_port, tls)

    def site_config(self, kind: type[LeafConfig] = LeafConfig) -> LeafConfig:
        tls = self.authority.issue("gateway", "north", [HOST], site="north")
        uplink = self.authority.issue("fog", "north")
        edges = ("plant-1", "plant-2")
        hub = f"{HOST}:{self.leaf_port}"
        return kind("demo", "north", edges, HOST, self.site_port, tls, hub, uplink)

    async def start(self, config: HubConfig | LeafConfig) -> NatsServer:
        server = NatsServer(self._binary, config, self.folder / config.name)
        self._stack.push_async_callback(server.stop)
        await server.start()
        return server

    async def connect(
        self,
        role: str,
        name: str,
        pair: KeyPair | None = None,
        port: int | None = None,
        own: bool = False,
    ) -> NatsBus:
        pair = pair or self.authority.pair(role, name)
        if not pair.certificate.exists():
            self.authority.issue(role, name, site="north" if role == "edge" else "")
        tls = client_context(pair.certificate, pair.key, self.authority.certificate)
        url = f"tls://{HOST}:{port or (self.port if role == 'cloud' else self.site_port)}"
        bus = await NatsBus.connect(url, tls, name, timeout_s=3.0, append_timeout_s=SOON_S, own=own)
        self._stack.push_async_callback(bus.close)
        return bus


@pytest.fixture(scope="module")
def binary() -> ServerBinary:
    return find_server()


@pytest_asyncio.fixture
async def fleet(tmp_path: Path, binary: ServerBinary) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        yield Fleet(tmp_path, stack, binary)


class Heard:
    def __init__(self) -> None:
        self.words: list[tuple[str, bytes]] = []
        self._more = asyncio.Condition()

    async def __call__(self, subject: str, data: bytes) -> None:
        async with self._more:
            self.words.append((subject, data))
            self._more.notify_all()

    async def count(self, number: int) -> list[tuple[str, bytes]]:
        async with asyncio.timeout(SOON_S), self._more:
            await self._more.wait_for(lambda: len(self.words) >= number)
        return self.words


def raw(bus: NatsBus) -> Client:
    """The client below, for what our own code would never send."""
    return bus._client


async def test_an_event_is_at_the_cloud_when_the_fogs_append_returns(fleet: Fleet) -> None:
    await fleet.start(fleet.hub_config())
    await fleet.start(fleet.site_config())
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    heard, plans = Heard(), Heard()
    await (await cloud.follow("event.>", "cloud", heard)).stop()
    await fog.append("event.north", b"1", "m1")
    held = await raw(cloud).jetstream().stream_info("EVENTS")
    assert held.state.messages == 1
    await cloud.follow("event.>", "cloud", heard)
    assert await heard.count(1) == [("event.north", b"1")]
    await fog.subscribe("plan.north", plans)
    await fog.append("event.north", b"2", "m2")
    await cloud.publish("plan.north", b"go")
    assert await plans.count(1) == [("plan.north", b"go")]


async def test_what_a_fogs_own_server_passes_on_to_nobody_is_known_to_have_stayed(fleet: Fleet) -> None:
    await fleet.start(fleet.site_config())
    fog = await fleet.connect("fog", "north", own=True)
    assert not await fog.publish("hello.north", b"no link")
    hub = await fleet.start(fleet.hub_config())
    cloud, heard = await fleet.connect("cloud", "cloud"), Heard()
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    await fog.append("event.north", b"1", "m1")  # the link is up
    assert not await fog.publish("hello.north", b"nobody listens")
    await cloud.subscribe("hello.>", heard)
    await raw(cloud).flush()
    async with asyncio.timeout(SOON_S):
        while not await fog.publish("hello.north", b"here"):  # until word of the listener is at the site
            await fog.append("event.north", b"2", "m2")
    assert {data for _, data in await heard.count(1)} == {b"here"}
    await asyncio.gather(*(fog.publish("hello.north", b"%d" % number) for number in range(5)))
    assert {data for _, data in await heard.count(6)} == {b"here", b"0", b"1", b"2", b"3", b"4"}
    await hub.stop()
    async with asyncio.timeout(SOON_S):
        while await fog.publish("hello.north", b"gone"):
            await raw(fog).flush()


async def test_nothing_of_the_site_crosses_even_to_a_cloud_that_asks_for_all(fleet: Fleet) -> None:
    await fleet.start(fleet.hub_config(CuriousHub))
    await fleet.start(fleet.site_config())
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    heard, plans = Heard(), Heard()
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    await gateway.follow("event.>", "up", Heard())
    await edge.subscribe("plan.plant-1", plans)
    await cloud.subscribe(">", heard)
    await fog.append("event.north", b"first", "m1")  # the link is up and open for this much
    await edge.append("event.plant-1", b"inside", "m2")
    await edge.publish("hello.plant-1", b"inside")
    await gateway.publish("plan.plant-1", b"inside")
    await plans.count(1)
    await raw(gateway).publish("reading.secret", b"inside")
    await raw(edge).publish("reading.secret", b"inside")
    await raw(gateway).flush()
    await fog.append("event.north", b"last", "m3")
    await fog.publish("hello.north", b"last")
    while ("hello.north", b"last") not in heard.words:
        await heard.count(len(heard.words) + 1)
    assert not [word for word in heard.words if b"inside" in word[1]]
    ours = {subject for subject, _ in heard.words if not subject.startswith(("_INBOX.", "$"))}
    assert ours == {"event.north", "hello.north"}


async def test_the_clouds_words_for_an_edge_do_not_enter_the_site(fleet: Fleet) -> None:
    await fleet.start(fleet.hub_config())
    await fleet.start(fleet.site_config())
    cloud, edge = await fleet.connect("cloud", "cloud"), await fleet.connect("edge", "plant-1")
    fog, gateway = await fleet.connect("fog", "north"), await fleet.connect("gateway", "north")
    plans, own = Heard(), Heard()
    await edge.subscribe("plan.plant-1", plans)
    await fog.subscribe("plan.north", own)
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    await fog.append("event.north", b"1", "m1")  # the link is up
    await cloud.publish("plan.plant-1", b"past the fog")
    await cloud.publish("plan.north", b"to the fog")
    await own.count(1)
    await gateway.publish("plan.plant-1", b"from the fog")
    assert await plans.count(1) == [("plan.plant-1", b"from the fog")]


async def test_a_hostile_fog_cannot_speak_under_another_name(fleet: Fleet) -> None:
    await fleet.start(fleet.hub_config(CuriousHub))
    await fleet.start(fleet.site_config(OpenFog))
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    heard = Heard()
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    await cloud.subscribe(">", heard)
    await fog.append("event.north", b"first", "m1")
    forged = ("event.south", "hello.south", "plan.south", "plan.north", "reading.north")
    for subject in forged:
        await fog.publish(subject, b"forged")
    await fog.publish("hello.north", b"last")
    while ("hello.north", b"last") not in heard.words:
        await heard.count(len(heard.words) + 1)
    assert not [word for word in heard.words if word[1] == b"forged"]
    assert fog.violations == 0  # its own server let it; the hub did not
    held = await raw(cloud).jetstream().stream_info("EVENTS", subjects_filter=">")
    assert held.state.subjects == {"event.north": 1}


async def test_a_hostile_fog_can_neither_read_nor_rule_the_hub(fleet: Fleet) -> None:
    await fleet.start(fleet.hub_config())
    await fleet.start(fleet.site_config(OpenFog))
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    heard = Heard()
    for subject in (">", "plan.>", "plan.south", "event.>", "_INBOX.cloud.>", "_INBOX.south.>"):
        await fog.subscribe(subject, heard)
    await fog.subscribe("plan.north", own := Heard())
    await fog.append("event.north", b"1", "m1")
    heard.words.clear()
    await cloud.publish("plan.south", b"for south")
    await cloud.publish("plan.north", b"for north")
    await own.count(1)
    assert {subject for subject, _ in heard.words} <= {"plan.north"}
    for prefix in ("$JS.API", "$JS.cloud.API"):
        stream = raw(fog).jetstream(prefix=prefix, timeout=0.3)
        with pytest.raises((APIError, TimeoutError)):
            await stream.purge_stream("EVENTS")
    assert (await raw(cloud).jetstream().stream_info("EVENTS")).state.messages == 1


async def test_a_hub_takes_fogs_as_links_only_and_edges_not_at_all(fleet: Fleet) -> None:
    await fleet.start(fleet.hub_config())
    for role, name in (("fog", "north"), ("edge", "plant-1"), ("gateway", "north")):
        pair = fleet.authority.issue(role, name)
        with pytest.raises(PermissionDenied):
            await fleet.connect(role, name, pair, fleet.port)


async def test_an_edge_cannot_pose_as_a_fogs_link(fleet: Fleet) -> None:
    hub = await fleet.start(fleet.hub_config())
    thief = replace(fleet.site_config(OpenFog), uplink=fleet.authority.issue("edge", "plant-1", site="north"))
    await fleet.start(thief)
    async with asyncio.timeout(SOON_S):
        while b"authentication error" not in hub.log_file.read_bytes():
            await asyncio.sleep(0.02)
    assert b"Leafnode connection created for account: FLEET" not in hub.log_file.read_bytes()
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fog.append("event.north", b"1", "m1"), 0.5)


async def test_an_edge_cannot_speak_or_listen_as_another(fleet: Fleet) -> None:
    await fleet.start(fleet.site_config())
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    heard = Heard()
    await gateway.follow("event.>", "up", heard)
    for subject in ("plan.plant-2", "plan.*", "event.plant-2", "_INBOX.plant-2.>", "$JS.>", ">"):
        with pytest.raises(PermissionDenied):
            await edge.subscribe(subject, Heard())
    for subject in ("event.plant-2", "event.north", "plan.plant-2", "$JS.API.STREAM.INFO.EVENTS"):
        with pytest.raises(PermissionDenied):
            await edge.append(subject, b"forged", "m1")
    await edge.append("event.plant-1", b"own", "m2")
    assert await heard.count(1) == [("event.plant-1", b"own")]


async def test_an_acknowledgement_aimed_at_the_servers_own_services_does_nothing(
    fleet: Fleet,
) -> None:
    await fleet.start(fleet.site_config())
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    await (await gateway.follow("event.>", "up", Heard())).stop()
    await edge.append("event.plant-1", b"1", "m1")
    for target in ("STREAM.PURGE.EVENTS", "STREAM.DELETE.EVENTS", "CONSUMER.DELETE.EVENTS.up"):
        await raw(edge).publish("event.plant-1", b"bait", reply=f"$JS.API.{target}")
    await edge.append("event.plant-1", b"2", "m2")
    jetstream = raw(gateway).jetstream()
    assert (await jetstream.stream_info("EVENTS")).state.messages == 5
    assert (await jetstream.consumer_info("EVENTS", "up")).name == "up"


async def test_not_even_the_gateway_can_empty_or_delete_the_stream(fleet: Fleet) -> None:
    await fleet.start(fleet.site_config())
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    await (await gateway.follow("event.>", "up", Heard())).stop()
    await edge.append("event.plant-1", b"1", "m1")
    jetstream = raw(gateway).jetstream(timeout=0.3)
    with pytest.raises(TimeoutError):
        await jetstream.purge_stream("EVENTS")
    with pytest.raises(TimeoutError):
        await jetstream.delete_stream("EVENTS")
    assert (await jetstream.stream_info("EVENTS")).state.messages == 1


async def test_a_client_of_another_authority_is_refused(fleet: Fleet) -> None:
    await fleet.start(fleet.site_config())
    strangers = CertificateAuthority.create(fleet.folder / "other", "demo")
    pair = strangers.issue("edge", "plant-1", site="north")
    with pytest.raises(PermissionDenied):
        await fleet.connect("edge", "plant-1", pair)


async def test_a_server_of_another_authority_is_refused(fleet: Fleet) -> None:
    strangers = CertificateAuthority.create(fleet.folder / "other", "demo")
    config = fleet.site_config()
    await fleet.start(replace(config, tls=strangers.issue("gateway", "north", [HOST], site="north")))
    with pytest.raises(PermissionDenied):
        await fleet.connect("edge", "plant-1")


async def test_a_client_without_tls_learns_nothing(fleet: Fleet) -> None:
    await fleet.start(fleet.site_config())
    reader, writer = await asyncio.open_connection(HOST, fleet.site_port)
    try:
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        said = await asyncio.wait_for(reader.read(), SOON_S)
    finally:
        writer.close()
    assert b"INFO" not in said


async def test_an_edge_is_added_without_dropping_the_others(fleet: Fleet) -> None:
    config = fleet.site_config()
    server = await fleet.start(config)
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    heard = Heard()
    await gateway.subscribe("hello.>", heard)
    with pytest.raises(PermissionDenied):
        await fleet.connect("edge", "plant-3")
    await server.reload(replace(config, edges=(*config.edges, "plant-3")))
    added = await fleet.connect("edge", "plant-3")
    await added.publish("hello.plant-3", b"new")
    assert await heard.count(1) == [("hello.plant-3", b"new")]
    await edge.publish("hello.plant-1", b"still here")
    await heard.count(2)
    assert (gateway.reconnects, edge.reconnects) == (0, 0)


async def test_a_fog_is_added_without_dropping_the_links_of_others(fleet: Fleet) -> None:
    config = replace(fleet.hub_config(), fogs=("north",))
    hub = await fleet.start(config)
    await fleet.start(fleet.site_config())
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    await fog.append("event.north", b"1", "m1")
    await hub.reload(replace(config, fogs=("north", "south")))
    await fog.append("event.north", b"2", "m2")
    assert hub.log_file.read_bytes().count(b"Leafnode connection created") == 1
    assert cloud.reconnects == 0


async def test_a_removed_fogs_link_is_cut_and_the_others_stays(fleet: Fleet) -> None:
    config = fleet.hub_config()
    hub = await fleet.start(config)
    north = await fleet.start(fleet.site_config())
    south_port = free_ports(1)[0]
    south = replace(
        fleet.site_config(),
        name="south",
        port=south_port,
        tls=fleet.authority.issue("gateway", "south", [HOST], site="south"),
        uplink=fleet.authority.issue("fog", "south"),
    )
    beside = await fleet.start(south)
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    other = await fleet.connect("fog", "south", port=south_port)
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    await fog.append("event.north", b"1", "n1")
    await other.append("event.south", b"1", "s1")
    await hub.reload(replace(config, fogs=("south",)))
    assert await cloud.disconnect("spiffe://demo/fog/north") == 1  # the reload alone leaves it open
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(fog.append("event.north", b"2", "n2"), 1.0)
    await other.append("event.south", b"2", "s2")
    assert "Leafnode connection closed" not in beside.log_file.read_text()
    assert "authentication error" in hub.log_file.read_text()
    assert "Authorization Violation" in north.log_file.read_text()


async def test_a_fog_cannot_end_connections_of_the_hub(fleet: Fleet) -> None:
    await fleet.start(fleet.hub_config())
    await fleet.start(fleet.site_config(OpenFog))
    cloud, fog = await fleet.connect("cloud", "cloud"), await fleet.connect("fog", "north")
    await (await cloud.follow("event.>", "cloud", Heard())).stop()
    await fog.append("event.north", b"1", "m1")
    assert await fog.disconnect("spiffe://demo/cloud/cloud") == 0  # its own server answers, of itself
    hub = await raw(cloud).request("$SYS.REQ.SERVER.PING.CONNZ", b"{}", timeout=2)
    server = json.loads(hub.data)["server"]["id"]
    for number in range(1, 50):
        await raw(fog).publish(f"$SYS.REQ.SERVER.{server}.KICK", b'{"cid": %d}' % number)
    await fog.append("event.north", b"2", "m2")
    await raw(cloud).flush()
    assert cloud.reconnects == 0
    assert await cloud.disconnect("spiffe://demo/fog/nobody") == 0
    assert await cloud.disconnect("spiffe://demo/fog/north") == 1  # who may, can


async def test_a_removed_edge_is_cut_off_and_let_in_again(fleet: Fleet) -> None:
    config = fleet.site_config()
    server = await fleet.start(config)
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    heard, plans = Heard(), Heard()
    await gateway.subscribe("hello.>", heard)
    await edge.subscribe("plan.plant-1", plans)
    await server.reload(replace(config, edges=("plant-2",)))
    await asyncio.wait_for(edge.offline(), SOON_S)
    await server.reload(config)
    await asyncio.wait_for(edge.online(), SOON_S)
    async with asyncio.timeout(SOON_S):
        while not plans.words:
            await gateway.publish("plan.plant-1", b"go")
            await asyncio.sleep(0.02)
    assert gateway.reconnects == 0


async def test_events_stay_at_the_fog_while_the_hub_is_away(fleet: Fleet) -> None:
    hub = await fleet.start(fleet.hub_config())
    await fleet.start(fleet.site_config())
    cloud = await fleet.connect("cloud", "cloud")
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    fog = await fleet.connect("fog", "north")
    heard = Heard()
    await cloud.follow("event.>", "cloud", heard)
    await hub.stop()

    async def pass_on(_subject: str, data: bytes) -> None:
        await fog.append("event.north", data, data.decode())

    up = await gateway.follow("event.>", "up", pass_on)
    for number in range(3):
        await edge.append("event.plant-1", b"%d" % number, f"m{number}")
    held = await raw(gateway).jetstream().stream_info("EVENTS")
    assert held.state.messages == 3
    await hub.start()
    words = await heard.count(3)
    assert [data for _, data in words] == [b"0", b"1", b"2"]
    await up.stop()


async def test_what_was_appended_survives_a_killed_server(fleet: Fleet) -> None:
    server = await fleet.start(fleet.site_config())
    gateway, edge = await fleet.connect("gateway", "north"), await fleet.connect("edge", "plant-1")
    await (await gateway.follow("event.>", "up", Heard())).stop()
    for number in range(20):
        await edge.append("event.plant-1", b"%d" % number, f"m{number}")
    os.kill(server.pid, signal.SIGKILL)
    await edge.append("event.plant-1", b"19", "m19")  # a resend: known after the restart as well
    await edge.append("event.plant-1", b"20", "m20")
    heard = Heard()
    await gateway.follow("event.>", "up", heard)
    words = await heard.count(21)
    assert [data for _, data in words] == [b"%d" % number for number in range(21)]


async def test_a_full_stream_refuses_new_events_and_keeps_the_old(fleet: Fleet) -> None:
    await fleet.start(fleet.site_config())
    pair = fleet.authority.pair("gateway", "north")
    tls = client_context(pair.certificate, pair.key, pair.authority)
    url = f"tls://{HOST}:{fleet.site_port}"
    gateway = await NatsBus.connect(url, tls, "north", limits=StreamLimits(max_bytes=3_000))
    await (await gateway.follow("event.>", "up", Heard())).stop()
    edge = await fleet.connect("edge", "plant-1")
    for number in range(2):
        await edge.append("event.plant-1", b"%d" % number * 1_000, f"m{number}")
    waiting = asyncio.ensure_future(edge.append("event.plant-1", b"2" * 1_000, "m2"))
    done, _ = await asyncio.wait({waiting}, timeout=0.3)
    assert not done
    heard = Heard()
    await gateway.follow("event.>", "up", heard)  # makes room
    words = await heard.count(3)
    assert [data[:1] for _, data in words] == [b"0", b"1", b"2"]
    await waiting
    await gateway.close()


async def test_a_server_that_is_not_there_is_said_so(fleet: Fleet) -> None:
    fleet.authority.issue("edge", "plant-1", site="north")
    pair = fleet.authority.pair("edge", "plant-1")
    tls = client_context(pair.certificate, pair.key, pair.authority)
    with pytest.raises(BusDown, match=str(fleet.site_port)):
        await NatsBus.connect(f"tls://{HOST}:{fleet.site_port}", tls, "plant-1", timeout_s=0.3)
