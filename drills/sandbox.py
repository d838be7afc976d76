"""Hostile project code tries to get out of a real worker, in every way we know; each is refused.

Then the layers that stand in the way of an attempt are switched off, and the same attempt gets out:
a guard that is not needed would not be a guard. Two attempts are left out of that, and each that
needs root when the drill is not run as root.

    python -m drills.sandbox [--minimum 3] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from drills import escapes
from reuna.adapters.sandbox import HIGHEST, Level, SandboxLimits, sentence
from reuna.adapters.worker import Desk, Worker, parent
from reuna.adapters.worker.bench import write_model
from reuna.core.records import Setting
from reuna.edge.settings import EDGE
from reuna.fleet.ending import in_order, until_done

SECRET = "a-secret-of-the-node"
LIMITS = SandboxLimits(memory_mib=2048, file_mib=4, processes=48)
PLANTED = Path(__file__).with_name("planted_worker.py")


@dataclass(frozen=True)
class Yard:
    """What lies around the worker: a node's folders and what the attempts aim at."""

    folder: Path
    aims: dict[str, Setting]

    @property
    def desk(self) -> Desk:
        work = self.folder / "work"
        return Desk(work / "project", work / "data", work / "lent", work / "made")


@contextlib.contextmanager
def yard() -> Iterator[Yard]:
    """A node's folders, sockets that listen, processes to harm, and a secret in our memory and environment."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reuna-yard-")))
        made = Yard(folder, {})
        _files(made)
        made.aims.update(_sockets(folder, stack))
        secret = ctypes.create_string_buffer(SECRET.encode())
        stack.callback(lambda: secret)
        stack.enter_context(mock.patch.dict(os.environ, {"REUNA_TOKEN": SECRET}))
        for name in ("neighbour", "victim"):
            process = stack.enter_context(subprocess.Popen(["sleep", "600"]))
            stack.callback(process.kill)
            made.aims[name] = process.pid
        made.aims.update(
            {
                "secret": SECRET, "key": str(folder / "node.key"), "other": str(folder / "other"),
                "outside": str(folder / "outside"), "blobs": str(folder / "blobs"), "made": str(made.desk.made),
                "data": str(made.desk.data), "lent": str(made.desk.lent), "address": ctypes.addressof(secret),
                "file_mib": LIMITS.file_mib, "memory_mib": LIMITS.memory_mib, "processes": LIMITS.processes,
            }
        )  # fmt: skip
        yield made


def _files(made: Yard) -> None:
    desk = made.desk
    for folder in (
        desk.project,
        desk.data,
        desk.lent,
        *(made.folder / n for n in ("other", "outside", "blobs")),
    ):
        folder.mkdir(parents=True)
    restore(made)
    (made.folder / "other" / "rows.csv").write_text("1\n2\n")
    (made.folder / "blobs" / "other").write_bytes(b"a model")
    made.folder.chmod(0o711)  # so that a refusal to others is the sandbox's


def restore(made: Yard) -> None:
    """What an attempt that escaped may have spoilt."""
    shutil.copyfile(escapes.__file__, made.desk.project / "escapes.py")
    (made.desk.data / "rows.csv").write_text("1\n2\n")
    (made.folder / "outside" / "victim").write_text("still here")
    key = made.folder / "node.key"
    key.unlink(missing_ok=True)
    key.touch(mode=0o600)
    key.write_text(SECRET)
    write_model(made.desk.lent / "base", escapes.Escapes().init(1))


def _sockets(folder: Path, stack: contextlib.ExitStack) -> dict[str, Setting]:
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.1", 0))
    abstract = folder.name
    for name, kind in (
        ("unix", socket.SOCK_STREAM),
        ("datagrams", socket.SOCK_DGRAM),
        ("", socket.SOCK_STREAM),
    ):
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        sock.bind(str(folder / name) if name else f"\0{abstract}")
        if kind == socket.SOCK_STREAM:
            sock.listen()
        if name:
            (folder / name).chmod(0o777)
    return {
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "unix": str(folder / "unix"),
        "datagrams": str(folder / "datagrams"),
        "abstract": abstract,
    }


@contextlib.contextmanager
def without(layers: Collection[str]) -> Iterator[None]:
    """Workers started inside lack these layers, those that the parent gives among them."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(parent, "PROGRAM", ("-P", str(PLANTED), ",".join(layers))))
        if "environment" in layers:
            stack.enter_context(mock.patch.object(parent, "worker_environment", dict))
        yield


