"""The sink ``opcua``: writes each answer to one node of a server, the only thing that is ever written to one.

Values in order; where there is no answer NaN, and no write for a type that has none. With ``stamp`` each has
its source time and a status: `answered` is good, `mended` uncertain, a safe answer a substitute, none bad.
`OneNode` stands before every request.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary

from reuna.adapters.opcua.connection import Lost, ReadOnly, opened
from reuna.adapters.opcua.refusals import in_our_words
from reuna.adapters.opcua.session import Session
from reuna.core.errors import Unreachable
from reuna.core.notices import NodeAlarm
from reuna.core.ports import Clock, Offload
from reuna.core.sink_settings import OpcUaTarget
from reuna.core.sinks import Answer, Said

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUS = {
    "answered": ua.StatusCodes.Good,
    "mended": ua.StatusCodes.Uncertain,
    "safe": ua.StatusCodes.UncertainSubstituteValue,
}
_WITH_NAN = (ua.VariantType.Double, ua.VariantType.Float)
LARGEST = 2**31  #: of a value of type Int32


class OneNode(ReadOnly):
    """Lets the value of one node be written as well, and nothing else."""

    node: ua.NodeId | None = None

    def observe_request(self, request: Any) -> AbstractContextManager[None]:
        if not isinstance(request, ua.WriteRequest):
            return super().observe_request(request)
        for each in request.Parameters.NodesToWrite:
            if self.node is None or each.NodeId != self.node or each.AttributeId != ua.AttributeIds.Value:
                raise PermissionError(f"a sink writes the value of its own node only: {each.NodeId}")
        return nullcontext()


class OpcUaSink:
    """The `Sink` port on a node of a server."""

    def __init__(self, target: OpcUaTarget, clock: Clock, offload: Offload) -> None:
        self._target = target
        self._clock = clock
        self._offload = offload
        self._open = AsyncExitStack()
        self._session: Session | None = None
        self._gate = OneNode()

    def encode(self, said: Said) -> tuple[bytes, ...]:
        """See `Sink.encode`: an OPC UA DataValue each, in the protocol's binary form."""
        values = [self._value(each) for each in said]
        return tuple(struct_to_binary(each) for each in values if each is not None)

    async def send(self, messages: Sequence[bytes]) -> bool:
        """See `Sink.send`. Raises `Unreachable`, and what `opened` does."""
        server = self._target.server
        try:
            session = self._session or await self._connected()
            for each in messages:
                with in_our_words(server):
                    await self._put(session, struct_from_binary(ua.DataValue, Buffer(each)))
        except Lost as lost:
            await self.close()
            raise Unreachable(str(lost)) from lost
        return True

    async def close(self) -> None:
        """See `Sink.close`."""
        self._session = None
        with contextlib.suppress(Lost):
            await self._open.aclose()

    async def _connected(self) -> Session:
        server = self._target.server
        self._gate = OneNode()
        session = await self._open.enter_async_context(
            opened(server, self._clock, self._offload, strict=False, gate=self._gate)
        )
        with in_our_words(server):
            wrong = await session.find([0])
        if wrong:
            raise Lost(f"{server.url}: {next(iter(wrong))}")
        self._gate.node = session.nodes[0]
        self._session = session
        return session

    async def _put(self, session: Session, value: ua.DataValue) -> None:
        """Raises `Unreachable` when the server does not take it."""
        node = session.nodes[0]
        (status,) = await session.client.uaclient.write_attributes([node], [value])
        if not status.is_good():
            raise Unreachable(
                f"{self._target.server.url} does not take a {self._target.type} for {node.to_string()}: "
                f"{status.name}",
                "Correct `node` and `type`, give the user the right to write it, or say stamp = false.",
            )

    def _value(self, said: Answer | NodeAlarm) -> ua.DataValue | None:
        """What is written; None: nothing. Of alarms: how many go on."""
        kind = ua.VariantType[self._target.type]
        number, good, at_ns = _said(said)
        variant = _variant(number, kind)
        if not self._target.stamp:
            if variant is None and kind in _WITH_NAN:
                variant = ua.Variant(math.nan, kind)
            return None if variant is None else ua.DataValue(variant)
        status = good if variant is not None else ua.StatusCodes.BadNoData
        moment = _EPOCH + timedelta(microseconds=at_ns // 1000)
        return ua.DataValue(
            variant or ua.Variant(None, ua.VariantType.Null), ua.StatusCode(status), SourceTimestamp=moment
        )


def _said(said: Answer | NodeAlarm) -> tuple[float | None, int, int]:
    """The number, its status and its time, ns since the epoch; of alarms how many go on."""
    if isinstance(said, NodeAlarm):
        return float(said.going), ua.StatusCodes.Good, said.at_ns
    return said.answer, _STATUS[said.state], said.last_ns


def _variant(value: float | None, kind: ua.VariantType) -> ua.Variant | None:
    """The number as that type; None where there is none that it can be."""
    if value is None:
        return None
    if kind is ua.VariantType.Boolean:
        return ua.Variant(bool(value), kind)
    if kind is ua.VariantType.Int32:
        return ua.Variant(round(value), kind) if -LARGEST <= round(value) < LARGEST else None
    return ua.Variant(value, kind)
