"""One answer of a server of ours, read from an open line: its head, and a body of the length that it says.

Our servers say the length of every answer (`reuna.adapters.https_server`), so nothing else is read: one
without it, in chunks or in another protocol counts as a line that is cut. The standard library's client
reads all that HTTP allows, with the parser of e-mail, at ten times the cost for each round.
"""

from __future__ import annotations

from collections.abc import Callable

HEAD = 8_192  #: bytes of an answer's head, at most, and of its body that come with it
_END = b"\r\n\r\n"

#: Bytes received into a buffer, 0 at the end of the line; waits for the first. Raises `OSError`.
Receive = Callable[[memoryview], int]


class BadAnswerError(ConnectionError):
    """What came is no answer of ours, or only a part of one."""


class HttpAnswer:
    """An answer whose head is read. ``length``: bytes of the body that were not read yet.

    ``fill`` receives what is known to come: it may wait for more than the first byte.
    """

    def __init__(self, receive: Receive, fill: Receive) -> None:
        """Wait for the head. Raises `BadAnswerError`, and as ``receive``."""
        self._fill = fill
        head, self._early = _head(receive)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, words = first.partition(" ")
        code = words[:3]
        if version != "HTTP/1.1" or not is_number(code) or words[3:4] not in ("", " "):
            raise BadAnswerError(f"an answer that begins with {first[:40]!r}")
        self.status = int(code)
        self._headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
        length = self.header("content-length")
        if not is_number(length):
            raise BadAnswerError(f"an answer of {length or 'no'} length")
        self.length = int(length)
        self.is_last = self.header("connection").lower() == "close" or len(self._early) > self.length
        self._early = self._early[: self.length]

    def header(self, name: str, default: str = "") -> str:
        """A header by its name in lower case."""
        return self._headers.get(name, default)

    def read(self, most: int) -> bytes:
        """The next bytes of the body, as many as ``most`` unless it ends before. Raises `BadAnswerError`."""
        data = bytearray(min(most, self.length))
        with memoryview(data) as view:
            came = 0
            while came < len(view):
                got = self.readinto(view[came:])
                if not got:
                    raise BadAnswerError(f"the line ended {self.length} bytes before the answer did")
                came += got
        return bytes(data)

    def readinto(self, buffer: memoryview) -> int:
        """What comes now, at least a byte; 0 at the end of the body, or of the line."""
        wanted = buffer[: self.length]
        if self._early:
            count = min(len(wanted), len(self._early))
            wanted[:count], self._early = self._early[:count], self._early[count:]
        else:
            count = self._fill(wanted) if len(wanted) else 0
        self.length -= count
        return count


def _head(receive: Receive) -> tuple[bytes, bytes]:
    """The head without its end, and what came behind it."""
    data, came = bytearray(HEAD), 0
    with memoryview(data) as view:
        while (end := data.find(_END, 0, came)) < 0:
            got = receive(view[came:]) if came < HEAD else 0
            if not got:
                raise BadAnswerError("the line ended before an answer" if came < HEAD else "an endless head")
            came += got
    return bytes(data[:end]), bytes(data[end + len(_END) : came])


def is_number(text: str) -> bool:
    """Whether it is a whole number that we would say."""
    return text.isascii() and text.isdigit() and len(text) <= 15
