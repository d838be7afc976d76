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
PROBE_S = 6  #: a line on which nothing comes, though something is awaited, is probed so often
UNSENT = 262_144  #: bytes that wait in the kernel at most: they are lost with their line
_ACKED_AT = 120  #: of tcpi_bytes_acked in the kernel's struct tcp_info


class Socket(Protocol):
    """What is used of a socket, or of what asyncio shows of one."""

    @property
    def family(self) -> int: ...
    def getsockname(self) -> Any: ...
    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def watch(sock: Socket) -> None:
    """Dead lines end, and little waits in the kernel. Sockets that a listener accepts inherit it."""
    _set(sock, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_S * 1000)
    _set(sock, "TCP_NOTSENT_LOWAT", UNSENT)
    _set(sock, "TCP_KEEPIDLE", PROBE_S)
    _set(sock, "TCP_KEEPINTVL", PROBE_S)


def probe(sock: Socket, awaited: bool) -> None:
    """Whether an answer is awaited on the line: only then is a silent one probed, which costs bytes."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, awaited)


def has_address(sock: Socket) -> bool:
    """Whether this machine still has the address that a connection began with: without it the line is dead."""
    try:
        with socket.socket(sock.family, socket.SOCK_DGRAM) as probing:
            probing.bind((sock.getsockname()[0], 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def acknowledged(sock: Socket | None) -> int | None:
    """Bytes that the other side has acknowledged since the connection began."""
    option = getattr(socket, "TCP_INFO", None)
    if sock is None or option is None:
        return None
    try:
        said = sock.getsockopt(socket.IPPROTO_TCP, option, _ACKED_AT + 8)
        return int(struct.unpack_from("=Q", said, _ACKED_AT)[0])
    except (OSError, struct.error):  # closed, or an older kernel
        return None


def _set(sock: Socket, name: str, value: int) -> None:
    option = getattr(socket, name, _NUMBERS.get(name))
    if option is not None:
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


_NUMBERS = {"TCP_NOTSENT_LOWAT": 25} if hasattr(socket, "TCP_USER_TIMEOUT") else {}  # Linux; Python has no name
