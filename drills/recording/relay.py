"""A peer in the middle of a line that both sides take for the other, since it holds both keys.

What it passes on it keeps, in the clear, for each direction.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl

from reuna.fleet.ports import HOST

PIECE = 1 << 16
LAST_S = 2.0
_COMPRESSION = re.compile(rb'"compression":"[^"]*"')


class Relay:
    """One line, from a child (``sender``) up to its parent. ``protocol``: http, nats or leaf."""

    def __init__(self, sender: str, protocol: str, target: int) -> None:
        self.sender = sender
        self.protocol = protocol
        self.port = 0
        self.up: list[bytearray] = []  #: what the sender said, for each connection
        self.down: list[bytearray] = []
        self._target = target
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, serving: ssl.SSLContext, dialling: ssl.SSLContext) -> None:
        """Listen as the parent under ``serving``; dial as the sender under ``dialling``."""
        self._dialling = dialling
        self._server = await asyncio.start_server(self._connected, HOST, 0, ssl=serving)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        pumps = set(self._pumps)
        if pumps:  # what the sender said last is still on its way
            await asyncio.wait(pumps, timeout=LAST_S)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def said(self) -> int:
        """Bytes that went up so far."""
        return sum(map(len, self.up))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            above, below = await asyncio.open_connection(HOST, self._target, ssl=self._dialling)
        except (OSError, ssl.SSLError):
            writer.transport.abort()
            return
        up, down = bytearray(), bytearray()
        self.up.append(up)
        self.down.append(down)
        for source, target, kept in ((reader, below, up), (above, writer, down)):
            pump = asyncio.create_task(self._pump(source, target, kept))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray
    ) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.CancelledError):
            while data := await reader.read(PIECE):
                if self.protocol == "leaf" and not kept:  # spoken without compression, so that it can be read
                    data = _COMPRESSION.sub(b'"compression":"off"', data)
                kept += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
