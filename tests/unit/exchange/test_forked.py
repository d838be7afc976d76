"""An egress as a fork of its place: it shares what is loaded, and nothing that the place has open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
#: Stands in for the egress: says of itself whatever is asked for, in place of each answer.
EGRESS = """
import gc, json, os, signal, socket, sys
import msgspec
from reuna.adapters.processes import become, end_with_parent, part_of
from reuna.exchange.link import Call, Done

def begin(sock, starter, settings):
    end_with_parent()
    become("egress")
    while (head := sock.recv(4, socket.MSG_WAITALL)):
        call = msgspec.msgpack.decode(sock.recv(int.from_bytes(head, "little"), socket.MSG_WAITALL), type=Call)
        said = {
            "pid": os.getpid(), "shares": "planted" in sys.modules, "part": part_of(os.getpid()),
            "starter": part_of(os.getppid()), "starter_is": os.getppid() == starter, "parent": os.getppid(),
            "open": sorted(map(int, os.listdir("/proc/self/fd"))), "sock": sock.fileno(),
            "handled": [signal.getsignal(n) is not signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGHUP)],
            "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
            "frozen": gc.get_freeze_count() > 0, "settings": json.loads(settings)["name"],
        }
        done = msgspec.msgpack.encode(Done(call.number, signed=json.dumps(said).encode()))
        sock.sendall(len(done).to_bytes(4, "little") + done)
    return 0

if __name__ == "__main__":
    sys.exit(begin(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]))
"""
#: A place: with a module loaded that nobody else has, a socket of its own, handlers, and two processes beside it.
#: The first, its egress, is killed twice, then the other.
PLACE = """
import asyncio, json, os, signal, socket, sys
import msgspec
sys.path.insert(0, sys.argv[1])
sys.modules["planted"] = sys
from reuna.exchange import child
from reuna.exchange.forked import fork_keeping
from reuna.exchange.kept import Companions
from tests.unit.exchange.test_child import SETTINGS, SHOWN
OTHER = msgspec.structs.replace(SETTINGS, name="edge-2")
child.EGRESS = ("-m", "stand_in", *sys.argv[3:])
os.environ["PYTHONPATH"] = sys.argv[1]
async def main():
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, print)
    own = socket.create_server(("127.0.0.1", 0))
    shown = socket.create_server(("127.0.0.1", 0)) if sys.argv[2] == "metrics" else None
    egress, other = child.EgressProcess(SETTINGS, shown), child.EgressProcess(OTHER)
    said, beside = [], []
    async with Companions([egress, other], fork_keeping):
        for _ in range(2):
            said.append(json.loads(await egress.countersign(SHOWN)))
            beside.append(json.loads(await other.countersign(SHOWN)))
            os.kill(said[-1]["pid"], signal.SIGKILL)
        os.kill(beside[-1]["pid"], signal.SIGKILL)
        while (again := json.loads(await other.countersign(SHOWN)))["pid"] == beside[-1]["pid"]:
            pass
        beside.append(again)
    with open("/proc/self/task/%d/children" % os.getpid()) as left:
        print(json.dumps([*said, left.read(), "stand_in" in sys.modules, beside]))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What an egress says in its first life and, killed, in its second; what is left at the end; the other."""
    return place(tmp_path_factory.mktemp("forked"))


def place(folder: Any, *words: str) -> list[Any]:
    (folder / "stand_in.py").write_text(EGRESS)
    command = [sys.executable, "-c", PLACE, str(folder), *(words or ("silent",))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: list[Any] = msgspec.json.decode(done.stdout)
    return found


def test_the_first_life_shares_what_the_place_has_loaded_and_a_later_one_is_fresh(lives: list[Any]) -> None:
    first, second, *_ = lives
    assert (first["shares"], first["frozen"]) == (True, True)
    assert (second["shares"], second["frozen"]) == (False, False)


def test_a_fork_has_nothing_open_that_its_place_has(lives: list[Any]) -> None:
    first, *_ = lives
    listing = 1  # the folder of the descriptors itself is open while it is read
    assert len(set(first["open"]) - {0, 1, 2, first["sock"]}) <= listing


def test_where_it_shows_metrics_it_has_that_listener_too(tmp_path: Any) -> None:
    first, second, *_ = place(tmp_path, "metrics")
    assert len(set(first["open"]) - {0, 1, 2, first["sock"]}) == 2
    assert len(set(second["open"]) - {0, 1, 2, second["sock"]}) == 2, "also in its second life"


def test_what_is_beside_it_has_neither_its_listener_nor_its_line(tmp_path: Any) -> None:
    *_, beside = place(tmp_path, "metrics")
    for life in beside:
        assert len(set(life["open"]) - {0, 1, 2, life["sock"]}) == 1, "the folder that is read"


def test_one_starter_keeps_both_and_each_lives_on_when_the_other_ends(lives: list[Any]) -> None:
    first, second, *_, beside = lives
    assert len({life["parent"] for life in (first, second, *beside)}) == 1
    assert beside[0]["pid"] == beside[1]["pid"] != beside[2]["pid"]
    assert first["pid"] != second["pid"]
    assert [life["settings"] for life in beside] == ["edge-2"] * 3
    assert [life["shares"] for life in beside] == [True, True, False]


def test_a_fork_handles_and_blocks_signals_as_a_fresh_process(lives: list[Any]) -> None:
    for life in (*lives[:2], *lives[4]):
        assert (life["handled"], life["blocked"]) == ([False, False], [])


def test_each_life_is_what_it_is_called_and_knows_who_started_it(lives: list[Any]) -> None:
    for life in lives[:2]:
        assert (life["part"], life["starter"], life["starter_is"]) == ("egress", "starter", True)
        assert life["settings"] == "edge-1"


def test_what_a_fork_needs_it_loads_itself_and_its_place_does_not_have_it(lives: list[Any]) -> None:
    assert lives[3] is False


def test_nothing_is_left_once_the_place_stopped_it(lives: list[Mapping[str, Any] | str]) -> None:
    assert lives[2] == ""


def test_a_command_with_words_of_its_own_is_started_afresh(tmp_path: Any) -> None:
    (tmp_path / "stand_in.py").write_text("")
    script = (
        "from reuna.exchange.forked import Forked, fork_keeping; from reuna.exchange.kept import Lives;"
        "(control,), starter = fork_keeping([Lives(('-c', 'pass', 'more'), '{}', 0.2)]);"
        "assert not isinstance(starter, Forked); control.close(); starter.terminate(); starter.wait()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
