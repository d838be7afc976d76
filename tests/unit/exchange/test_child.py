"""The agent leaves the network, its egress stays in it and comes back when it ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from reuna.adapters.processes import children
from reuna.adapters.sandbox import LEVELS, NotReached, identity, leave_network_whole, probe
from reuna.core.records import ShownHead
from reuna.exchange import child, starter
from reuna.exchange.child import EgressProcess
from reuna.exchange.kept import Companions
from reuna.exchange.link import EgressSettings, RemoteLink

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
#: An egress that answers each call by an error with what it found: its network namespace and itself.
EGRESS = """
import os, socket, sys
import msgspec
from reuna.adapters.processes import end_with_parent
from reuna.exchange.link import Call, Done
end_with_parent()
sock = socket.socket(fileno=int(sys.argv[1]))
while (head := sock.recv(4, socket.MSG_WAITALL)):
    call = msgspec.msgpack.decode(sock.recv(int.from_bytes(head, "little"), socket.MSG_WAITALL), type=Call)
    found = f"{os.readlink('/proc/self/ns/net')} {os.getpid()}"
    done = msgspec.msgpack.encode(Done(call.number, signed=found.encode()))
    sock.sendall(len(done).to_bytes(4, "little") + done)
"""
#: Leaves the network (or not) and says whether it reaches a port of 127.0.0.1.
AGENT = """
import os, socket, sys
from reuna.adapters.sandbox import leave_network_whole
if sys.argv[2] == "leaves":
    leave_network_whole()
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5).close()
    print("reached", os.readlink("/proc/self/ns/net"))
except OSError as error:
    print("not reached", os.readlink("/proc/self/ns/net"))
"""
#: A place whose egress is killed after it left the network itself.
LEAVING = """
import asyncio, os, signal, sys
from reuna.adapters.sandbox import leave_network_whole
from reuna.exchange import child
from reuna.exchange.kept import Companions
from tests.unit.exchange.test_child import SETTINGS, answer, network
async def main():
    child.EGRESS = ("-c", sys.argv[1])
    egress = child.EgressProcess(SETTINGS)
    async with Companions([egress]):
        leave_network_whole()
        first, pid = await answer(egress)
        os.kill(pid, signal.SIGKILL)
        second, _ = await answer(egress)
        print(network(), first, second)
asyncio.run(main())
"""


def network() -> str:
    return str(Path("/proc/self/ns/net").readlink())


def agent(port: int, how: str) -> str:
    command = [sys.executable, "-c", AGENT, str(port), how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def needs_a_namespace() -> None:
    if why := probe().agent:
        pytest.skip(f"an agent keeps the network here: {why}")


def test_what_left_the_network_reaches_no_port_of_this_machine() -> None:
    needs_a_namespace()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert agent(port, "stays") == f"reached {network()}", "without leaving, the port is there"
        said = agent(port, "leaves")
    assert said.startswith("not reached net:")
    assert network() not in said


def test_a_process_with_threads_stays_and_says_why() -> None:
    code = """
import threading
from reuna.adapters.sandbox import leave_network_whole, NotReached
ended = threading.Event()
threading.Thread(target=ended.wait).start()
try:
    leave_network_whole()
except NotReached as error:
    print(error)
ended.set()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("threads run already")


def test_a_kernel_that_refuses_leaves_the_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NotReached("the kernel refuses it: Operation not permitted")

    monkeypatch.setattr(identity, "threads", lambda: 1)  # the test's own are of no concern
    monkeypatch.setattr(identity, "leave_network", refuse)
    before = network()
    with pytest.raises(NotReached, match="Operation not permitted"):
        leave_network_whole()
    assert network() == before


def test_workers_are_confined_as_fully_from_a_namespace_as_without() -> None:
    level = probe()
    if not level.agent:
        assert set(LEVELS[1]) <= set(level.layers)


SETTINGS = EgressSettings(
    name="edge-1", parent="fog-1", parent_identity="", nats_url="", freight_host="", freight_port=0,
    certificate="", key="", authority="", folder="", fleet="", root="", policy="",
    bus=("gateway", "fog-1"), freight=("gateway", "fog-1"),
)  # fmt: skip
SHOWN = ShownHead(b"", b"", (), b"")


@pytest.fixture
async def egress(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EgressProcess]:
    monkeypatch.setattr(child, "EGRESS", ("-c", EGRESS))
    process = EgressProcess(SETTINGS)
    async with Companions([process]):
        yield process


async def answer(egress: EgressProcess) -> tuple[str, int]:
    """Network namespace and pid, as the egress says them."""
    where, pid = (await egress.countersign(SHOWN)).decode().split()
    return where, int(pid)


async def test_the_egress_stays_in_the_network_of_the_machine_and_comes_back_when_it_ends(
    egress: EgressProcess,
) -> None:
    where, pid = await answer(egress)
    assert where == network()
    os.kill(pid, signal.SIGKILL)
    again, other = await answer(egress)
    assert (again, other != pid) == (where, True)


#: An egress that in its first life says what nobody can read, and ends with its line.
CONFUSED = EGRESS.replace(
    "while (head",
    """marker = msgspec.json.decode(sys.argv[3])["folder"] + "/confused"
if not os.path.exists(marker):
    open(marker, "w").close()
    sock.sendall(bytes([3, 0, 0, 0]) + b"???")
while (head""",
)


