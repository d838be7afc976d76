"""An egress whose starter ended before it could ask to end with it, whoever adopts it then."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from reuna.adapters.certificates import CertificateAuthority
from reuna.exchange.kept import Lives, starter_command
from reuna.exchange.link import EgressSettings
from reuna.fleet.trust import make_trust

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the kernel ends nobody with another"
)
PR_SET_CHILD_SUBREAPER = 36
#: The egress, but slow: its starter has ended before its first line runs. Says who it is first.
SLOW = """
import os, sys, time
how, _, starter, _ = sys.argv[1:]
print(os.getpid(), flush=True)
while os.getppid() == int(starter):
    time.sleep(0.01)
if how == "unguarded":
    os.getppid = lambda: int(starter)
del sys.argv[1]
from reuna.exchange import process
sys.exit(process.main())
"""


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Of an edge whose parent's server is away, so that its egress would wait for ever."""
    pair = CertificateAuthority.create(tmp_path / "ca", "line").issue("edge", "edge-1")
    root = tmp_path / "root.json"
    root.write_bytes(make_trust(tmp_path / "trust", "line", time.time()))
    said = EgressSettings(
        name="edge-1", parent="fog-1", parent_identity="", nats_url="tls://127.0.0.1:1",
        freight_host="127.0.0.1", freight_port=1, certificate=str(pair.certificate), key=str(pair.key),
        authority=str(pair.authority), folder=str(tmp_path / "state"), fleet="line", root=str(root), policy="",
        bus=("gateway", "fog-1"), freight=("gateway", "fog-1"),
    )  # fmt: skip
    return msgspec.json.encode(said).decode()


@contextmanager
def orphan(how: str, settings: str) -> Iterator[tuple[int, socket.socket, subprocess.Popen[str]]]:
    """Process id and line of an egress whose starter was killed while it began, and what both print to."""
    control, theirs = socket.socketpair()
    command = starter_command([theirs], [Lives(("-c", SLOW, how), settings, 0.2)])
    with control, theirs, subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as starter:  # fmt: skip
        assert starter.stdout is not None
        egress = int(starter.stdout.readline())
        (number, *_) = socket.recv_fds(control, 1, 1)[1]
        starter.kill()
        starter.wait()
        try:
            with socket.socket(fileno=number) as line:
                yield egress, line, starter
        finally:
            with suppress(ProcessLookupError):
                os.kill(egress, signal.SIGKILL)


@pytest.fixture
def adopting() -> Iterator[None]:
    """Orphans below this process come to it and not to init, as they do to a user's systemd."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.usefixtures("adopting")
def test_an_egress_whose_starter_ended_while_it_began_ends_without_complaint(settings: str) -> None:
    with orphan("guarded", settings) as (egress, line, starter):
        assert os.waitpid(egress, 0) == (egress, 0)
        assert line.recv(1) == b"", "its place hears of it"
        assert starter.stderr is not None
        assert starter.stderr.read() == ""


def test_it_ends_also_where_nobody_but_init_adopts_it(settings: str) -> None:
    with orphan("guarded", settings) as (_, line, _):
        line.settimeout(60)
        assert line.recv(1) == b""


@pytest.mark.slow
@pytest.mark.usefixtures("adopting")
def test_without_that_look_it_would_stay_for_ever(settings: str) -> None:
    with orphan("unguarded", settings) as (egress, _, starter):
        assert starter.stderr is not None
        assert any("parent's server is away" in line for line in starter.stderr)
        assert os.waitpid(egress, os.WNOHANG) == (0, 0)
    os.waitpid(egress, 0)
