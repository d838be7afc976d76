"""Two network namespaces joined by one slow link, which can be cut. Linux, with the right to make namespaces.

    this process ── far 10.77.0.1 ══ slow both ways ══ near 10.77.1.N ── whatever is started behind it

Nothing of it has a name in the system: when the processes in the namespaces have ended, they are gone. So this
process has to be in a namespace of its own (`enter`) before it makes the link.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from typing import Any

FAR = "10.77.0.1"  #: the address on this side; on the other it is another one after each cut
TOOLS = ("ip", "tc", "unshare", "nsenter")
#: Of both namespaces: what Linux does where nobody has changed it.
SETTINGS = {
    "ipv6/conf/all/disable_ipv6": "1", "ipv4/tcp_congestion_control": "cubic", "ipv4/tcp_mtu_probing": "0",
}  # fmt: skip
QUEUE_MS = 500  #: what is sent waits so long at most in front of the link, then it is dropped
BURST = 1_600  #: bytes; one packet
SAMPLE = 100_000  #: bytes carried to see what a link takes for them
INSIDE = "REUNA_DRILL_INSIDE"  #: in the environment of who is in a namespace of its own
_TAKE = (
    "import socket,sys\n"
    "with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as line:\n"
    "    while line.recv(65536): pass\n"
)


class NoNamespacesError(Exception):
    """This machine, or this user, cannot make the link; says what is missing."""


def missing() -> str:
    """What stands in the way of a link here; '' when nothing does."""
    if sys.platform != "linux":
        return "network namespaces are of Linux"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} is not installed (packages iproute2 and util-linux)"
    tried = _unshare("ip link add name far type veth peer name near && tc qdisc add dev far root tbf rate 64kbit "
                     f"burst {BURST} latency {QUEUE_MS}ms")  # fmt: skip
    if tried.returncode:
        why = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"a network namespace with a slow link is not to be had: {why} (are you root?)"
    return ""


def _unshare(script: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--net", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def enter(module: str, arguments: list[str]) -> None:
    """Go on in a network namespace of one's own: replaces this process, unless it is in one already."""
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", module, *arguments])


class SlowLink:
    """The link; use it as a context manager. Raises `NoNamespacesError` when it cannot be made."""

    def __init__(self, rate_kbit: int) -> None:
        self._rate_kbit = rate_kbit
        self._number = 0
        self.cuts = 0

    def __enter__(self) -> SlowLink:
        self._holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
                                        stdout=subprocess.PIPE)  # fmt: skip
        assert self._holder.stdout is not None
        self._holder.stdout.readline()  # it is in its namespace
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.wait()

    def _make(self) -> None:
        for side in ([], self.behind):
            for name, value in SETTINGS.items():
                _run(*side, "sh", "-c", f"echo {value} > /proc/sys/net/{name} || true")
            _run(*side, "ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "name", "far", "type", "veth", "peer", "name", "near", "netns",
             str(self._holder.pid))  # fmt: skip
        _run("ip", "addr", "add", f"{FAR}/16", "dev", "far")
        for side, name in (([], "far"), (self.behind, "near")):
            _run(*side, "tc", "qdisc", "add", "dev", name, "root", "tbf", "rate", f"{self._rate_kbit}kbit",
                 "burst", str(BURST), "latency", f"{QUEUE_MS}ms")  # fmt: skip
        _run("ip", "link", "set", "far", "up")
        self.restore(new_address=True)

    @property
    def behind(self) -> list[str]:
        """What to put before a command so that it runs behind the link."""
        return ["nsenter", "--target", str(self._holder.pid), "--net", "--"]

    def cut(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self.cuts += 1
        _run(*self.behind, "ip", "link", "set", "near", "down")

    def restore(self, new_address: bool) -> None:
        """It carries again; with a ``new_address`` no connection of before does."""
        if new_address:
            self._number += 1
            address = f"10.77.{1 + self._number // 250}.{1 + self._number % 250}/16"
            _run(*self.behind, "ip", "addr", "flush", "dev", "near")
            _run(*self.behind, "ip", "addr", "add", address, "dev", "near")
        _run(*self.behind, "ip", "link", "set", "near", "up")

    def carried(self) -> dict[str, int]:
        """Bytes and packets so far in both directions, heads of the link, of IP and of TCP included."""
        found: list[dict[str, Any]] = json.loads(_run("ip", "-json", "-stats", "link", "show", "dev", "far"))
        figures = found[0]["stats64"]
        return {
            what: figures["rx"][what] + figures["tx"][what] for what in ("bytes", "packets")
        } | {"down": figures["tx"]["bytes"], "up": figures["rx"]["bytes"]}  # fmt: skip

    def plain(self, size: int = SAMPLE) -> float:
        """Bytes on the link for each byte of one long plain TCP stream, uncut: what no transfer gets below."""
        before = self.carried()["bytes"]
        with socket.create_server((FAR, 0)) as listening:
            port = str(listening.getsockname()[1])
            taking = subprocess.Popen([*self.behind, sys.executable, "-c", _TAKE, FAR, port])
            line, _ = listening.accept()
            with line:
                line.sendall(bytes(size))
            taking.wait()
        return (self.carried()["bytes"] - before) / size


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespacesError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