@contextlib.contextmanager
def left_open(path: str) -> Iterator[None]:
    """Workers started inside inherit an open descriptor of a file, as by a mistake of their parent."""
    real = asyncio.create_subprocess_exec
    with open(path, "rb") as file:

        def careless(*args: Any, pass_fds: tuple[int, ...], **kwargs: Any) -> Any:
            return real(*args, pass_fds=(*pass_fds, file.fileno()), **kwargs)

        with mock.patch.object(asyncio, "create_subprocess_exec", careless):
            yield


@contextlib.asynccontextmanager
async def worker_in(made: Yard) -> Any:
    """A worker as an edge starts it, with the hostile project opened."""
    worker = None
    try:
        with left_open(str(made.aims["key"])):
            worker = await Worker.start(made.desk, made.folder / "worker.log", LIMITS)
        await worker.open("escapes", {})
        yield worker
    finally:
        if worker is not None:
            await worker.close()


async def escaped(worker: Worker, made: Yard, name: str) -> bool:
    """Whether an attempt gets out."""
    base = made.desk.lent / "base"
    found: Mapping[str, float] = await worker.evaluate(base, {**made.aims, "attempt": name})
    return found["escaped"] == 1.0


async def escapes_without_its_layers(made: Yard, name: str) -> bool:
    """Whether an attempt gets out of a worker that lacks the layers in its way."""
    try:
        with without(escapes.ATTEMPTS[name].layers):
            async with worker_in(made) as worker:
                return await escaped(worker, made, name)
    finally:
        restore(made)


def shown(name: str) -> bool:
    """Whether the attempt can be shown to succeed here without its layers."""
    attempt = escapes.ATTEMPTS[name]
    return attempt.safe and not (attempt.root and os.geteuid() != 0)


async def drill(say: Any) -> tuple[Level, dict[str, str]]:
    """Every attempt against a whole sandbox, then without its layers; what came of each."""
    outcomes: dict[str, str] = {}
    with yard() as made:
        async with worker_in(made) as worker:
            level: Level = worker.level
            say(
                f"1. {len(escapes.ATTEMPTS)} attempts in a worker at sandbox level {level.number} of {HIGHEST}"
            )
            if level.missing:
                say(f"   missing: {', '.join(f'{n} ({why})' for n, why in level.missing.items())}")
            for name in escapes.ATTEMPTS:
                outcomes[name] = "escaped" if await escaped(worker, made, name) else "refused"
                say(f"   {outcomes[name]}: {name}")
        restore(made)
        say("2. the same without the layers in their way")
        for name in filter(shown, escapes.ATTEMPTS):
            if not await escapes_without_its_layers(made, name):
                outcomes[name] = "refused by something else"
                say(f"   NOT THE LAYER'S DOING: {name}")
        say(f"   {sum(map(shown, escapes.ATTEMPTS))} tried, all that are not named got out")
    return level, outcomes


def main() -> int:
    """Run the drill; the last line is JSON."""
    default = next(option.default for option in EDGE if option.name == "sandbox.min_level")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minimum", type=int, default=default, help="lowest level that will do")
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    args = parser.parse_args()
    say = (lambda _text: None) if args.json else (lambda text: print(text, flush=True))
    level, outcomes = until_done(drill(say))
    refused = sum(outcome == "refused" for outcome in outcomes.values())
    if level.number < args.minimum:
        say(f"level {level.number} is below {args.minimum}: {sentence(level, args.minimum)}")
    result = {
        "level": level.number,
        "policy_minimum": args.minimum,
        "escapes_tried": len(outcomes),
        "refused": refused,
    }
    print(json.dumps(result))
    return 0 if level.number >= args.minimum and refused == len(outcomes) else 1


if __name__ == "__main__":
    in_order(lambda: sys.exit(main()))
