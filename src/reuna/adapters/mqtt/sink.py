"""The sink ``mqtt``: each answer or alarm is a message of JSON, sent at least once.

It stays connected; what breaks the connection is told, and the next delivery connects again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import msgspec

from reuna.adapters.mqtt.client import client_of, connected, failure_of, while_connected
from reuna.core.errors import Unreachable
from reuna.core.sink_settings import MqttTarget
from reuna.core.sinks import Said

if TYPE_CHECKING:
    from aiomqtt import Client

AT_LEAST_ONCE = 1


class MqttSink:
    """The `Sink` port on a broker. Raises `ExtraMissing` without aiomqtt, `KeyProblem` for its files."""

    def __init__(self, name: str, target: MqttTarget) -> None:
        self._what = f"sink {name}"
        self._target = target
        self._failure = failure_of(self._what)
        self._open = AsyncExitStack()
        self._line: tuple[Client, asyncio.Task[None]] | None = None  #: with what ends with it

    def encode(self, said: Said) -> tuple[bytes, ...]:
        """See `Sink.encode`."""
        return tuple(map(msgspec.json.encode, said))

    async def send(self, messages: Sequence[bytes]) -> bool:
        """See `Sink.send`. Raises `KeyProblem`, `Unreachable`."""
        try:
            client, ending = self._line or await self._connected()
            await while_connected(self._publish(client, messages), ending)
        except (OSError, self._failure) as error:
            await self.close()
            broker = self._target.broker
            raise Unreachable(f"{self._what}: {broker.host}:{broker.port}: {error}") from error
        return True

    async def _publish(self, client: Client, messages: Sequence[bytes]) -> None:
        for each in messages:
            await client.publish(self._target.topic, each, qos=AT_LEAST_ONCE, retain=self._target.retain)

    async def close(self) -> None:
        """See `Sink.close`."""
        if self._line is not None:
            _, ending = self._line
            self._line = None
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        await self._open.aclose()

    async def _connected(self) -> tuple[Client, asyncio.Task[None]]:
        client = client_of(self._what, self._target.broker)
        await self._open.enter_async_context(connected(client, self._failure))
        self._line = client, asyncio.create_task(self._until_lost(client))
        return self._line

    async def _until_lost(self, client: Client) -> None:
        """No message comes, for nothing is subscribed to; what ends is the connection."""
        with suppress(self._failure):
            await anext(client.messages)
