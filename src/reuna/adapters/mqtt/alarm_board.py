"""Shows a fleet's alarms at a broker, and hears there who has seen one.

With each connection all alarms that go on are published again, and what the broker still has of others is
cleared, so neither a broker that lost its messages nor a cloud that was away leaves a wrong one standing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from reuna.adapters.clock import unless_cancelled
from reuna.adapters.mqtt.client import client_of, connected, failure_of, while_connected
from reuna.core.alarm_board import ACKNOWLEDGE, BoardSettings, number_of, read_word
from reuna.core.errors import AlarmNotFound, BadMessage, ReunaError
from reuna.core.ports import Clock

if TYPE_CHECKING:
    from aiomqtt import Client, Message

log = logging.getLogger("reuna.cloud")
WHAT = "alarms.mqtt"
FIRST_S, LAST_S = 1.0, 60.0  #: between two tries
AT_LEAST_ONCE = 1
REFUSED = 128  #: the least code of a subscription that was refused


class Alarms(Protocol):
    """What is shown: of each alarm that goes on its message; ``changed`` is set with each change of it."""

    @property
    def changed(self) -> asyncio.Event: ...
    def standing(self) -> Mapping[str, bytes]: ...
    async def acknowledge(self, number: str, who: str, note: str, *, first: bool) -> Any: ...


class AlarmBoard:
    """A fleet's alarms at one broker. Raises `ExtraMissing` without aiomqtt."""

    def __init__(self, settings: BoardSettings, alarms: Alarms, clock: Clock) -> None:
        self._settings = settings
        self._alarms = alarms
        self._clock = clock
        self._failure = failure_of(WHAT)
        self._said = ""

    async def run(self) -> None:
        """Until cancelled. What goes wrong is said in the log, the same once, and tried again."""
        wait = FIRST_S
        while True:
            try:
                client = client_of(WHAT, self._settings.broker)
                async with connected(client, self._failure):
                    wait, self._said = FIRST_S, ""
                    await self._serve(client)
            except (OSError, ReunaError, self._failure) as error:
                self._say(error)
            await self._clock.sleep(wait)
            wait = min(2 * wait, LAST_S)

    def _say(self, error: Exception) -> None:
        if self._said != str(error):
            self._said = str(error)
            broker = self._settings.broker
            log.warning("alarms are not shown at %s:%d: %s", broker.host, broker.port, error)

    async def _serve(self, client: Client) -> None:
        under = self._settings.topic
        topics = [f"{under}/+", *([f"{under}/+/{ACKNOWLEDGE}"] if self._settings.acknowledge else [])]
        answers: Any = await client.subscribe([(topic, AT_LEAST_ONCE) for topic in topics])
        unless_cancelled()
        for topic, answer in zip(topics, answers, strict=False):
            if int(getattr(answer, "value", answer)) >= REFUSED:
                log.warning("the broker of the alarms refuses to give us %s", topic)
        hearing = asyncio.create_task(self._hear(client))
        try:
            await while_connected(self._show(client), hearing)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)

    async def _show(self, client: Client) -> None:
        shown: Mapping[str, bytes] = {}
        while True:
            self._alarms.changed.clear()
            wanted = self._alarms.standing()
            for number in {*shown, *wanted}:
                if shown.get(number) != wanted.get(number):
                    await self._put(client, number, wanted.get(number, b""))
            shown = wanted
            await self._alarms.changed.wait()

    async def _put(self, client: Client, number: str, said: bytes) -> None:
        await client.publish(f"{self._settings.topic}/{number}", said, qos=AT_LEAST_ONCE, retain=True)
        unless_cancelled()

    async def _hear(self, client: Client) -> None:
        """Until the connection ends."""
        with suppress(OSError, self._failure):
            async for message in client.messages:
                await self._heard(client, message)

    async def _heard(self, client: Client, message: Message) -> None:
        found = number_of(message.topic.value, self._settings.topic)
        payload = message.payload if isinstance(message.payload, bytes) else b""
        if found is None:
            return
        number, acknowledges = found
        if not acknowledges and message.retain and payload and number not in self._alarms.standing():
            await self._put(client, number, b"")
        elif acknowledges and not message.retain:  # what was kept may be of another alarm of that number
            await self._seen(number, payload)

    async def _seen(self, number: str, payload: bytes) -> None:
        """What a client calls itself nobody has proved, so it never reads as an operator's name."""
        try:
            word = read_word(payload)
            await self._alarms.acknowledge(number, f"{word.by} (by MQTT)", word.note, first=True)
        except (BadMessage, AlarmNotFound) as error:
            log.warning("a word at the broker on alarm %s does not count: %s", number, error)
        else:
            log.info("alarm %s was seen by %r, as the broker says", number, word.by)
