"""The local store on a real disk that fills up: it keeps the newest, harms nothing, and goes on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters import bounded_file
from reuna.adapters.local_store import LocalStore
from reuna.core.errors import DiskFull
from reuna.core.source_settings import MIB, StoreSettings
from reuna.core.sources import NS
from tests.system.test_full_disk import fill, small_disk
from tests.unit.adapters.test_local_store import NOW, TAGS, noise

pytestmark = [pytest.mark.system]


def append(store: LocalStore, numbers: range) -> int:
    """How many were refused."""
    refused = 0
    for number in numbers:
        try:
            store.append("press", TAGS, noise(number), NOW)
        except DiskFull:
            refused += 1
    return refused


def newest(store: LocalStore, number: int) -> int:
    start = NOW + number * NS
    return len(store.stored.window("press", ["t"], start, start + NS).columns["t"])


def test_a_small_disk_is_never_filled_by_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_file, "RESERVE", 16 * MIB)  # of 48
    with small_disk(tmp_path / "disk"):
        store = LocalStore(StoreSettings(str(tmp_path / "disk" / "store"), 30.0, 1024))
        assert append(store, range(300)) == 0  # 46 MB
        assert newest(store, 299) == 20_000
        assert store._file._free() > 8 * MIB
        store.close()


def test_others_fill_the_disk_and_leave_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk"):
        store = LocalStore(StoreSettings(str(tmp_path / "disk" / "store"), 30.0, 1024), lambda: 1 << 40)
        append(store, range(40))
        before = store.stored.state()
        fill(tmp_path / "disk")
        refused = append(store, range(40, 100))
        after = store.stored.state()
        assert refused
        assert after.readings > before.readings // 2, "it does not forget in vain"
        (tmp_path / "disk" / "filler").unlink()
        assert append(store, range(100, 110)) == 0
        assert newest(store, 109) == 20_000
        assert store._file.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()
