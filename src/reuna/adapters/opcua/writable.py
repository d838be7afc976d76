"""Whether the node that a sink writes is there and takes its values; nothing is written to find out."""

from __future__ import annotations

from contextlib import AsyncExitStack

from asyncua import ua

from reuna.adapters.opcua.connection import Lost, opened
from reuna.adapters.opcua.refusals import in_our_words
from reuna.core.errors import Unreachable
from reuna.core.ports import Clock, Offload
from reuna.core.sink_settings import OpcUaTarget

WRITE = 1 << 1  #: of a node's access level: its value may be written
ABSTRACT = (ua.ObjectIds.BaseDataType, ua.ObjectIds.Number)  #: that take each type that we write, or most


async def why_not(target: OpcUaTarget, clock: Clock, offload: Offload) -> str:
    """Why the node cannot be written, ''. Raises `Unreachable`, and what `opened` does."""
    server = target.server
    try:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(opened(server, clock, offload, strict=False))
            with in_our_words(server):
                wrong = await session.find([0])
                if wrong:
                    return next(iter(wrong))
                asked = (ua.AttributeIds.UserAccessLevel, ua.AttributeIds.DataType)
                found = [
                    (await session.client.uaclient.read_attributes([session.nodes[0]], each))[0]
                    for each in asked
                ]
    except Lost as lost:
        raise Unreachable(str(lost)) from lost
    status = found[0].StatusCode
    if status is not None and not status.is_good():
        return str(status.name)
    level, kind = (each.Value.Value if each.Value is not None else None for each in found)
    if level is None or not level & WRITE:
        return "the server does not let us write it"
    return _mismatch(kind, target.type)


def _mismatch(kind: ua.NodeId | None, ours: str) -> str:
    wanted = getattr(ua.ObjectIds, ours)
    if kind is None or kind.NamespaceIndex or kind.Identifier in (*ABSTRACT, wanted):
        return ""
    return f"its values are of the type {ua.ObjectIdNames.get(kind.Identifier, kind.Identifier)}, not {ours}"
