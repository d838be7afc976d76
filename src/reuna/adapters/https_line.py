"""One line of a node to its parent, and the lines that stay open between two requests.

A line carries one question and its answer at a time. On one that is slow what moves counts, not what it
takes; one on which nothing moves, or whose address this machine has lost, is cut. What is asked and what
an answer means is in `reuna.adapters.https_client`.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from reuna.adapters import thin_lines
from reuna.adapters.http_answer import HttpAnswer
from reuna.core.errors import Unreachable
from reuna.wire import BLOCK, LOT

CONNECT_S = 10.0
LOOK_S = 2.0  #: between two looks at a line on which nothing moves
STALL_S = 30.0  #: without a byte for so long the line counts as cut
ANSWER_S = 120.0  #: a parent may need so long for the first byte (it fetches, it forces a disk)
IDLE_S = 240.0  #: an idle connection older than this is not used again
MOVING_S = 10.0  #: a line on which nothing went or came for so long does not move
TURN_S = 0.05  #: so long a thread goes on receiving before it looks at what else is due


class CutError(Exception):
    """The line was cut, or the parent asks to come again; the next try may get through."""


class Place(NamedTuple):
    """Where an upload goes on: the block at a byte of the body, and what the parent has of its frame."""

    offset: int
    held: int = 0

    @property
    def came(self) -> int:
        """Grows with every byte that the parent has."""
        return self.offset + self.held


class Job:
    """One call and the connection that it uses now; `stop` ends both from another thread."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._line: Line | None = None
        self._moved_s = -math.inf

    def use(self, line: Line | None) -> None:
        if self._line is not None:
            self._moved_s = self._line.moved_s
        self._line = line
        if self._stopped.is_set() and line is not None:
            line.cut()

    def moved(self, now_s: float) -> bool:
        """Whether a byte of it went or came of late."""
        line = self._line
        moved_s = self._moved_s if line is None else line.moved_s
        return now_s - moved_s < MOVING_S

    def stop(self) -> None:
        self._stopped.set()
        line = self._line
        if line is not None:
            line.cut()

    def wait(self, seconds: float) -> None:
        """Raises `Unreachable` when the call was given up meanwhile."""
        if self._stopped.wait(seconds):
            raise Unreachable("the call was given up")


