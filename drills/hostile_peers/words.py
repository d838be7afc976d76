"""Events and connections: who may say what under which name, and for how long one may hold a line."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

from drills.hostile_peers.attack import Attack
from drills.hostile_peers.lines import stays_open
from drills.hostile_peers.world import Round, World
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.tls import client_context
from reuna.core.errors import BusDown, PermissionDenied
from reuna.core.records import Event, Hello
from reuna.fleet.ports import HOST
from reuna.wire import encode

FOG, CLOUD, NATS = "fog-1/place.log", "cloud/place.log", "fog-1/state/nats/nats.log"
CROWD = 80
HANDSHAKE_S = 8.0  #: longer than a handshake may take
SILENCE_S = 45.0  #: longer than a connection may say nothing


def _event(beside: Round, node: str, what: str = "forged", boot: str = "", seq: int = 1) -> bytes:
    return encode(
        Event(
            node, boot or beside.run, seq, 0.0, what, beside.run, 1, {"round": 1, "loss": 666.0, "model": "f"}
        )
    )


async def _told(world: World, beside: Round, node: str, what: str = "forged", times: int = 1) -> bool:
    """Whether the operator reads the event in the run's timeline, so many times."""

    def read() -> bool:
        told = [e for e in world.events(beside.run) if (e["node"], e["what"]) == (node, what)]
        return len([e for e in told if e["fields"].get("loss") == 666.0]) >= times

    return await world.settled(read)


async def anothers_subject(world: World, beside: Round) -> bool:
    """Edge-2 publishes where only edge-1 may."""
    edge = await world.bus("edge", "edge-2")
    with contextlib.suppress(PermissionDenied, BusDown):
        await edge.append("event.edge-1", _event(beside, "edge-1"), "m1")
    return await _told(world, beside, "edge-1")


async def anothers_event(world: World, beside: Round) -> bool:
    """Edge-2 publishes where it may, an event of edge-1."""
    edge = await world.bus("edge", "edge-2")
    await edge.append("event.edge-2", _event(beside, "edge-1"), "m2")
    return await _told(world, beside, "edge-1")


async def anothers_edge(world: World, beside: Round) -> bool:
    """Fog-1 tells of an edge of fog-2."""
    fog = await world.bus("fog", "fog-1")
    await fog.append("event.fog-1", _event(beside, "edge-3"), "m3")
    return await _told(world, beside, "edge-3")


async def clouds_report(world: World, beside: Round) -> bool:
    """Fog-1 tells what came of a round before the cloud does, with the number that the cloud will use."""
    fog = await world.bus("fog", "fog-1")
    forged = _event(beside, "cloud", "round", f"{beside.run}/round", 1000)
    await fog.append("event.fog-1", forged, "m4")
    return await _told(world, beside, "cloud", "round")


async def clouds_word(world: World, beside: Round) -> bool:
    """Fog-1 says of itself what only the cloud says of a run."""
    fog = await world.bus("fog", "fog-1")
    await fog.append("event.fog-1", _event(beside, "fog-1", "round", seq=9), "m7")
    return await _told(world, beside, "fog-1", "round")


async def anothers_hello(world: World, beside: Round) -> bool:
    """Fog-1 says that a node is there which nobody knows."""
    fog = await world.bus("fog", "fog-1")
    await fog.publish("hello.fog-1", encode(Hello("ghost", "b", "0", ())))
    return await world.settled(lambda: "ghost" in world.operator.nodes())


async def event_again(world: World, beside: Round) -> bool:
    """Fog-1 plays an event once more, as a new message."""
    fog = await world.bus("fog", "fog-1")
    for message in ("m5", "m6"):
        await fog.append("event.fog-1", _event(beside, "fog-1", seq=7), message)
    return await _told(world, beside, "fog-1", times=2)


async def gives_orders(world: World, beside: Round) -> bool:
    """Edge-2 asks the operator's API of the cloud."""
    line = world.freight("edge", "edge-2", "cloud")
    line.port = world.fleet.setting("listen.api_port")
    return (await line.get("/v1/nodes")).status == 200


# --- connections -----------------------------------------------------------------------------------


def _address(world: World) -> tuple[str, int]:
    return HOST, world.fleet.setting("listen.nats_port", "fog-1")


async def old_tls(world: World, beside: Round) -> bool:
    """TLS 1.2, with the right certificate."""
    context = world.tls("edge", "edge-2")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        reader, writer = await asyncio.open_connection(*_address(world), ssl=context)
        said = await asyncio.wait_for(reader.readline(), HANDSHAKE_S)
        writer.transport.abort()
    except (OSError, ssl.SSLError, TimeoutError):
        return False
    return said.startswith(b"INFO")


