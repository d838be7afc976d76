"""The source `modbus`: a device that is asked over Modbus TCP, with pymodbus.

All tags are asked for once in ``every_s``, with as few requests as possible; a reading's time is when the
last answer of that look was there. A request that the device refuses is cut in halves until the registers at
fault are alone: these are bad, with the exception's code, and asked for again after `REFUSED_S`. Whatever
breaks the connection is a gap; then it connects again.

Only the four function codes that read are ever sent (1 to 4).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reuna.adapters.clock import unless_cancelled
from reuna.core.errors import ExtraMissing
from reuna.core.modbus import BITS, EXCEPTIONS, SPLITTING, Register, Request, bits, numbers, requests
from reuna.core.modbus_settings import ModbusSettings
from reuna.core.ports import Clock
from reuna.core.source_breaks import Breaks
from reuna.core.sources import BAD, GOOD, Batch, Column, Gap, Tag, ns_of

if TYPE_CHECKING:
    from pymodbus.client import AsyncModbusTcpClient

REFUSED_S = 30.0  #: how long a register that was refused is not asked for
SHORT = 256  #: code of a reading whose answer has another length than was asked for
NO_CODES = np.empty(0, np.uint32)


class ModbusSource:
    """The `Source` port on a Modbus TCP device. Raises `ExtraMissing` without pymodbus."""

    def __init__(self, settings: ModbusSettings, clock: Clock) -> None:
        self.name = settings.name
        self.tags = tuple(Tag(tag.name, tag.unit) for tag in settings.tags)
        self._settings = settings
        self._clock = clock
        self._breaks = Breaks()
        self._places = {tag.name: place for place, tag in enumerate(settings.tags)}
        self._scale = np.array([tag.scaling.scale for tag in settings.tags])
        self._offset = np.array([tag.scaling.offset for tag in settings.tags])
        self._refused: dict[str, tuple[int, float]] = {}  #: code, and when it may be asked again
        self._told: dict[str, int] = {}
        self._requests = requests(settings.tags, settings.bridge)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """See `Source.batches`; it goes on for ever."""
        client = _client(self._settings)
        try:
            while True:
                try:
                    await self._connect(client)
                    async for batch in self._looks(client):
                        yield batch
                except (OSError, _exceptions()) as error:
                    client.close()
                    gap = self._breaks.lost(self._said(error), self._now_ns())
                    if gap:
                        yield Batch({}, self._now_ns(), (gap,))
                    await self._clock.sleep(self._breaks.pause_s())
        finally:
            client.close()

    async def _connect(self, client: AsyncModbusTcpClient) -> None:
        connected = await client.connect()
        unless_cancelled()
        if not connected:
            raise ConnectionRefusedError("no connection")

    async def _looks(self, client: AsyncModbusTcpClient) -> AsyncGenerator[Batch, None]:
        """A batch every ``every_s``; looks that could not be made in time are left out."""
        due = self._clock.now()
        while True:
            values, codes = await self._look(client)
            unless_cancelled()
            now_ns = self._now_ns()
            back = self._breaks.back(now_ns)
            self._breaks.given(now_ns)
            gaps = [*([back] if back else []), *self._refusals(now_ns)]
            yield Batch(self._columns(values, codes, now_ns), now_ns, tuple(gaps))
            due = max(due + self._settings.every_s, self._clock.now())
            await self._clock.sleep(due - self._clock.now())

    async def _look(self, client: AsyncModbusTcpClient) -> tuple[NDArray[np.float64], NDArray[np.uint32]]:
        """Values and codes of all tags (tags,): raw numbers, and 0 or why there is none."""
        values = np.full(len(self.tags), np.nan)
        codes = np.zeros(len(self.tags), np.uint32)
        self._forgive()
        for request in self._requests:
            await self._ask(client, request, values, codes)
        for name, (code, _) in self._refused.items():
            codes[self._places[name]] = code
        return values, codes

    async def _ask(
        self,
        client: AsyncModbusTcpClient,
        request: Request,
        values: NDArray[np.float64],
        codes: NDArray[np.uint32],
    ) -> None:
        """Fill in what one request gives, by halves where it is refused for some of its registers."""
        answer = await self._answer(client, request)
        places = [self._places[tag.name] for tag in request.tags]
        if not isinstance(answer, int):
            values[places] = answer
        elif answer in SPLITTING and request.halves():
            for half in request.halves():
                await self._ask(client, half, values, codes)
        else:
            codes[places] = answer
            if answer in SPLITTING:
                self._refuse(request.tags, answer)

    async def _answer(self, client: AsyncModbusTcpClient, request: Request) -> NDArray[np.float64] | int:
        """Raw numbers of the request's tags, or the code of the exception that the device answers."""
        ask = {
            "coil": client.read_coils,
            "discrete": client.read_discrete_inputs,
            "input": client.read_input_registers,
            "holding": client.read_holding_registers,
        }[request.table]
        answer = await ask(request.address, count=request.count, device_id=self._settings.device_id)
        if answer.isError():
            return int(getattr(answer, "exception_code", SHORT))
        if request.table in BITS:
            whole = len(answer.bits) >= request.count
            return bits(request.tags, request.address, answer.bits) if whole else SHORT
        if len(answer.registers) != request.count:
            return SHORT
        return numbers(request.tags, request.address, np.array(answer.registers, ">u2").tobytes())

    def _refuse(self, tags: Sequence[Register], code: int) -> None:
        """Do not ask for them for a while."""
        until = self._clock.now() + REFUSED_S
        self._refused |= {tag.name: (code, until) for tag in tags}
        self._plan()

    def _forgive(self) -> None:
        now = self._clock.now()
        due = [name for name, (_, until) in self._refused.items() if until <= now]
        for name in due:
            del self._refused[name]
        if due:
            self._plan()

    def _plan(self) -> None:
        asked = [tag for tag in self._settings.tags if tag.name not in self._refused]
        self._requests = requests(asked, self._settings.bridge)

    def _refusals(self, now_ns: int) -> list[Gap]:
        """Tags that are refused, each told once for each code."""
        found = []
        for name, (code, _) in self._refused.items():
            if self._told.get(name) != code:
                self._told[name] = code
                reason = f"the device answers with exception {code} ({EXCEPTIONS.get(code, 'unknown')})"
                found.append(Gap(now_ns, now_ns, reason, (name,)))
        return found

    def _columns(
        self, raw: NDArray[np.float64], codes: NDArray[np.uint32], now_ns: int
    ) -> Mapping[str, Column]:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is bad
            values = raw * self._scale + self._offset
        bad = (codes > 0) | ~np.isfinite(values)
        quality = np.where(bad, np.uint8(BAD), np.uint8(GOOD))
        times = np.array([now_ns], np.int64)
        return {
            name: Column(
                times,
                values[place : place + 1],
                quality[place : place + 1],
                codes[place : place + 1] if codes[place] else NO_CODES,
            )
            for name, place in self._places.items()
        }

    def _said(self, error: Exception) -> str:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"{self._settings.host}:{self._settings.port}: {what}"

    def _now_ns(self) -> int:
        return ns_of(self._clock.now())


def _exceptions() -> Any:
    from pymodbus.exceptions import ModbusException

    return ModbusException


def _client(settings: ModbusSettings) -> AsyncModbusTcpClient:
    """A client that connects only when it is told to, and does not ask twice."""
    try:
        from pymodbus.client import AsyncModbusTcpClient
    except ImportError:
        raise ExtraMissing(
            f"source {settings.name}: pymodbus is not installed", "Run `pip install 'reuna[modbus]'`."
        ) from None
    # What goes wrong is told as a gap, once and in our words.
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
    return AsyncModbusTcpClient(
        settings.host,
        port=settings.port,
        timeout=settings.timeout_s,
        retries=0,
        reconnect_delay=0,
        reconnect_delay_max=0,
    )
