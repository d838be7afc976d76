"""What the kernel is told of a connection over a thin line, and what it says of one.

A modem that comes back under another address leaves connections that are dead without anybody having been
told. The kernel finds out when what was sent is not acknowledged, or, while an answer is awaited, when
its probes are not. A line that is slow but moves acknowledges, and stays.

Each does nothing, or says None, where the system has no such option.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from typing import Any, Protocol

UNACKNOWLEDGED_S = 20  #: what was sent and is not acknowledged for so long: the line is dead
OF_A_SERVER_S = 40  #: the same of a server, which itself has dropped, and named, who takes nothing before
PROBE_S = 6  #: a line on which nothing comes, though something is awaited, is probed so often
PIECE = 4_096  #: bytes of a TLS record on a slow line: of one that is cut nothing can be read
FAST_BPS = 1_000_000  #: a line that carries so much takes the largest records
NEAR_S = 0.005  #: a line whose answers come back sooner is fast
WAITING = 524_288  #: bytes that may have been taken from us and not have left: they show nothing
BURST = 65_536  #: bytes that a slow line may acknowledge at once: they show nothing
UNSENT = 131_072  #: bytes that wait in the kernel at most: they are lost with their line
UNSENT_FAST = 1_048_576  #: the same of a line that has shown that it is fast: it is fed an eighth as often
_RTT_AT = 68  #: of tcpi_rtt, microseconds,
_ACKED_AT = 120  #: of tcpi_bytes_acked,
_RATE_AT = 160  #: and of tcpi_delivery_rate in the kernel's struct tcp_info


class Socket(Protocol):
    """What is used of a socket, or of what asyncio shows of one."""

    @property
    def family(self) -> int: ...
    def getsockname(self) -> Any: ...
    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def watch(sock: Socket, unacknowledged_s: int = UNACKNOWLEDGED_S) -> None:
    """Dead lines end, and little waits in the kernel. Sockets that a listener accepts inherit it."""
    _set(sock, "TCP_USER_TIMEOUT", unacknowledged_s * 1000)
    _set(sock, "TCP_NOTSENT_LOWAT", UNSENT)
    _set(sock, "TCP_KEEPIDLE", PROBE_S)
    _set(sock, "TCP_KEEPINTVL", PROBE_S)


def probe(sock: Socket, awaited: bool) -> None:
    """Whether an answer is awaited on the line: only then is a silent one probed, which costs bytes."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, awaited)


def forget_unsent(sock: Socket | None) -> None:
    """What was not sent when the socket is closed is not sent any more; else the kernel goes on trying."""
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def has_address(sock: Socket) -> bool:
    """Whether this machine still has the address that a connection began with; else the line is dead."""
    try:
        with socket.socket(sock.family, socket.SOCK_DGRAM) as probing:
            probing.bind((sock.getsockname()[0], 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


class Pieces:
    """How large the records of one transfer are: small until the line has shown that it is fast."""

    def __init__(self, sock: Socket | None, largest: int, now_s: float) -> None:
        self._near = sock is not None and is_near(sock)
        self._sock = sock
        self._before = acknowledged(sock)
        self._largest = largest
        self._began_s = now_s
        self._sent = 0
        self._fast: bool | None = None

    def next(self, now_s: float) -> int:
        """Bytes of the next record."""
        fast = self._near or self._shown() > FAST_BPS * (now_s - self._began_s)
        if self._sock is not None and fast != self._fast:
            self._fast = fast
            _set(self._sock, "TCP_NOTSENT_LOWAT", UNSENT_FAST if fast else UNSENT)
        return self._largest if fast else PIECE

    def _shown(self) -> int:
        """Bytes that must have crossed the line: acknowledged, or else more than can wait before it."""
        now = acknowledged(self._sock)
        if now is None or self._before is None:
            return self._sent - WAITING
        return now - self._before - BURST

    def sent(self, count: int) -> None:
        """So many went out."""
        self._sent += count


def acknowledged(sock: Socket | None) -> int | None:
    """Bytes that the other side has acknowledged since the connection began."""
    return None if sock is None else _said("=Q", _ACKED_AT, sock)


def carries(sock: Socket) -> float | None:
    """Bytes a second that left of late and were acknowledged, as the kernel has measured; None: not known."""
    return _said("=Q", _RATE_AT, sock) or None


def is_near(sock: Socket) -> bool:
    """Whether answers come back at once, so that the line cannot be a thin one."""
    micros = _said("=I", _RTT_AT, sock)
    return micros is None or micros < NEAR_S * 1e6


def _said(form: str, at: int, sock: Socket) -> int | None:
    """A number of the kernel's struct tcp_info."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    try:
        return int(struct.unpack_from(form, sock.getsockopt(socket.IPPROTO_TCP, option, 192), at)[0])
    except (OSError, struct.error):  # closed, or an older kernel
        return None


def _set(sock: Socket, name: str, value: int) -> None:
    option = getattr(socket, name, _NUMBERS.get(name))
    if option is not None:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


_NUMBERS = (
    {"TCP_NOTSENT_LOWAT": 25} if hasattr(socket, "TCP_USER_TIMEOUT") else {}
)  # Linux; Python has no name
