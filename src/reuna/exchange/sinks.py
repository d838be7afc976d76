"""The way out to sinks: answers and alarms become bytes, the site's policy decides, the ledger has them.

What the place hands over are typed outcomes; nobody's bytes are passed on. An address that the policy does
not name gets nothing. Until a sink has a delivery the place hands it over again: the same bytes leave under
the entry they have, as long as the policy still lets them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.core.errors import BadMessage, ExtraMissing, Refused, ReunaError
from reuna.core.notices import NodeAlarm, Notice
from reuna.core.notices import told as told_alarm
from reuna.core.outcomes import Outcome
from reuna.core.ports import Clock, Offload
from reuna.core.sinks import ALARMS, Answer, Said, Sink, numbers, told
from reuna.exchange.flows import FlowControl, Passage
from reuna.exchange.intents import Leaving
from reuna.exchange.link import EgressSettings
from reuna.exchange.payloads import node_alarms, prediction

if TYPE_CHECKING:  # an egress without sinks has no use for them
    from reuna.core.sink_settings import SinkSettings

log = logging.getLogger("reuna.sinks")
MakeSink = Callable[["SinkSettings"], Sink]


class InTime(Protocol):
    """What the policy says, asked again while it says later (`Egress.in_time`)."""

    def __call__(self, ask: Callable[[], Passage]) -> Awaitable[Passage]: ...


class SinkGate:
    """`Sinks` (`reuna.exchange.link`) by the site's policy. A sink is opened when it is needed first."""

    def __init__(
        self,
        node: str,
        declared: Sequence[SinkSettings],
        make: MakeSink,
        flows: FlowControl,
        in_time: InTime,
        clock: Clock,
    ) -> None:
        self._node = node
        self._declared = {each.name: each for each in declared}
        self._make = make
        self._flows = flows
        self._in_time = in_time
        self._clock = clock
        self._open: dict[str, Sink] = {}
        self._turns = {each.name: asyncio.Lock() for each in declared}

    async def deliver(self, sink: str, number: int, outcomes: Sequence[Outcome]) -> bool:
        """See `Sinks.deliver`."""
        settings = self._known(sink, "every", "changes")
        answers = [told(self._node, each) for each in outcomes]
        values, to = numbers(answers), settings.recipient

        def leaving(messages: Sequence[bytes]) -> Leaving:
            return prediction(sink, to, number, values, messages, self._clock.now())

        async with self._turns[sink]:
            return await self._deliver(settings, answers, leaving)

    async def warn(self, sink: str, number: int, notices: Sequence[Notice]) -> bool:
        """See `Sinks.warn`."""
        settings = self._known(sink, ALARMS)
        alarms = [told_alarm(self._node, each) for each in notices]
        to = settings.recipient

        def leaving(messages: Sequence[bytes]) -> Leaving:
            return node_alarms(sink, to, number, alarms, messages, self._clock.now())

        async with self._turns[sink]:
            return await self._deliver(settings, alarms, leaving)

    def _known(self, sink: str, *whats: str) -> SinkSettings:
        """A sink that is told these. Raises `BadMessage`."""
        settings = self._declared.get(sink)
        if settings is None or settings.chosen.what not in whats:
            raise BadMessage(f"there is no sink {sink!r:.80} of {' or '.join(whats)}")
        return settings

    async def _deliver(
        self, settings: SinkSettings, said: Said, leaving: Callable[[Sequence[bytes]], Leaving]
    ) -> bool:
        sink = settings.name
        way = self._open.get(sink) or self._open.setdefault(sink, self._make(settings))
        messages = way.encode(said)

        def ask() -> Passage:
            return self._flows.leave(leaving(messages))

        try:
            passage = await self._in_time(ask)
        except Refused:  # it stands in the ledger
            return False
        arrived = await way.send(messages)
        self._flows.arrived(passage, "acknowledged" if arrived else "refused: receiver")
        return arrived

    async def close(self) -> None:
        """After the last delivery."""
        for each in self._open.values():
            await each.close()


def opened(settings: SinkSettings, offload: Offload) -> Sink:
    """A sink by its kind; what it needs is loaded now. Raises `KeyProblem`, `ExtraMissing`."""
    from reuna.core.sink_settings import FileTarget, MqttTarget, SparkplugTarget, WebhookTarget

    target, name, of_alarms = settings.target, settings.name, settings.chosen.what == ALARMS
    if isinstance(target, FileTarget):
        from reuna.adapters.file_sink import FileSink

        return FileSink(name, target, offload, NodeAlarm if of_alarms else Answer)
    if isinstance(target, WebhookTarget):
        from reuna.adapters.webhook_sink import WebhookSink

        return WebhookSink(name, target, offload)
    if isinstance(target, MqttTarget):
        from reuna.adapters.mqtt.sink import MqttSink

        return MqttSink(name, target)
    if isinstance(target, SparkplugTarget):
        from reuna.adapters.mqtt.sparkplug_sink import SparkplugSink

        return SparkplugSink(name, target, SystemClock())
    try:
        from reuna.adapters.opcua.sink import OpcUaSink
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "asyncua":
            raise
        raise ExtraMissing(
            f"sink {name}: asyncua is not installed", "Run `pip install 'reuna[opcua]'`."
        ) from None
    return OpcUaSink(target, SystemClock(), offload)


def open_gate(settings: EgressSettings, flows: FlowControl, in_time: InTime) -> SinkGate:
    """Of a node's egress. A file with mistakes, which the place complains about, stops nothing else."""
    offload = ThreadOffload()
    sinks: Sequence[SinkSettings] = ()
    try:
        if settings.sinks:
            from reuna.exchange.declared_sinks import declared

            sinks = declared(settings.sinks)
    except ReunaError as error:
        log.error("no answer leaves: %s %s", error.code, error)
    return SinkGate(
        settings.name,
        sinks,
        lambda each: opened(each, offload),
        flows,
        in_time,
        SystemClock(),
    )
