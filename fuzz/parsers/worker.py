"""`reuna.adapters.worker`: what a worker, which runs a project's code, answers to its parent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from fuzz.kit import attempt, run, scratch
from reuna.adapters.sandbox import Level
from reuna.adapters.worker.messages import Answer
from reuna.adapters.worker.parent import _receive
from reuna.core.errors import WorkerFailed


def seeds() -> Iterator[bytes]:
    data = msgspec.msgpack.encode(Answer(3, {"loss": 0.5}, 12.5, 0.1, "R107", "m", "n"))
    yield len(data).to_bytes(4, "little") + data


def check(data: bytes) -> None:
    for kind in (Answer, Level):
        attempt(lambda kind=kind: run(_heard(data, kind)), WorkerFailed)  # type: ignore[misc]


async def _heard(data: bytes, kind: type[msgspec.Struct]) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    await _receive(reader, kind, scratch() / "worker.log")
