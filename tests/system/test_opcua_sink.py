"""Answers in one node of a real OPC UA server of another stack, and nowhere else in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asyncua import Client, Server, ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary

from reuna.adapters.clock import SystemClock, ThreadOffload
from reuna.adapters.opcua.sink import OneNode, OpcUaSink
from reuna.adapters.opcua.writable import why_not
from reuna.core.errors import Unreachable
from reuna.core.outcomes import Outcome, State
from reuna.core.sink_settings import OpcUaTarget
from reuna.core.sinks import Answer, told
from reuna.fleet.ports import free_ports
from tests.opcua import URI, Machine, settings, tag

pytestmark = [pytest.mark.system]


def answer(value: float | None, state: State = "answered") -> Answer:
    return told("edge-1", Outcome("p", 1, "d" * 64, 1, 1_700_000_000_123_456_789, state, value))


def opened(url: str, name: str = "answer", type: str = "Double", stamp: bool = False) -> OpcUaSink:
    return OpcUaSink(OpcUaTarget(settings(url, [tag(name)]), type, stamp), SystemClock(), ThreadOffload())


async def read(url: str, name: str = "answer") -> ua.DataValue:
    async with Client(url) as client:
        index = await client.get_namespace_index(URI)
        return await client.get_node(f"ns={index};s={name}").read_data_value(raise_on_bad_status=False)


@pytest.fixture
def machine() -> Iterator[Machine]:
    nodes = [
        {"node": "answer", "value": 0.5},
        {"node": "alarm", "value": False},
        {"node": "class", "value": 7},
    ]
    running = Machine(nodes=nodes).start()
    yield running
    running.kill()


async def test_the_newest_answer_stands_in_the_node_also_after_the_server_was_away(machine: Machine) -> None:
    sink = opened(machine.url)
    assert await sink.send(sink.encode([answer(0.0), answer(3.0)]))
    assert (await read(machine.url)).Value.Value == 3.0
    machine.kill()
    with pytest.raises(Unreachable, match=r"opc\.tcp://127\.0\.0\.1"):
        await sink.send(sink.encode([answer(4.0)]))
    machine.start()
    assert await sink.send(sink.encode([answer(4.0)]))
    assert (await read(machine.url)).Value.Value == 4.0
    await sink.close()


async def test_a_value_has_the_type_that_the_settings_say(machine: Machine) -> None:
    sink = opened(machine.url, "alarm", "Boolean")
    assert await sink.send(sink.encode([answer(2.0)]))
    assert (await read(machine.url, "alarm")).Value.Value is True
    await sink.close()
    sink = opened(machine.url, "alarm")
    with pytest.raises(Unreachable, match="does not take a Double for .*: BadTypeMismatch"):
        await sink.send(sink.encode([answer(2.0)]))
    await sink.close()


async def test_a_server_that_takes_no_status_says_so_and_how_to_go_on(machine: Machine) -> None:
    sink = opened(machine.url, stamp=True)
    with pytest.raises(Unreachable, match="BadWriteNotSupported") as said:
        await sink.send(sink.encode([answer(2.0)]))
    assert "stamp = false" in said.value.next_step
    await sink.close()


async def test_a_node_that_is_not_there_is_named(machine: Machine) -> None:
    sink = opened(machine.url, "nothing")
    with pytest.raises(Unreachable, match="nothing: BadNodeIdUnknown"):
        await sink.send(sink.encode([answer(2.0)]))
    await sink.close()


async def test_with_a_stamp_the_state_is_the_status_and_the_window_the_time() -> None:
    (port,) = free_ports(1)
    server = Server()
    await server.init()
    server.set_endpoint(url := f"opc.tcp://127.0.0.1:{port}")
    index = await server.register_namespace(URI)
    node = await server.nodes.objects.add_variable(ua.NodeId("answer", index), "answer", 0.5)
    await node.set_writable()
    async with server:
        sink = opened(url, stamp=True)
        assert await sink.send(sink.encode([answer(1.0, "safe")]))
        found = await read(url)
        assert found.Value.Value == 1.0
        assert found.StatusCode.value == ua.StatusCodes.UncertainSubstituteValue
        assert found.SourceTimestamp.timestamp() == pytest.approx(1_700_000_000.123456, abs=1e-6)
        assert await sink.send(sink.encode([answer(None, "safe")]))
        assert (await read(url)).StatusCode.value == ua.StatusCodes.BadNoData
        await sink.close()


@pytest.mark.parametrize(
    ("type", "value", "written"),
    [
        ("Double", None, [float("nan")]),
        ("Float", 1.5, [1.5]),
        ("Int32", 2.0, [2]),
        ("Int32", None, []),
        ("Int32", 1e12, []),
        ("Boolean", 0.0, [False]),
        ("Boolean", None, []),
    ],
)
def test_without_an_answer_it_writes_nan_or_nothing(
    type: str, value: float | None, written: list[object]
) -> None:
    found = opened("opc.tcp://press", type=type).encode([answer(value)])
    values = [struct_from_binary(ua.DataValue, Buffer(each)).Value.Value for each in found]
    assert str(values) == str(written)


def writing(*nodes: ua.NodeId, attribute: int = ua.AttributeIds.Value) -> ua.WriteRequest:
    request = ua.WriteRequest()
    request.Parameters.NodesToWrite = [ua.WriteValue(NodeId=node, AttributeId=attribute) for node in nodes]
    return request


@pytest.mark.parametrize(
    "request_",
    [
        writing(ua.NodeId("other", 2)),
        writing(ua.NodeId("answer", 2), ua.NodeId("other", 2)),
        writing(ua.NodeId("answer", 2), attribute=ua.AttributeIds.AccessLevel),
        ua.CallRequest(),
        ua.AddNodesRequest(),
    ],
)
def test_nothing_else_of_a_server_can_be_changed(request_: object) -> None:
    gate = OneNode()
    with pytest.raises(PermissionError):
        gate.observe_request(writing(ua.NodeId("answer", 2)))  # no node was found yet
    gate.node = ua.NodeId("answer", 2)
    gate.observe_request(writing(ua.NodeId("answer", 2)))
    with pytest.raises(PermissionError):
        gate.observe_request(request_)


async def test_whether_a_node_can_be_written_is_known_without_writing_it(machine: Machine) -> None:
    async def why(name: str, type: str) -> str:
        target = OpcUaTarget(settings(machine.url, [tag(name)]), type)
        return await why_not(target, SystemClock(), ThreadOffload())

    before = (await read(machine.url)).Value.Value
    assert await why("answer", "Double") == ""
    assert await why("answer", "Int32") == "its values are of the type Double, not Int32"
    assert "BadNodeIdUnknown" in await why("gone", "Double")
    assert (await read(machine.url)).Value.Value == before
    machine.kill()
    with pytest.raises(Unreachable):
        await why("answer", "Double")
