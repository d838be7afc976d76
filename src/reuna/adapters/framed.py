"""Length-prefixed frames over a socket between two processes of one place.

    frames = await Frames.over(sock, most)  # an open socket, the most bytes that a frame may have
    frames.take(give)                       # called with each frame, and with None in the end
    frames.send(b"...")

A frame is its length, 4 bytes little-endian, and its bytes.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Self, cast

from reuna.core.errors import BadMessage

Take = Callable[[bytes | None], None]


class Frames(asyncio.Protocol):
    """Frames over one socket, each given on in the very call in which its last byte came."""

    def __init__(self, most: int) -> None:
        """``most``: bytes that a frame may have; one that says more ends the line."""
        self._most = most
        self._came = bytearray()
        self._waiting: list[bytes | None] = []  #: until somebody takes them
        self._give: Take = self._waiting.append
        self._wrong: BadMessage | None = None

    @classmethod
    async def over(cls, sock: socket.socket, most: int) -> Self:
        """Take over an open socket."""
        loop = asyncio.get_running_loop()
        _, frames = await loop.create_unix_connection(lambda: cls(most), sock=sock)
        return frames

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`, as of the next two."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        came: bytes | bytearray = data
        if self._came:
            self._came += data
            came = self._came
        at = 0
        while (end := self._end_of(came, at)) <= len(came):
            self._hand(bytes(came[at + 4 : end]))
            at = end
        if came is self._came:
            del self._came[:at]
        else:
            self._came += came[at:]

    def connection_lost(self, error: Exception | None) -> None:
        self._hand(None)

    def take(self, give: Take) -> None:
        """Give each frame to ``give``, None when the other process is gone. `BadMessage` ends the line."""
        self._give = give
        waiting, self._waiting = self._waiting, []
        for frame in waiting:
            if self._wrong is None or frame is None:
                self._hand(frame)

    def _end_of(self, came: bytes | bytearray, at: int) -> int:
        """Where the frame that begins there ends; endless when nothing can be read any more."""
        if self._wrong is not None or len(came) < at + 4:
            return sys.maxsize
        length = int.from_bytes(came[at : at + 4], "little")
        if length > self._most:
            self._end(BadMessage(f"a frame of {length} bytes, more than {self._most}"))
            return sys.maxsize
        return at + 4 + length

    def _hand(self, frame: bytes | None) -> None:
        try:
            self._give(frame)
        except BadMessage as error:
            self._end(error)

    def _end(self, error: BadMessage) -> None:
        self._wrong = error
        self._transport.abort()

    def judge(self) -> None:
        """Why the line ended. Raises `BadMessage` when what came could not be read."""
        if self._wrong is not None:
            raise self._wrong

    def send(self, data: bytes) -> None:
        """One frame; what the socket does not take now follows by itself."""
        self._transport.write(len(data).to_bytes(4, "little") + data)

    def close(self) -> None:
        self._transport.close()
