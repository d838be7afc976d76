"""The source `modbus` against pyModbusTCP's server: another implementation, in threads of its own."""

from __future__ import annotations

import asyncio
import builtins
import socket
import socketserver
import struct
import threading
from contextlib import aclosing, suppress

import pytest
from pyModbusTCP.constants import EXP_DATA_ADDRESS, EXP_SLAVE_DEVICE_BUSY
from pyModbusTCP.server import DataBank, DataHandler, ModbusServer

from reuna.adapters import modbus_source
from reuna.adapters.clock import SystemClock
from reuna.adapters.modbus_source import ModbusSource
from reuna.core.errors import ExtraMissing
from reuna.core.modbus import Register
from reuna.core.modbus_settings import ModbusSettings
from reuna.core.sources import BAD, GOOD, Batch, Scaling, check_batch

FLOAT = struct.unpack(">2H", struct.pack(">f", 2.5))


class Recording(DataHandler):  # type: ignore[misc]
    """Notes what it is asked for; some addresses of registers it does not have."""

    def __init__(self, bank: DataBank) -> None:
        super().__init__(bank)
        self.asked: list[tuple[int, int, int]] = []
        self.missing: dict[int, int] = {}

    def _noted(self, work, address: int, count: int, srv_info):
        self.asked.append((srv_info.recv_frame.pdu.func_code, address, count))
        for place in range(address, address + count):
            if place in self.missing:
                return DataHandler.Return(exp_code=self.missing[place])
        return work(address, count, srv_info)

    def read_coils(self, address, count, srv_info):
        return self._noted(super().read_coils, address, count, srv_info)

    def read_d_inputs(self, address, count, srv_info):
        return self._noted(super().read_d_inputs, address, count, srv_info)

    def read_h_regs(self, address, count, srv_info):
        return self._noted(super().read_h_regs, address, count, srv_info)

    def read_i_regs(self, address, count, srv_info):
        return self._noted(super().read_i_regs, address, count, srv_info)

    def write_coils(self, address, bits_l, srv_info):
        self.asked.append((srv_info.recv_frame.pdu.func_code, address, len(bits_l)))
        return super().write_coils(address, bits_l, srv_info)

    def write_h_regs(self, address, words_l, srv_info):
        self.asked.append((srv_info.recv_frame.pdu.func_code, address, len(words_l)))
        return super().write_h_regs(address, words_l, srv_info)


class Device:
    """A Modbus device that can be switched off and on."""

    def __init__(self) -> None:
        self.bank = DataBank()
        self.handler = Recording(self.bank)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.on()

    def on(self) -> None:
        self.server = ModbusServer("127.0.0.1", self.port, no_block=True, data_hdl=self.handler)
        self.server.start()

    def off(self) -> None:
        self.server.stop()


@pytest.fixture
def device():
    made = Device()
    yield made
    made.off()


