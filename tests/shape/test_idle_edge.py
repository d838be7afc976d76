"""What the processes of an edge that does nothing have in memory: a list, and each name on it has its reason.

No figure of memory is a test: it moves with the machine (`python -m benchmarks.round --idle` has it). What is
loaded does not, and it decides most of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection

import pytest

from reuna.adapters.tls import READ
from reuna.edge.agent import OWN, READS

PLACE = ("reuna.fleet.place", "reuna.edge.agent")  #: what runs before egress and reader are forked
LABELLED = "reuna.edge.labelled"  #: counts rows beside a run
AGENT = (*PLACE, *OWN, LABELLED)
EGRESS = (*PLACE, "reuna.exchange.process")
READER = (*PLACE, *READS)
#: Packages of others that each of an edge's processes has.
EACH = {"msgspec": "messages", "typing_extensions": "msgspec's own"}
#: And those that some have; which of their work needs it.
NUMBERS = {"numpy": "updates are encoded, readings kept"}
TRUST = {
    "nats": "the line to the fog",
    "tuf": "metadata of what it trusts",
    "securesystemslib": "and its signatures",
    "cryptography": "and its keys",
    "_cffi_backend": "cryptography's own",
}
PROCESSES = [(AGENT, EACH), (EGRESS, EACH | NUMBERS | TRUST), (READER, EACH | NUMBERS)]
NAMES = ["agent", "egress", "reader"]
#: Of the standard library what takes more than it gives to a node that is idle.
HEAVY = {
    "statistics",
    "fractions",
    "asyncio.__main__",
    "unittest",
    "pydoc",
    "multiprocessing",
    "xml",
    "curses",
}
LIST = """
import importlib, sys, sysconfig
for name in sys.argv[1:]:
    importlib.import_module(name)
site = sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]
for name, module in sorted(sys.modules.items()):
    if "." not in name:
        print(name, int((getattr(module, "__file__", None) or "").startswith(site)))
"""


def loaded(*modules: str) -> tuple[set[str], set[str]]:
    """Top-level names that others made, and those of the standard library and ours, after these imports."""
    done = subprocess.run(
        [sys.executable, "-c", LIST, *modules], capture_output=True, text=True, timeout=60, check=True
    )
    found = [line.split() for line in done.stdout.splitlines()]
    return {name for name, other in found if other == "1"}, {name for name, other in found if other == "0"}


def unwanted(wanted: Collection[str], *modules: str) -> set[str]:
    """What of it no idle edge needs; how tools were installed is no business of ours."""
    others, own = loaded(*modules)
    return {name for name in others - set(wanted) if not name.startswith("_")} | own & HEAVY


@pytest.mark.parametrize(("modules", "wanted"), PROCESSES, ids=NAMES)
def test_a_process_of_an_edge_loads_what_is_on_its_list_and_nothing_else(
    modules: tuple[str, ...], wanted: dict[str, str]
) -> None:
    assert unwanted(wanted, *modules) == set()


@pytest.mark.parametrize("planted", ["typer", "numpy", "tuf", "cryptography", "statistics"])
def test_a_library_too_many_is_noticed(planted: str) -> None:
    assert planted in unwanted(EACH, *AGENT, planted)


@pytest.mark.parametrize(("modules", "wanted"), PROCESSES, ids=NAMES)
def test_each_name_on_a_list_is_loaded_else_it_goes_from_the_list(
    modules: tuple[str, ...], wanted: dict[str, str]
) -> None:
    assert loaded(*modules)[0] >= set(wanted)


def test_without_a_reader_nothing_of_reading_machines_is_loaded() -> None:
    code = (
        "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, *AGENT, "reuna.exchange.process"]
    names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert not {"reuna.edge.read", "reuna.adapters.local_store", "reuna.adapters.mqtt"} & set(names)


FORKS = """
import os, sys, threading
from reuna.adapters.processes import ONE_THREAD
os.environ.update(ONE_THREAD)
if sys.argv[1] == "a thread":
    ended = threading.Event()
    threading.Thread(target=ended.wait, daemon=True).start()
from reuna.edge.agent import _load_for_all
print(_load_for_all(True).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
@pytest.mark.parametrize(
    ("how", "way"),
    [("alone", "fork_keeping"), ("a thread", "start_keeping")],
)
def test_egress_and_reader_are_forks_as_long_as_no_thread_runs(how: str, way: str) -> None:
    """Nothing that is loaded for all three starts a thread, which would cost the sharing without a word."""
    done = subprocess.run([sys.executable, "-c", FORKS, how], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [way], done.stderr


BEGINS = """
import os, socket, sys
from asyncio import sslproto
from contextlib import suppress
from pathlib import Path
from reuna.exchange import process
from reuna.fleet import place
with suppress(Exception):
    if sys.argv[1] == "place":
        place.serve("edge", Path("not-there.toml"))
    else:
        process.begin(socket.socket(), os.getppid(), "no settings")
print(sslproto.SSLProtocol.max_size, os.environ.get("MALLOC_TRIM_THRESHOLD_"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize(("what", "heap"), [("place", str(16 << 20)), ("a later life of an egress", "None")])
def test_each_process_begins_with_small_reads_and_a_place_with_one_heap_for_all(what: str, heap: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", BEGINS, what], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.stdout.split() == [str(READ), heap], done.stderr
