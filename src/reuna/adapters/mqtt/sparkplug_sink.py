"""The sink ``sparkplug``: an edge node of its own at a broker, whose data are answers or alarms.

Data are of QoS 0, as the standard says. So after each delivery it subscribes again, and the broker's answer
to that says that it has what came before. The sequence number stands behind the bytes that `encode` gave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from reuna.adapters.mqtt.client import client_of, connected, failure_of, while_connected
from reuna.adapters.mqtt.sparkplug import decode, encode
from reuna.core.errors import BadMessage, Unreachable
from reuna.core.ports import Clock
from reuna.core.sink_settings import SparkplugTarget
from reuna.core.sinks import Said
from reuna.core.sparkplug import Payload
from reuna.core.sparkplug_node import SparkplugNode, asks_for_birth, metrics_of

if TYPE_CHECKING:
    from aiomqtt import Client

ONCE_AT_LEAST = 1


class SparkplugSink:
    """The `Sink` port on a broker. Raises `ExtraMissing` without aiomqtt or protobuf."""

    def __init__(self, name: str, target: SparkplugTarget, clock: Clock) -> None:
        self._what = f"sink {name}"
        self._target = target
        self._clock = clock
        self._failure = failure_of(self._what)
        encode(Payload(None, None, ()))
        self._bd_seq = int(clock.now())  # goes up with each connection, and nobody keeps it
        self._node = SparkplugNode(target.group, target.node, self._bd_seq)
        self._turn = asyncio.Lock()
        self._open = AsyncExitStack()
        self._line: tuple[Client, asyncio.Task[None]] | None = None  #: with what ends with it

    def encode(self, said: Said) -> tuple[bytes, ...]:
        """See `Sink.encode`: the payload of one message of data for each."""
        told = [metrics_of(each) for each in said]
        return tuple(encode(Payload(each[0].timestamp_ms, None, each)) for each in told)

    async def send(self, messages: Sequence[bytes]) -> bool:
        """See `Sink.send`. Raises `KeyProblem`, `Unreachable`."""
        try:
            async with self._turn:
                client, ending = self._line or await self._connected()
                await while_connected(self._publish(client, messages), ending)
        except (OSError, self._failure) as error:
            await self.close()
            broker = self._target.broker
            raise Unreachable(f"{self._what}: {broker.host}:{broker.port}: {error}") from error
        return True

    async def _publish(self, client: Client, messages: Sequence[bytes]) -> None:
        if self._node.is_news(each for data in messages for each in decode(data).metrics):
            await self._born(client)
        for data in messages:
            seq = encode(Payload(None, self._node.next_seq(), ()))
            await client.publish(self._node.topic("NDATA"), data + seq)
        await client.subscribe(self._node.topic("NCMD"), ONCE_AT_LEAST)

    async def close(self) -> None:
        """See `Sink.close`. The node says its death itself, for a broker hides who takes leave."""
        if self._line is not None:
            client, ending = self._line
            self._line = None
            death = client.publish(self._node.topic("NDEATH"), encode(self._node.death()), ONCE_AT_LEAST)
            with suppress(OSError, self._failure):
                await while_connected(death, ending)
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        await self._open.aclose()

    async def _connected(self) -> tuple[Client, asyncio.Task[None]]:
        from aiomqtt import Will

        self._bd_seq += 1
        self._node = SparkplugNode(self._target.group, self._target.node, self._bd_seq)
        will = Will(self._node.topic("NDEATH"), encode(self._node.death()), qos=ONCE_AT_LEAST)
        client = client_of(self._what, self._target.broker, will=will)
        await self._open.enter_async_context(connected(client, self._failure))
        await client.subscribe(self._node.topic("NCMD"), ONCE_AT_LEAST)
        self._line = client, asyncio.create_task(self._hear(client))
        return self._line

    async def _born(self, client: Client) -> None:
        birth = self._node.birth(int(self._clock.now() * 1000))
        await client.publish(self._node.topic("NBIRTH"), encode(birth))

    async def _hear(self, client: Client) -> None:
        """Give another birth to whoever asks for one, until the connection ends."""
        with suppress(OSError, self._failure):
            async for message in client.messages:
                with suppress(BadMessage):
                    if isinstance(message.payload, bytes) and asks_for_birth(decode(message.payload)):
                        async with self._turn:
                            await self._born(client)