class Quick(SystemClock):
    """Waits a hundredth."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


def source(device: Device, *tags: Register, **more) -> ModbusSource:
    return ModbusSource(
        ModbusSettings("press", "127.0.0.1", tags, port=device.port, every_s=0.5, **more), Quick()
    )


async def read(made: ModbusSource, enough=lambda batches: batches[-1].readings) -> list[Batch]:
    """What it gives until that is enough."""
    found: list[Batch] = []
    async with asyncio.timeout(20), aclosing(made.batches()) as batches:
        async for batch in batches:
            check_batch(batch, made.tags)
            found.append(batch)
            if enough(found):
                break
    return found


async def test_all_four_tables_are_read_with_scale_and_offset(device: Device) -> None:
    device.bank.set_holding_registers(100, FLOAT[::-1])
    device.bank.set_input_registers(7, [65_535])
    device.bank.set_coils(3, [True])
    device.bank.set_discrete_inputs(4, [True])
    tags = (
        Register("oil", "bar", "holding", 100, "float32", low_word_first=True, scaling=Scaling(2.0, 1.0)),
        Register("heat", "degC", "input", 7, "int16"),
        Register("pump", "", "coil", 3, "bool"),
        Register("door", "", "discrete", 4, "bool"),
    )
    (batch,) = await read(source(device, *tags))
    assert {name: each.values.tolist() for name, each in batch.columns.items()} == {
        "oil": [6.0], "heat": [-1.0], "pump": [1.0], "door": [1.0],
    }  # fmt: skip
    assert all(each.quality.tolist() == [GOOD] for each in batch.columns.values())
    assert all(each.times.tolist() == [batch.received_ns] for each in batch.columns.values())


async def test_neighbours_are_read_together_and_never_more_than_125_registers(device: Device) -> None:
    tags = [Register(f"t{number}", "", "holding", 2 * number, "float32") for number in range(100)]
    await read(source(device, *tags))
    assert device.handler.asked == [(3, 0, 124), (3, 124, 76)]


async def test_registers_that_the_device_does_not_have_are_bad_and_the_rest_goes_on(device: Device) -> None:
    device.bank.set_holding_registers(0, range(20))
    device.handler.missing = {5: EXP_DATA_ADDRESS, 16: EXP_DATA_ADDRESS}
    tags = [Register(f"t{number}", "", "holding", number) for number in range(20)]
    made = source(device, *tags)
    first, second = await read(made, lambda batches: len(batches) == 2)
    for batch in (first, second):
        bad = {name: each.codes.tolist() for name, each in batch.columns.items() if each.quality[0] == BAD}
        assert bad == {"t5": [2], "t16": [2]}
        good = [each.values[0] for name, each in batch.columns.items() if name not in bad]
        assert good == [number for number in range(20) if number not in {5, 16}]
    assert [gap.tags for gap in first.gaps] == [("t5",), ("t16",)]
    assert first.gaps[0].reason == "the device answers with exception 2 (illegal data address)"
    assert not second.gaps
    assert device.handler.asked[-3:] == [(3, 0, 5), (3, 6, 10), (3, 17, 3)]


async def test_a_register_that_was_refused_is_asked_for_again_after_a_while(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modbus_source, "REFUSED_S", 0.0)
    device.handler.missing = {1: EXP_DATA_ADDRESS}
    made = source(device, Register("a", "", "holding", 0), Register("b", "", "holding", 1))

    def mended(batches: list[Batch]) -> bool:
        device.handler.missing = {}
        return batches[-1].columns["b"].quality[0] == GOOD

    found = await read(made, mended)
    assert found[0].columns["b"].quality[0] == BAD


async def test_a_device_that_is_busy_is_asked_as_before(device: Device) -> None:
    device.handler.missing = {0: EXP_SLAVE_DEVICE_BUSY}
    made = source(device, Register("a", "", "holding", 0), Register("b", "", "holding", 1))
    found = await read(made, lambda batches: len(batches) == 2)
    assert found[1].columns["b"].codes.tolist() == [EXP_SLAVE_DEVICE_BUSY]
    assert device.handler.asked == [(3, 0, 2)] * 2


async def test_a_restart_of_the_device_is_a_gap_and_reading_goes_on(device: Device) -> None:
    made = source(device, Register("a", "bar", "holding", 0), timeout_s=0.3)
    steps = iter(["stop", "start", "end"])
    step = next(steps)

    def enough(batches: list[Batch]) -> bool:
        nonlocal step
        if step == "stop" and batches[-1].readings:
            device.off()
            step = next(steps)
        elif step == "start" and batches[-1].gaps:
            device.on()
            step = next(steps)
        return step == "end" and bool(batches[-1].readings)

    found = await read(made, enough)
    whole = [batch for batch in found if batch.readings]
    (gap,) = whole[-1].gaps
    assert (gap.first_ns, gap.last_ns) == (whole[-2].received_ns, whole[-1].received_ns)
    assert gap.reason.startswith("connected again after: 127.0.0.1")


async def test_a_device_that_is_away_is_told_once(device: Device) -> None:
    device.off()
    steps = 0

    class Counting(Quick):
        async def sleep(self, seconds: float) -> None:
            nonlocal steps
            steps += 1
            if steps == 4:
                device.on()
            await super().sleep(seconds)

    made = ModbusSource(
        ModbusSettings("press", "127.0.0.1", (Register("a", "", "holding", 0),), port=device.port), Counting()
    )
    found = await read(made)
    assert [batch.readings for batch in found] == [0, 1]
    assert steps == 4


async def test_only_function_codes_that_read_are_ever_sent(device: Device) -> None:
    tags = [Register(table, "", table, 0, "bool") for table in ("coil", "discrete", "input", "holding")]
    device.handler.missing = {0: EXP_DATA_ADDRESS}
    await read(source(device, *tags), lambda batches: len(batches) == 3)
    assert {code for code, _, _ in device.handler.asked} == {1, 2, 3, 4}


async def test_a_device_that_never_answers_is_a_gap() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = ModbusSettings(
            "press", "127.0.0.1", (Register("a", "", "holding", 0),), port, timeout_s=0.05
        )
        found = await read(ModbusSource(settings, Quick()), lambda batches: batches[-1].gaps)
    assert "No response" in found[0].gaps[0].reason


class Odd(socketserver.BaseRequestHandler):
    """Answers every request with one register too many."""

    def handle(self) -> None:
        while request := self.request.recv(260):
            self.request.sendall(request[:2] + bytes.fromhex("0000 0007 01 03 04 0001 0002"))


async def test_an_answer_of_another_length_is_bad() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever).start()
        tag = Register("a", "", "holding", 0)
        found = await read(
            ModbusSource(ModbusSettings("s", "127.0.0.1", (tag,), server.server_address[1]), Quick())
        )
        server.shutdown()
    assert found[0].columns["a"].codes.tolist() == [256]


async def test_it_ends_when_it_is_cancelled_as_the_device_answers(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = source(device, Register("a", "", "holding", 0))

    async def losing(*rest, **more) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with suppress(asyncio.CancelledError):  # as `asyncio.wait_for` of Python 3.11 does
            await asyncio.sleep(0)
        return 4

    monkeypatch.setattr(made, "_answer", losing)
    task = asyncio.create_task(read(made))
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()


async def test_without_pymodbus_the_extra_is_named(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def gone(name: str, *rest, **more):
        if name.startswith("pymodbus"):
            raise ImportError(name)
        return there(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", gone)
    with pytest.raises(ExtraMissing, match="press: pymodbus"):
        await read(source(device, Register("a", "", "holding", 0)))
