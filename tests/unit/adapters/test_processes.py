"""How much memory a new process could have: the machine's, or less where a cgroup says so."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from reuna.adapters.processes import available_mib, loading, own_address_mib, own_peak_mib

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
