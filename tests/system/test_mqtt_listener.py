"""Machines speak MQTT to a real fog's server: edges read them, and Reuna's own subjects are out of reach."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import pytest_asyncio
from cryptography import x509
from paho.mqtt import publish

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.clock import ThreadOffload
from reuna.adapters.mqtt.sparkplug import encode
from reuna.adapters.nats_bus import NatsBus
from reuna.adapters.nats_server import LeafConfig, NatsServer, find_server
from reuna.adapters.tls import client_context
from reuna.core.mqtt_listener import MachineUser, MqttListener
from reuna.core.mqtt_settings import Broker, MqttSettings, MqttTag, SparkplugSettings, SparkplugTag
from reuna.core.sparkplug import Metric, Payload
from reuna.edge.read import opened
from reuna.fleet.ports import free_ports
from tests.unit.adapters.collected import Collected, Quick

pytestmark = [pytest.mark.asyncio, pytest.mark.system]
HOST = "127.0.0.1"
OIL = MqttTag("oil", "bar", "plant/press/oil", ("oil",), ("t",))
OURS = ("event.plant-1", "plan.plant-1", "hello.plant-1", "news.plant-1")


class Site:
    """A fog's server with a listener, the site's authority, and clients of it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.authority = CertificateAuthority.create(folder / "pki", "demo")
        self.port, self.mqtt_port = free_ports(2)
        tls = self.authority.issue("gateway", "north", [HOST], site="north")
        self.root = str(tls.authority)
        users = (
            MachineUser("press", "from press", ("plant/press/#", "spBv1.0/plant/+/press")),
            MachineUser("reader", "from reader", (), ("plant/#", "spBv1.0/plant/#")),
        )
        listener = MqttListener(self.mqtt_port, users, payload=2000)
        self.config = LeafConfig("demo", "north", ("plant-1",), HOST, self.port, tls, machines=listener)

    async def start(self) -> None:
        self.server = NatsServer(find_server(), self.config, self.folder / "north")
        self.stack.push_async_callback(self.server.stop)
        await self.server.start()

    def say(self, topic: str, payload: str | bytes, retain: bool = False, user: str = "press") -> None:
        """As a machine with another library does, and until the server has it."""
        sign_in: Any = {"username": user, "password": f"from {user}"}
        tls: Any = {"ca_certs": self.root}
        publish.single(topic, payload, 1, retain, HOST, self.mqtt_port, auth=sign_in, tls=tls)

    def client(self, user: str, password: str = "") -> aiomqtt.Client:
        return aiomqtt.Client(
            HOST,
            self.mqtt_port,
            username=user,
            password=password or f"from {user}",
            tls_params=aiomqtt.TLSParameters(ca_certs=self.root),
            timeout=3,
        )

    def broker(self) -> Broker:
        secret = self.folder / "reader.password"
        secret.write_text("from reader\n")
        return Broker(HOST, self.mqtt_port, True, self.root, user="reader", password_file=str(secret), qos=1)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        made = Site(tmp_path, stack)
        await made.start()
        yield made


def reading(site: Site) -> Any:
    return opened(MqttSettings("press", site.broker(), (OIL,)), Quick(), ThreadOffload())


async def test_an_edge_reads_what_a_machine_says_also_after_the_server_was_killed(site: Site) -> None:
    async def say_until_read(value: float, found: Collected) -> None:
        async with asyncio.timeout(30):
            while value not in found.values():
                with suppress(OSError):  # the server is away
                    await asyncio.to_thread(site.say, "plant/press/oil", f'{{"t": 5, "oil": {value}}}')

    async with Collected(reading(site)) as found:
        await say_until_read(1.5, found)
        os.kill(site.server.pid, signal.SIGKILL)
        await found.until(lambda found: found.reasons)
        await say_until_read(2.5, found)
        assert any("connected again" in reason for reason in found.reasons)


async def test_what_a_machine_had_retained_is_there_after_a_restart(site: Site) -> None:
    await asyncio.to_thread(site.say, "plant/press/oil", "1.5", retain=True)
    await site.server.stop()
    await site.server.start()
    async with site.client("reader") as reader:
        await reader.subscribe("plant/#", 1)
        async with asyncio.timeout(10):
            message = await anext(reader.messages)
    assert (message.payload, message.retain) == (b"1.5", True)


async def test_sparkplug_comes_through_with_the_dot_of_its_namespace(site: Site) -> None:
    tag = SparkplugTag("torque", "N.m", "torque")
    settings = SparkplugSettings("robot", site.broker(), "plant", "press", (tag,))
    birth = Payload(1000, 0, (Metric("bdSeq", None, 1000, 8, 0), Metric("torque", None, 1000, 10, 4.5)))
    async with Collected(opened(settings, Quick(), ThreadOffload())) as found:
        async with asyncio.timeout(30):
            while not found.values("torque"):
                await asyncio.to_thread(site.say, "spBv1.0/plant/NBIRTH/press", encode(birth))
        assert found.values("torque")[0] == 4.5


