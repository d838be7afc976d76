from __future__ import annotations

from pathlib import Path

import pytest

from reuna.adapters.trust_store import TrustStore
from reuna.core.errors import Corrupted
from reuna.trust.plans import Floor, Seen
from tests.unit.trust.house import House


def test_a_new_node_has_neither_state_nor_floor(tmp_path: Path) -> None:
    store = TrustStore(tmp_path)
    assert store.state() is None
    assert store.floor() == Floor()


def test_state_and_floor_come_back_after_a_restart(tmp_path: Path) -> None:
    house = House()
    state = house.update()
    TrustStore(tmp_path).keep(state, house.files)
    floor = Floor({"r-1": Seen(3, 1, "ab", 5, "k")}, 4)
    TrustStore(tmp_path).keep_floor(floor)
    assert TrustStore(tmp_path).state() == state
    assert TrustStore(tmp_path).floor() == floor


@pytest.mark.parametrize("name", ["state", "floor"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_said_and_never_read_as_a_new_beginning(
    tmp_path: Path, name: str, damage: str
) -> None:
    house, store = House(), TrustStore(tmp_path)
    store.keep(house.update(), {})
    store.keep_floor(Floor({"r-1": Seen(3, 1, "ab", 5, "k")}))
    data = bytearray((tmp_path / name).read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    (tmp_path / name).write_bytes({"cut": bytes(data[:-3]), "flip": bytes(data), "empty": b""}[damage])
    with pytest.raises(Corrupted, match="damaged"):
        getattr(store, name)()


def test_files_are_served_by_their_names_and_nothing_else_is(tmp_path: Path) -> None:
    house, store = House(), TrustStore(tmp_path)
    store.keep(house.update(), house.files)
    for name, data in house.files.items():
        assert store.file(name) == data
    for name in ("../state", "state", "9.root.json", "0.root.json", "root.json", "1.root.json\n", ""):
        assert store.file(name) is None


def test_old_files_go_and_every_root_stays(tmp_path: Path) -> None:
    house, store = House(), TrustStore(tmp_path)
    store.keep(house.update(), house.files)
    house.root()
    house.list("code")
    house.online()
    store.keep(house.update(), {name: house.files[name] for name in house.files if name[0] == "2"})
    assert store.file("1.code.json") is None
    assert store.file("2.code.json")
    assert store.file("1.root.json")
    assert store.file("2.root.json")


def test_a_name_that_leads_elsewhere_is_not_written(tmp_path: Path) -> None:
    TrustStore(tmp_path / "node").keep(House().update(), {"../../evil": b"x", "evil.json": b"x"})
    assert not list(tmp_path.rglob("*evil*"))
