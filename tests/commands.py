"""The command as a person types it: a process for each, that finds others' packages already loaded.

A process waits that has loaded them, and forks for each command. What is ours is loaded anew in each, so
that a command which lacks an import of its own fails here as everywhere. Not for commands that train: what
forks of one process have in common (the order of sets) must not be what makes two models equal.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

LOADED = (
    "typer.main", "typer._adapters", "rich.console", "msgspec.json", "msgspec.msgpack", "msgspec.toml",
    "cryptography.x509", "cryptography.hazmat.primitives.serialization.ssh", "numpy", "securesystemslib.signer",
    "tuf.api.metadata", "packaging.requirements", "asyncio", "sqlite3", "http.client", "ssl", "logging",
    "importlib.resources", "importlib.metadata", "tarfile", "tempfile", "tomllib", "email.message",
)  # fmt: skip
_lock = threading.Lock()
_started: list[tuple[subprocess.Popen[bytes], str]] = []


def reuna(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises `subprocess.TimeoutExpired`."""
    asked = json.dumps([words, str(cwd), dict(os.environ if env is None else env)]).encode()
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line,
    ):
        line.settimeout(timeout)
        line.connect(_waiting())
        socket.send_fds(line, [asked], [out.fileno(), err.fileno()])
        pid = int(line.recv(20))
        try:
            status = int(line.recv(20))
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(words, timeout) from None
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, status, out.read().decode(), err.read().decode())


def _waiting() -> str:
    """Where the process listens that forks; it is started for the first command."""
    with _lock:
        if not _started:
            where = str(Path(tempfile.mkdtemp(prefix="reuna-commands-")) / "socket")
            process = subprocess.Popen(
                [sys.executable, __file__, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"listens\n"
            _started.append((process, where))
            atexit.register(_end)
        return _started[0][1]


def _end() -> None:
    process, where = _started.pop()
    process.communicate()  # it ends with its input
    Path(where).unlink()
    Path(where).parent.rmdir()


def _serve(where: str) -> tuple[list[str], str, dict[str, str]] | None:
    """Fork for each command until the input ends; in the process of a command, what it is."""
    for name in LOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(where)
        listening.listen()
        print("listens", flush=True)
        while sys.stdin not in (ready := select.select([sys.stdin, listening], [], [])[0]):
            assert ready
            line, _ = listening.accept()
            with line:
                if os.fork() == 0:
                    return _begin(line)
    return None


def _begin(line: socket.socket) -> tuple[list[str], str, dict[str, str]] | None:
    """In a process between: start the command's, and tell its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, (out, err), _, _ = socket.recv_fds(line, 1 << 20, 2)
    pid = os.fork()
    if pid:
        line.send(str(pid).encode())
        _, ended = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            line.send(str(os.waitstatus_to_exitcode(ended)).encode())
        return None
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    words, cwd, env = json.loads(asked)
    return words, cwd, env


def _become(words: list[str], cwd: str, env: dict[str, str]) -> None:
    """``python -m reuna.cli``, from here on."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    sys.argv, sys.path[0] = ["reuna", *words], cwd
    runpy.run_module("reuna.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__" and (command := _serve(sys.argv[1])) is not None:
    _become(*command)
