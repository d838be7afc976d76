"""How much memory a new process could have: the machine's, or less where a cgroup says so."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reuna.adapters.processes import Libraries, available_mib, loading, own_address_mib, own_peak_mib

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system with 4 GiB left, and this process in two cgroups, one below the other."""
    group = tmp_path / "sys/fs/cgroup/reuna.slice/edge"
    for folder in (tmp_path / "proc/self", group):
        folder.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {4 * GIB // 1024} kB\n")
    (tmp_path / "proc/self/cgroup").write_text("1:memory:/other\n0::/reuna.slice/edge\n")
    return tmp_path


def limit(root: Path, group: str, most: str, used: int, files: int = 0) -> None:
    folder = root / "sys/fs/cgroup" / group
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {files}\n")


def test_without_a_limit_it_is_what_the_machine_has_left(root: Path) -> None:
    limit(root, "reuna.slice/edge", "max", 5)
    assert available_mib(root) == 4096


def test_the_narrowest_cgroup_counts_and_files_that_it_can_give_back_are_free(root: Path) -> None:
    limit(root, "reuna.slice/edge", str(3 * GIB), GIB)
    assert available_mib(root) == 2048
    limit(root, "reuna.slice", str(2 * GIB), GIB, GIB // 2)
    assert available_mib(root) == 1536
    limit(root, "reuna.slice", str(GIB), 2 * GIB)
    assert available_mib(root) == 0


def test_where_the_system_says_nothing_nothing_is_known(tmp_path: Path) -> None:
    assert available_mib(tmp_path) is None


@pytest.mark.parametrize("text", ["", "0::/../../x\n", "0::/gone\n", "nonsense\n"])
def test_cgroups_that_cannot_be_read_limit_nothing(root: Path, text: str) -> None:
    (root / "proc/self/cgroup").write_text(text)
    assert available_mib(root) == 4096


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_this_very_process_on_this_machine() -> None:
    assert 0 < own_peak_mib() < own_address_mib()
    free = available_mib()
    assert free is not None
    assert 0 <= free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 20)


def test_while_a_place_loads_nothing_is_collected_and_afterwards_as_ever() -> None:
    try:
        with loading():
            assert not gc.isenabled()
            made: list[object] = []
            made.append(made)
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        with pytest.raises(ImportError), loading():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


MAP = """\
7f0000000000-7f0000001000 r--p 00000000 08:01 1 /lib/python/_rust.abi3.so
Rss:                   4 kB
Anonymous:             0 kB
7f0000001000-7f0000003000 r-xp 00001000 08:01 1 /lib/python/_rust.abi3.so
Anonymous:             0 kB
7f0000003000-7f0000004000 r--p 00003000 08:01 1 /lib/python/_rust.abi3.so
Anonymous:             4 kB
7f0000004000-7f0000005000 rw-p 00004000 08:01 1 /lib/python/_rust.abi3.so
Anonymous:             0 kB
7f0000005000-7f0000006000 r--p 00000000 08:01 2 /var/lib/reuna/model.safetensors
Anonymous:             0 kB
7f0000006000-7f0000007000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000007000-7f0000008000 r-xp 00000000 08:01 3 /lib/libcrypto.so.3
Anonymous:             0 kB
"""


def mapped(folder: Path, text: str) -> None:
    (folder / "smaps").write_text(text, encoding="ascii")
    lines = [line for line in text.splitlines() if not line.split()[0].endswith(":")]
    (folder / "maps").write_text("\n".join(lines), encoding="ascii")


def test_only_what_nobody_wrote_to_in_a_library_is_let_go_of(tmp_path: Path) -> None:
    mapped(tmp_path, MAP)
    base = 0x7F0000000000
    expected = [(base, base + 0x1000), (base + 0x1000, base + 0x3000), (base + 0x7000, base + 0x8000)]
    assert Libraries(tmp_path).ranges() == expected


def test_a_library_that_is_gone_or_new_is_noticed(tmp_path: Path) -> None:
    mapped(tmp_path, MAP)
    libraries = Libraries(tmp_path)
    assert len(libraries.ranges()) == 3
    mapped(tmp_path, MAP.replace("/lib/libcrypto.so.3", "/var/lib/reuna/other"))
    assert len(libraries.ranges()) == 2
    mapped(tmp_path, MAP)
    assert len(libraries.ranges()) == 3


def test_a_system_that_says_nothing_of_its_memory_lets_go_of_nothing(tmp_path: Path) -> None:
    Libraries(tmp_path).let_go()
    assert Libraries(tmp_path).ranges() == []


LETS_GO = """
import hashlib, os, ssl, sqlite3
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from reuna.adapters.processes import Libraries, pss_mib
def work():
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    square = np.arange(10_000.0).reshape(100, 100)
    return key.sign(b"x"), (square @ square).tobytes(), hashlib.sha256(b"x").digest()
def held():
    with open("/proc/self/smaps_rollup") as rollup:
        return int(next(line for line in rollup if line.startswith("Rss:")).split()[1]) / 1024
before = work(), held()
libraries = Libraries()
libraries.let_go()
after = held()
print(before[1] - after, work() == before[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_libraries_that_were_let_go_of_work_as_before_and_hold_mebibytes_less() -> None:
    done = subprocess.run([sys.executable, "-c", LETS_GO], capture_output=True, text=True, timeout=60)
    less, same = done.stdout.split()
    assert same == "True", done.stderr
    assert float(less) > 5, "16 MiB of code and constants that numpy, OpenSSL and Python needed to begin"


AGAIN = """
import resource
from reuna.adapters.processes import give_back, one_heap
one_heap()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def lots():
    for _ in range(50):
        held = [bytes(512 * 1024 - 100 + number) for number in range(6)]
        del held
def resident():
    with open("/proc/self/smaps_rollup") as rollup:
        return int(next(line for line in rollup if line.startswith("Rss:")).split()[1])
lots()
before = faults()
lots()
again = faults() - before
held = resident()
give_back()
print(again, held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_what_was_freed_is_used_again_without_the_machine_clearing_it_anew_and_goes_back_when_idle() -> None:
    said = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True, timeout=60)
    again, gone = map(int, said.stdout.split())
    assert again < 1000, "8 600 as glibc has it"
    assert gone > 2000, "KiB"