async def test_an_egress_that_says_nonsense_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(child, "EGRESS", ("-c", CONFUSED))
    egress = EgressProcess(msgspec.structs.replace(SETTINGS, folder=str(tmp_path)))
    async with Companions([egress]):
        where, _ = await asyncio.wait_for(answer(egress), 60)
    assert where == network()
    assert (
        "the line to the egress of edge-1: a frame between place and egress that cannot be read"
        in caplog.text
    )
    assert "Traceback" not in caplog.text


async def test_a_mistake_of_the_place_itself_is_told_with_its_trace_and_the_egress_comes_back(
    egress: EgressProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pid = await answer(egress)

    async def mistake(_link: RemoteLink) -> None:
        raise ZeroDivisionError("ours")

    with monkeypatch.context() as planted:
        planted.setattr(RemoteLink, "run", mistake)
        os.kill(pid, signal.SIGKILL)  # the next life is the one that meets the mistake
        while "the line to the egress of edge-1: ours" not in caplog.text:
            await asyncio.sleep(0)
    where, other = await asyncio.wait_for(answer(egress), 60)
    assert (where, other != pid) == (network(), True)
    assert "ZeroDivisionError" in caplog.text


async def test_stopping_ends_the_egress_and_what_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "EGRESS", ("-c", EGRESS))
    egress = EgressProcess(SETTINGS)
    async with Companions([egress]):
        _, pid = await answer(egress)
        starter = next(each for each in children(os.getpid()) if pid in children(each))
    assert not Path(f"/proc/{pid}").exists()
    assert starter not in children(os.getpid())


async def test_a_place_without_what_starts_its_egress_ends_too(egress: EgressProcess) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    _, pid = await answer(egress)
    os.kill(next(each for each in children(os.getpid()) if pid in children(each)), signal.SIGKILL)
    await ended.wait()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_an_agent_that_left_still_gets_a_fresh_egress_with_the_network() -> None:
    needs_a_namespace()
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LEAVING, EGRESS, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await done.communicate()
    own, first, second = out.decode().split()
    assert own != network()
    assert first == second == network()


def test_a_process_that_ends_at_once_is_begun_ever_later_but_not_later_than_it_may_be() -> None:
    each = kept(longest_s=1.0)
    played = Played({each: [0.0, 0.0, 0.0, 0.0, 99.0, 0.0]})
    assert played.keep() == 0
    assert played.waits == [0.2, 0.4, 0.8, 1.0, 0.2, 0.4]


def test_one_that_ends_again_and_again_is_begun_ever_later_and_the_other_runs_on() -> None:
    bad, good = kept(longest_s=1.0), kept(longest_s=1.0)
    played = Played({bad: [0.5, 0.5, 0.5], good: [60.0]})
    assert played.keep() == 0
    assert played.begun[bad] == [0.0, 0.7, 1.6, 2.9]
    assert played.begun[good] == [0.0]


def test_of_those_that_end_together_each_is_begun_again() -> None:
    first, second = kept(longest_s=1.0), kept(longest_s=1.0)
    played = Played({first: [3.0, 60.0], second: [3.0, 30.0]})
    assert played.keep() == 0
    assert played.begun[first] == [0.0, 3.2]
    assert played.begun[second] == [0.0, 3.2, 33.4]


def test_a_first_life_that_goes_on_is_not_begun_and_its_next_one_is() -> None:
    each = kept(longest_s=1.0, child=77)
    played = Played({each: []}, living={77: 5.0})
    assert played.keep() == 0
    assert played.begun[each] == [5.2]


def kept(longest_s: float, child: int = 0) -> starter.Kept:
    return starter.Kept(None, [], longest_s, child, [])  # type: ignore[arg-type]


class Played:
    """Time, and processes with lives of so many seconds; when one has no more the place is gone."""

    def __init__(
        self, lives: dict[starter.Kept, list[float]], living: dict[int, float] | None = None
    ) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self.begun: dict[starter.Kept, list[float]] = {each: [] for each in lives}
        self._lives = {each: iter(seconds) for each, seconds in lives.items()}
        self._ends = dict(living or {})
        self._numbers = itertools.count(100)

    def keep(self) -> int:
        each = list(self._lives)
        return starter.keep(each, self._begin, self._next_end, lambda: self.now, self._sleep)

    def _begin(self, each: starter.Kept) -> None:
        self.begun[each].append(round(self.now, 9))
        life = next(self._lives[each], None)
        if life is None:
            raise BrokenPipeError
        each.child = next(self._numbers)
        self._ends[each.child] = self.now + life

    def _next_end(self, wait: bool) -> int:
        first = min(self._ends, key=lambda each: self._ends[each])
        if wait:
            self.now = max(self.now, self._ends[first])
        if self._ends[first] > self.now:
            return 0
        del self._ends[first]
        return first

    def _sleep(self, seconds: float) -> None:
        self.waits.append(round(seconds, 9))
        self.now += seconds


#: An egress that answers each call by the port of the socket that it was given to listen on.
LISTENING = EGRESS.replace(
    "os.readlink('/proc/self/ns/net')",
    "socket.socket(fileno=os.dup(msgspec.json.decode(sys.argv[3])['metrics'])).getsockname()[1]",
)


async def test_the_egress_alone_has_the_socket_that_is_scraped_also_after_it_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert LISTENING != EGRESS
    monkeypatch.setattr(child, "EGRESS", ("-c", LISTENING))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    process = EgressProcess(SETTINGS, listener)
    async with Companions([process]):
        assert listener.fileno() == -1, "the place has it no more"
        said, pid = await answer(process)
        os.kill(pid, signal.SIGKILL)
        again, other = await answer(process)
    assert said == again == str(port)
    assert other != pid
    socket.create_server(("127.0.0.1", port)).close()
