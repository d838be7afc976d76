"""The training process itself: ``python -m reuna.adapters.worker FD START``."""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Sequence
from io import BufferedRWPair
from pathlib import Path

import msgspec

from reuna.adapters.processes import settle
from reuna.adapters.sandbox import Level, confine
from reuna.adapters.worker.bench import Bench
from reuna.adapters.worker.messages import MAX_FRAME, Answer, Request, Start


def serve(sock: socket.socket, bench: Bench, level: Level) -> None:
    """Say which level was reached, then answer requests until the parent is gone."""
    decoder = msgspec.msgpack.Decoder(Request)
    stream = sock.makefile("rwb")
    _send(stream, level)
    while len(head := stream.read(4)) == 4:
        length = int.from_bytes(head, "little")
        if length > MAX_FRAME:
            return
        _send(stream, bench.serve(decoder.decode(stream.read(length))))


def _send(stream: BufferedRWPair, message: Answer | Level) -> None:
    data = msgspec.msgpack.encode(message)
    stream.write(len(data).to_bytes(4, "little") + data)
    stream.flush()


def main(arguments: Sequence[str]) -> int:
    """Entry of the worker: FD START."""
    # what every project needs is here before the doors close; the rest is read from Python's own folders
    importlib.import_module("reuna.adapters.project")
    importlib.import_module("reuna.adapters.conformity")
    importlib.import_module("reuna.core.answers")
    fd, start = int(arguments[0]), msgspec.json.decode(arguments[1], type=Start)
    sock = socket.socket(fileno=fd)
    level = confine(start.room, start.limits, (fd,))
    settle()
    serve(sock, Bench(Path(start.project), Path(start.data)), level)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
