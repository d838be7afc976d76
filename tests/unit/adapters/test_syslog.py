"""Messages as RFC 5424 writes them, to real local sockets."""

from __future__ import annotations

import re
import socket
import threading

import pytest

from reuna.adapters.syslog import NOTICE, Syslog, message
from reuna.core.errors import LedgerProblem, Unreachable

FORM = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([!-~]{1,255}) ([!-~]+) ([!-~]+) ([!-~]{1,32}) "
    rb"\[reuna@32473( \w+=\"([^\"\\\]]|\\[\"\\\]])*\")+\] \xef\xbb\xbf(.*)\Z",
    re.DOTALL,
)


class Server:
    """Takes one stream, as octet-counted frames."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"syslog+tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        self.data = b""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._socket, self._socket.accept()[0] as stream:
            while part := stream.recv(65536):
                self.data += part

    def messages(self) -> list[bytes]:
        self._thread.join(60)
        found, data = [], self.data
        while data:
            size, _, data = data.partition(b" ")
            found.append(data[: int(size)])
            data = data[int(size) :]
        return found


def test_a_message_has_the_form_of_the_standard() -> None:
    data = message(
        1_795_000_000_123, "edge 1", "refused", NOTICE, {"seq": 7, "why": 'a "b" \\ ]'}, "text\nwith ε"
    )
    found = FORM.match(data)
    assert found, data
    assert found[1] == b"109"  # facility 13, severity 5
    assert found[2] == b"2026-11-18T11:06:40.123Z"
    assert found[3] == b"edge?1"
    assert found[9].decode() == "text\nwith ε"
    assert rb'why="a \"b\" \\ \]"' in data


def test_a_datagram_carries_one_message() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        sink = Syslog(f"syslog://127.0.0.1:{server.getsockname()[1]}")
        sink.send(b"one")
        sink.send(b"two")
        sink.close()
        assert [server.recv(100), server.recv(100)] == [b"one", b"two"]


def test_a_stream_counts_octets() -> None:
    server = Server()
    sink = Syslog(server.url)
    sink.send(b"one")
    sink.send("zwei ε\n".encode())
    sink.close()
    assert server.messages() == [b"one", "zwei ε\n".encode()]


@pytest.mark.parametrize("url", ["http://host:1", "syslog://", "syslog://host:99999", "syslog+tls://host"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(LedgerProblem, match=re.escape(url)):
        Syslog(url)


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        with pytest.raises(Unreachable):
            Syslog(f"syslog+tcp://127.0.0.1:{unused.getsockname()[1]}")
