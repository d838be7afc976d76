"""`reuna.adapters.worker`: what a worker, which runs a project's code, answers to its parent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec

from fuzz.kit import attempt, run, scratch
from reuna.adapters.framed import Frames
from reuna.adapters.sandbox import Level
from reuna.adapters.worker.messages import MAX_FRAME, Answer
from reuna.adapters.worker.parent import _Line
from reuna.core.errors import WorkerFailed


def seeds() -> Iterator[bytes]:
    data = msgspec.msgpack.encode(Answer(3, {"loss": 0.5}, 12.5, 0.1, "R107", "m", "n"))
    yield len(data).to_bytes(4, "little") + data


def check(data: bytes) -> None:
    for kind in (Answer, Level):
        attempt(lambda kind=kind: run(_heard(data, kind)), WorkerFailed)  # type: ignore[misc]


class _Nowhere(asyncio.Transport):
    def abort(self) -> None:
        """The bytes end by themselves."""


async def _heard(data: bytes, kind: type[msgspec.Struct]) -> None:
    frames = Frames(MAX_FRAME)
    frames.connection_made(_Nowhere())
    answer = asyncio.ensure_future(_Line(frames, scratch() / "worker.log").message(kind))
    await asyncio.sleep(0)
    frames.data_received(data)
    frames.connection_lost(None)
    await answer