class Line:
    """One TLS connection."""

    def __init__(self, sock: ssl.SSLSocket, host: str) -> None:
        self._sock = sock
        self._host = host
        self._early = b""  #: start of an answer, found while sending
        self._unfinished = False
        self.broken = False
        self._patience_s = STALL_S
        self._reply: HttpAnswer | None = None
        self.idle_since = 0.0
        self.moved_s = time.monotonic()  #: when the last byte went or came

    def get(self, path: str, offset: int) -> HttpAnswer:
        """Ask for a resource from a byte on."""
        extra = f"Range: bytes={offset}-\r\n" if offset else ""
        self._send(self._request("GET", path, extra))
        return self._answer()

    def send(self, method: str, path: str, body: bytes) -> HttpAnswer:
        """Ask with a small body."""
        self._send(self._request(method, path, f"Content-Length: {len(body)}\r\n") + body)
        return self._answer()

    def put(self, path: str, place: Place, length: int, parts: Iterator[bytes]) -> HttpAnswer:
        """Send as much as the parent wants to have: its answer may come first."""
        extra = f"Content-Length: {length}\r\nUpload-Offset: {place.offset}\r\n"
        extra += f"Upload-Held: {place.held}\r\n" if place.held else ""
        pending = self._request("PUT", path, extra)
        self._unfinished = True
        for part in parts:
            if len(pending) + len(part) < LOT:  # what is small goes with what is next to it
                pending += part
                continue
            self._send(pending)
            pending = part
            if self._answered():
                return self._answer()
        self._send(pending)
        self._unfinished = False
        return self._answer()

    def _request(self, method: str, path: str, extra: str) -> bytes:
        return f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{extra}\r\n".encode("ascii")

    def _answered(self) -> bool:
        """Whether the answer, or the end of the line, has come."""
        self._sock.settimeout(0.0)
        try:
            self._early = self._sock.recv(BLOCK)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        finally:
            self._sock.settimeout(LOOK_S)
        return True

    def _answer(self) -> HttpAnswer:
        self._patience_s = ANSWER_S
        self._reply = HttpAnswer(self.receive_into, self.fill)
        self._patience_s = STALL_S
        return self._reply

    def _send(self, data: bytes | bytearray) -> None:
        pieces = thin_lines.Pieces(self._sock, len(data), time.monotonic())
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                end = sent + pieces.next(time.monotonic())
                count = self._patiently(partial(self._sock.send, view[sent:end]))
                pieces.sent(count)
                sent += count

    def _patiently(self, act: Callable[[], int]) -> int:
        """Send or receive something; gives up when nothing moved for long, or the line is dead."""
        until = time.monotonic() + self._patience_s
        while True:
            try:
                count = act()
            except TimeoutError:
                if not thin_lines.has_address(self._sock):
                    raise ConnectionResetError("this machine has another address now") from None
                if time.monotonic() >= until:
                    raise
            else:
                self.moved_s = time.monotonic()
                return count

    def receive_into(self, buffer: memoryview) -> int:
        """Bytes received, first those that came early; 0 at the end of the line."""
        if not self._early:
            return self._patiently(lambda: self._sock.recv_into(buffer))
        count = min(len(buffer), len(self._early))
        buffer[:count] = self._early[:count]
        self._early = self._early[count:]
        return count

    def fill(self, buffer: memoryview) -> int:
        """As `receive_into`, and what follows at once: TLS gives a record of 16 KiB at a time.

        Until the buffer is full, or for `TURN_S`. What ends the line meanwhile is told by the next call.
        """
        took = self.receive_into(buffer)
        receive, until = self._sock.recv_into, self.moved_s + TURN_S
        while 0 < took < len(buffer) and self.moved_s < until:
            try:
                count = receive(buffer[took:])
            except OSError:
                break
            if not count:
                break
            took += count
            self.moved_s = time.monotonic()
        return took

    def awaits(self, something: bool) -> None:
        """Whether the other side is expected to say something now."""
        thin_lines.probe(self._sock, something)

    def carries(self) -> float | None:
        """Bytes a second that went out of late, by the kernel; None where it does not say."""
        return thin_lines.carries(self._sock)

    def reusable(self) -> bool:
        """Whether question and answer were carried whole, so that the next may follow."""
        reply = self._reply
        whole = reply is not None and not (reply.is_last or reply.length)
        return whole and not (self.broken or self._unfinished)

    def cut(self) -> None:
        """End the connection at once; a thread that waits on it wakes up with an error."""
        with contextlib.suppress(OSError):  # not connected any more
            # Not SSLSocket.shutdown: it would go on in clear text for a moment.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


class Lines:
    """Connections to the parent that stay open between requests."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._idle: list[Line] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def exchange(self, job: Job) -> Iterator[Line]:
        """A line for one question and its answer. Raises `CutError` for what the network does."""
        try:
            line = self._free() or self._connect()
        except OSError as error:
            raise CutError(f"{self._host}:{self._port}: {error}") from error
        job.use(line)
        line.awaits(True)
        try:
            yield line
        except OSError as error:
            line.broken = True
            self._forget_idle()
            raise CutError(f"{self._host}:{self._port}: {error or type(error).__name__}") from error
        finally:
            job.use(None)
            self._give_back(line)

    def _free(self) -> Line | None:
        with self._lock:
            while self._idle:
                line = self._idle.pop()
                if time.monotonic() - line.idle_since < IDLE_S:
                    return line
                line.close()
        return None

    def _connect(self) -> Line:
        plain = socket.create_connection((self._host, self._port), CONNECT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thin_lines.watch(plain)
        try:
            sock = self._context.wrap_socket(plain, server_hostname=self._host)
        except OSError:
            plain.close()
            raise
        sock.settimeout(LOOK_S)
        return Line(sock, f"{self._host}:{self._port}")

    def _give_back(self, line: Line) -> None:
        if not line.reusable():
            line.close()
            return
        line.awaits(False)
        line.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(line)

    def _forget_idle(self) -> None:
        """One broken line means that the others are likely as old."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def close(self) -> None:
        self._forget_idle()
