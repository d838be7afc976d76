"""However an attacker mixes what was ever published, a node never goes back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reuna.core.errors import Untrusted
from reuna.trust.metadata import TrustState, complete, update
from tests.unit.trust.house import House

ROLES = ("targets", "code", "plans")


def history(steps: list[str]) -> tuple[House, list[bytes]]:
    """A fleet that published these, and every timestamp it ever had."""
    house = House()
    stamps = [house.newest["timestamp"]]
    for step in steps:
        if step == "root":
            house.root()
        else:
            house.list(step)
        house.online()
        stamps.append(house.newest["timestamp"])
    return house, stamps


def versions(state: TrustState) -> dict[str, int]:
    return {"root": state.root.version, **{role: file.version for role, file in state.files.items()}}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_order_of_old_and_new_files_takes_a_node_back(data: st.DataObject) -> None:
    house, stamps = history(data.draw(st.lists(st.sampled_from([*ROLES, "root"]), min_size=1, max_size=5)))
    state = house.begin()
    for _ in range(data.draw(st.integers(1, 6))):
        served = dict(house.files)
        served["timestamp.json"] = data.draw(st.sampled_from(stamps))
        names = sorted(served)
        for _ in range(data.draw(st.integers(0, 2))):  # swapped, or held back
            served[data.draw(st.sampled_from(names))] = served[data.draw(st.sampled_from(names))]
        try:
            after = update(state, served.get, house.now)
        except Untrusted:
            continue
        assert complete(after)
        assert all(versions(after)[role] >= number for role, number in versions(state).items())
        state = after
    assert complete(house.update(state))  # and the honest files are still taken over