async def strangers(world: World, beside: Round) -> bool:
    """A certificate that says edge-1, of an authority of one's own."""
    pair = CertificateAuthority.load(world.strangers).issue("edge", "edge-1", site="fog-1")
    ours = Path(world.fleet.setting("tls.authority", "edge-1"))
    tls = client_context(pair.certificate, pair.key, ours)
    try:
        bus = await NatsBus.connect(f"tls://{HOST}:{_address(world)[1]}", tls, "edge-1")
    except (PermissionDenied, BusDown):
        return False
    await bus.close()
    return True


async def slow_loris(world: World, beside: Round) -> bool:
    """A request whose head comes a byte every five seconds."""
    reader, writer = await world.freight("edge", "edge-2").open()
    trickle = asyncio.create_task(_trickle(writer))
    try:
        return await stays_open(reader, writer, SILENCE_S)
    finally:
        trickle.cancel()


async def _trickle(writer: asyncio.StreamWriter) -> None:
    for letter in b"GET /v1/trust/timestamp.json":
        writer.write(bytes((letter,)))
        await asyncio.sleep(5.0)


async def crowd(world: World, beside: Round) -> bool:
    """Many connections of one node, each with a good request behind it."""
    line, lines = world.freight("edge", "edge-2"), []
    try:
        for _ in range(CROWD):
            lines.append(await line.open())
            lines[-1][1].write(b"GET /v1/trust/timestamp.json HTTP/1.1\r\nHost: fog\r\n\r\n")
        await asyncio.gather(*(_first_line(reader) for reader, _ in lines), return_exceptions=True)
        ends = await asyncio.gather(*(_ended(reader) for reader, _ in lines))
    finally:
        for _, writer in lines:
            writer.transport.abort()
    return not any(ends)


async def _first_line(reader: asyncio.StreamReader) -> Any:
    return await asyncio.wait_for(reader.readline(), HANDSHAKE_S)


async def _ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection within some looks of its guard."""
    try:
        async with asyncio.timeout(4.0):
            while await reader.read(65_536):
                pass
    except TimeoutError:
        return False
    except (OSError, ssl.SSLError):
        return True
    return True


ATTACKS = (
    Attack("publish-under-anothers-subject", "edge", "speaks on its neighbour's subject", ("subjects",),
           (NATS, "Publish Violation.*event.edge-1"), anothers_subject),
    Attack("event-in-anothers-name", "edge", "tells on its own subject what its neighbour did", ("event-name",),
           (FOG, "refused an event of edge-1 on event.edge-2"), anothers_event),
    Attack("event-of-anothers-edge", "fog", "tells what an edge of another site did", ("may-tell",),
           (CLOUD, "refused an event on event.fog-1: .*edge-3"), anothers_edge),
    Attack("report-in-the-clouds-name", "fog", "reports a round before the cloud does", ("may-tell",),
           (CLOUD, "refused an event on event.fog-1: .*cloud"), clouds_report),
    Attack("report-by-a-fog", "fog", "reports a round under its own name", ("may-tell",),
           (CLOUD, "refused an event on event.fog-1: 'round' of 'fog-1'"), clouds_word),
    Attack("hello-of-a-ghost", "fog", "says that a node is there which is not", ("own-hello",),
           (CLOUD, "refused a hello of ghost on hello.fog-1"), anothers_hello),
    Attack("event-replay", "fog", "plays an event again as a new message", ("event-once",),
           (CLOUD, "an event came again on event.fog-1"), event_again),
    Attack("orders-from-an-edge", "edge", "asks the operator's API with a node's certificate", ("operators",),
           (CLOUD, "refused .*edge/edge-2.* to GET /v1/nodes"), gives_orders),
    Attack("tls-1.2", "neighbour", "offers nothing newer than TLS 1.2", ("tls-version",),
           (NATS, "TLS handshake error.*unsupported versions"), old_tls),
    Attack("certificate-of-another-authority", "neighbour", "makes itself a certificate of an edge",
           ("authority",), (NATS, "TLS handshake error"), strangers),
    Attack("connection-crowd", "edge", "opens connections until there are no more", ("crowd",),
           (FOG, "dropped a connection of edge-2: it has more than"), crowd),
    Attack("slow-loris", "edge", "sends a request a byte at a time", ("silence",),
           (FOG, "dropped a connection of edge-2: it has asked for nothing"), slow_loris),
)  # fmt: skip