async def test_no_machine_says_or_hears_a_word_of_reunas(site: Site) -> None:
    edge = site.authority.issue("edge", "plant-1", site="north")
    gateway = site.authority.pair("gateway", "north")
    heard: list[str] = []

    async def hear(subject: str, data: bytes) -> None:
        heard.append(f"{subject} {data!r}")

    async def bus(name: str, pair: Any, own: bool) -> NatsBus:
        tls = client_context(pair.certificate, pair.key, site.authority.certificate)
        made = await NatsBus.connect(f"tls://{HOST}:{site.port}", tls, name, timeout_s=3.0, own=own)
        site.stack.push_async_callback(made.close)
        return made

    above, below = await bus("north", gateway, True), await bus("plant-1", edge, False)
    await above.subscribe("hello.>", hear)
    for subject in OURS:
        topic = subject.replace(".", "/")
        for user in ("press", "reader"):
            with suppress(aiomqtt.MqttError):
                async with site.client(user) as client:
                    await client.publish(topic, b"forged", qos=0)
            async with site.client(user) as client:
                codes: Any = await client.subscribe([(topic, 0), ("#", 0), ("+/plant-1", 0)])
                assert all(int(getattr(each, "value", each)) >= 128 for each in codes), (user, subject)
    await below.publish("hello.plant-1", b"mine")
    async with asyncio.timeout(10):
        while not heard:
            await asyncio.sleep(0)
    assert heard == ["hello.plant-1 b'mine'"]


async def test_a_machine_says_nothing_for_another_and_reads_nothing(site: Site) -> None:
    async with site.client("reader") as reader:
        await reader.subscribe("plant/#", 1)
        with suppress(aiomqtt.MqttError):
            async with site.client("press") as press:
                await press.publish("plant/robot/oil", b"forged", qos=0)
        with suppress(aiomqtt.MqttError):
            async with site.client("reader") as itself:
                await itself.publish("plant/press/oil", b"forged", qos=0)
        async with site.client("press") as press:
            codes: Any = await press.subscribe("plant/#", 1)
            assert int(getattr(codes[0], "value", codes[0])) >= 128
            await press.publish("plant/press/oil", b"mine", qos=1)
        async with asyncio.timeout(10):
            assert (await anext(reader.messages)).payload == b"mine"


@pytest.mark.parametrize(("user", "password"), [("press", "wrong"), ("nobody", "from press"), (None, None)])
async def test_who_does_not_sign_in_is_not_let_in(site: Site, user: str | None, password: str | None) -> None:
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client(
            HOST,
            site.mqtt_port,
            username=user,
            password=password,
            tls_params=aiomqtt.TLSParameters(ca_certs=site.root),
            timeout=5,
        ):
            pass


async def test_without_tls_nobody_is_let_in(site: Site) -> None:
    with pytest.raises(aiomqtt.MqttError):
        async with aiomqtt.Client(HOST, site.mqtt_port, username="press", password="from press", timeout=2):
            pass


async def test_a_message_that_is_too_large_ends_the_connection_and_no_other(site: Site) -> None:
    async with site.client("reader") as reader:
        await reader.subscribe("plant/#", 1)
        with suppress(aiomqtt.MqttError):
            async with site.client("press") as press:
                await press.publish("plant/press/oil", b"x" * 3000, qos=1)
        await asyncio.to_thread(site.say, "plant/press/oil", b"small")
        async with asyncio.timeout(10):
            assert (await anext(reader.messages)).payload == b"small"


async def test_more_clients_than_the_settings_say_are_not_let_in(site: Site) -> None:
    machines = site.config.machines
    assert machines is not None
    await site.server.reload(replace(site.config, machines=replace(machines, connections=1)))
    async with site.client("reader"):
        with pytest.raises(aiomqtt.MqttError):
            async with site.client("press"):
                pass


def shown(site: Site) -> int:
    """The serial number of the certificate that machines see."""
    pem = ssl.get_server_certificate((HOST, site.mqtt_port), timeout=5)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_a_renewed_certificate_is_shown_to_machines_too(site: Site) -> None:
    before = await asyncio.to_thread(shown, site)
    site.authority.issue("gateway", "north", [HOST], site="north")
    await site.server.reload(site.config)
    assert await asyncio.to_thread(shown, site) != before
    await asyncio.to_thread(site.say, "plant/press/oil", "1.5")


async def test_the_source_is_tested_with_the_command_that_tests_all(site: Site) -> None:
    broker = site.broker()
    file = site.folder / "sources.toml"
    file.write_text(
        f'[sources.press]\nkind = "mqtt"\nhost = "{HOST}"\nport = {site.mqtt_port}\n'
        f'authority = "{site.root}"\nuser = "reader"\npassword_file = "{broker.password_file}"\n'
        '[sources.press.tags]\noil = { unit = "bar", topic = "plant/press/oil" }\n'
    )
    command = [sys.executable, "-m", "reuna.cli", "source", "test", str(file), "--seconds", "3", "--json"]
    testing = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told = asyncio.create_task(testing.communicate())
    while not told.done():
        await asyncio.to_thread(site.say, "plant/press/oil", "1.5")
    assert testing.returncode == 0
    assert b'"oil"' in told.result()[0]
