"""Sends messages to a syslog server: RFC 5424 over UDP (RFC 5426) or TCP with octet counting (RFC 6587).

Neither transport tells whether a message was kept: UDP may lose it on the way, TCP when the
connection breaks. Who needs every record compares the numbers that the messages carry.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from reuna.core.errors import LedgerProblem, Unreachable

FACILITY = 13  #: log audit
WARNING, NOTICE, INFORMATIONAL = 4, 5, 6  #: severities
PORTS = {"syslog": 514, "syslog+udp": 514, "syslog+tcp": 601}
UNIX = "syslog+unix://"
TIMEOUT_S = 10.0
ELEMENT = "reuna@32473"  #: of structured data; the number that RFC 5612 sets aside for examples


def message(
    time_ms: int, host: str, what: str, severity: int, data: Mapping[str, object], text: str
) -> bytes:
    """One message; ``data`` becomes structured data, ``text`` the free part."""
    at = datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    fields = " ".join(f'{name}="{_quoted(value)}"' for name, value in data.items())
    when = at.replace("+00:00", "Z")
    head = f"<{8 * FACILITY + severity}>1 {when} {_name(host, 255)} reuna - {_name(what, 32)}"
    return f"{head} [{ELEMENT} {fields}] ".encode() + b"\xef\xbb\xbf" + text.encode()


class Syslog:
    """A connection: ``syslog://HOST:PORT`` (UDP), ``syslog+tcp://HOST:PORT`` or ``syslog+unix:///PATH``."""

    def __init__(self, url: str) -> None:
        """Raises `LedgerProblem` for another address, `Unreachable`."""
        self._url, self._stream = url, False
        try:
            if url.startswith(UNIX):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.connect(url.removeprefix(UNIX))
                return
            host, port, self._stream = _address(url)
            if self._stream:
                self._socket = socket.create_connection((host, port), TIMEOUT_S)
            else:
                family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
                self._socket = socket.socket(family, kind, protocol)
                self._socket.connect(address)
        except OSError as error:
            raise Unreachable(f"{url}: {error}") from error

    def send(self, data: bytes) -> None:
        """Hand one message to the network. Raises `Unreachable`."""
        try:
            self._socket.sendall(b"%d %b" % (len(data), data) if self._stream else data)
        except OSError as error:
            raise Unreachable(f"{self._url}: {error}") from error

    def close(self) -> None:
        """Wait until the server of a stream has read everything. Raises `Unreachable`."""
        with self._socket:
            if not self._stream:
                return
            try:
                self._socket.settimeout(TIMEOUT_S)
                self._socket.shutdown(socket.SHUT_WR)
                while self._socket.recv(4096):
                    pass
            except OSError as error:
                raise Unreachable(f"{self._url}: {error}") from error


def _address(url: str) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        usual = PORTS[parts.scheme]
        port = parts.port or usual
    except (ValueError, KeyError) as error:
        raise LedgerProblem(
            f"no address of a syslog server: {url}", f"One of {', '.join(PORTS)}://HOST:PORT, or {UNIX}/PATH."
        ) from error
    if not parts.hostname:
        raise LedgerProblem(f"no host in {url}", "Name it as syslog://HOST:PORT.")
    return parts.hostname, port, parts.scheme == "syslog+tcp"


def _quoted(value: object) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", str(value))


def _name(text: str, limit: int) -> str:
    """A header field: printable ASCII without spaces."""
    return re.sub(r"[^!-~]", "?", text)[:limit] or "-"
