"""Payload bytes in a recorded stream, told from what the protocols around them say.

Written apart from Reuna's own readers and writers: by the documents of HTTP/1.1 (RFC 9112), of the
NATS client protocol (https://docs.nats.io/reference/reference-protocols/nats-protocol) and of
docs/reference on contributions. What is not known here counts as payload of kind ``unknown``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import msgspec

BLOCK = 65_536  #: a body's blocks; before each its hash of 32 bytes
KINDS = {"event": "log", "hello": "presence", "roster": "presence"}
STATISTICS = (
    "contract",
    "bins",
    "data",
    "watched",
    "labelled",
)  #: events that say nothing but counts, and which data they are of
_SILENT = re.compile(rb"(\+OK|PING|PONG|INFO .*|CONNECT .*|SUB .*|UNSUB .*|LS[+-] .*)")
_MESSAGE = re.compile(rb"(?:PUB|LMSG) (\S+) (?:.* )?(\d+)")
_WITH_HEADERS = re.compile(rb"(?:HPUB|HMSG) (\S+) (?:.* )?(\d+) (\d+)")


AGAIN = "sent again"


class UnreadableError(Exception):
    """A stream that follows none of the protocols."""


def payloads(protocol: str, data: bytes, sent: set[bytes]) -> Counter[str]:
    """Kind -> payload bytes. Raises `UnreadableError`.

    A contribution that was ``sent`` before counts as `AGAIN`: the same bytes, after a line was cut, leave
    under the ledger's entry that they have.
    """
    found = Counter[str]()
    for kind, count in _http(data, sent) if protocol == "http" else _nats(data):
        found[kind] += count
    return found


def _http(data: bytes, sent: set[bytes]) -> Iterator[tuple[str, int]]:
    at = 0
    while at < len(data):
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            raise UnreadableError("a request without an end")
        request, *lines = data[at:end].split(b"\r\n")
        fields = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
        length = int(fields.get(b"content-length", b"0"))
        body, at = data[end + 4 : end + 4 + length], end + 4 + length
        if len(body) != length:
            raise UnreadableError("a request's body was cut")
        if request.startswith(b"PUT /v1/contributions "):
            known = body in sent
            sent.add(body)
            for kind, count in _contribution(body):
                yield AGAIN if known else kind, count
        elif request.startswith(b"POST /v1/heads "):
            yield "head", length
        elif length:
            yield "unknown", length


def _contribution(body: bytes) -> Iterator[tuple[str, int]]:
    manifest = int.from_bytes(body[:4], "little")
    yield "metric", manifest
    frames = len(body) - 4 - manifest
    blocks = -(-frames // (32 + BLOCK))
    if frames:
        yield "model_update", frames - 32 * blocks


def _nats(data: bytes) -> Iterator[tuple[str, int]]:
    at = 0
    while at < len(data):
        end = data.find(b"\r\n", at)
        if end < 0:
            raise UnreadableError("a line without an end")
        line, at = data[at:end], end + 2
        if _SILENT.fullmatch(line) is not None:
            continue
        subject, headers, total = _announced(line)
        body = data[at + headers : at + total]
        at += total + 2
        if at > len(data):
            raise UnreadableError("a message was cut")
        if total > headers:
            yield _kind(subject.partition(".")[0], body), total - headers


def _kind(subject: str, body: bytes) -> str:
    """By the first word of the subject; of an event also by what it says happened.

    A message is two bytes, version and type, and a map in msgpack.
    """
    if subject == "event" and _happened(body) in STATISTICS:
        return "statistic"
    return KINDS.get(subject, "unknown")


def _happened(body: bytes) -> object:
    try:
        return msgspec.msgpack.decode(body[2:])["what"]
    except (msgspec.DecodeError, KeyError, TypeError, IndexError, UnicodeDecodeError, RecursionError):
        return None


def _announced(line: bytes) -> tuple[str, int, int]:
    """Subject, bytes of headers, bytes with them. A lone ``PUB`` cannot be taken for one with headers."""
    if (found := _WITH_HEADERS.fullmatch(line)) is not None:
        return found[1].decode(), int(found[2]), int(found[3])
    if (found := _MESSAGE.fullmatch(line)) is not None:
        return found[1].decode(), 0, int(found[2])
    raise UnreadableError(f"a line {line[:80]!r}")
