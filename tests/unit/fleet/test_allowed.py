"""Who approved a run is read from what was signed, or said to be unseen; never made up."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reuna.adapters.policy_store import read_policy
from reuna.core.errors import Unreachable
from reuna.core.records import RunSpec
from reuna.fleet.allowed import of_run
from reuna.fleet.code import allow_code
from reuna.fleet.layout import Fleet, make_fleet
from reuna.fleet.result import Approvals, DataLine
from reuna.fleet.windows import data_windows
from reuna.wire import digest_bytes

CODE = b"a bundle"
SPEC = RunSpec(
    run="r-1", project="pumps", task="t", metric="m", rounds=1, strategy="fedavg", fogs={}, model="0" * 64,
    model_size=1, params=1, bundle=digest_bytes(CODE), bundle_size=1,
)  # fmt: skip
PROPOSAL = {
    "id": "c0ffee", "action": "runs.submit", "summary": "", "by": "ida", "at": 1.0, "decided": "approved",
    "decided_by": "noor", "decided_at": 2.0, "digest": hashlib.sha256(msgspec.json.encode(SPEC)).hexdigest(),
}  # fmt: skip


class Cloud:
    def __init__(self, *proposals: dict[str, Any]) -> None:
        self._proposals = list(proposals)

    def proposals(self) -> list[dict[str, Any]]:
        return self._proposals


class Away(Cloud):
    def proposals(self) -> list[dict[str, Any]]:
        raise Unreachable("gone")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    data = tmp_path / "data"
    data.mkdir()
    return make_fleet(tmp_path / "fleet", "local", {"fog-1": {"edge-1": data, "edge-2": data}})


def told(fleet: Fleet, cloud: Cloud | None = None) -> Approvals:
    found = of_run(fleet, cloud or Cloud(), SPEC)  # type: ignore[arg-type]
    assert found["heads"] == [], "no cloud of it has ever run"
    return msgspec.convert(found["approvals"], Approvals)


def test_officers_and_the_code_role_are_named_for_code_that_they_signed(fleet: Fleet) -> None:
    assert told(fleet) == Approvals()
    allow_code(fleet, CODE, "pumps")
    found = told(fleet)
    assert [(each.node, each.by, each.signed_by) for each in found.code] == [
        ("edge-1", ["officer"], ["officer"]),
        ("edge-2", ["officer"], ["officer"]),
    ]
    assert found.code[0].serial == read_policy(fleet.folder / "edge-1" / "policy.toml").serial
    assert found.code_role
    assert (found.code_role.threshold, len(found.code_role.signed_by)) == (1, 1)


def test_a_policy_that_was_changed_after_it_was_signed_names_nobody_who_signed(fleet: Fleet) -> None:
    allow_code(fleet, CODE, "pumps")
    file = fleet.folder / "edge-1" / "policy.toml"
    file.write_text(file.read_text().replace("serial = ", "serial = 9"))
    first, second = told(fleet).code
    assert (first.serial, first.signed_by) == (92, [])
    assert second.signed_by == ["officer"]
    file.write_text("broken")
    assert [each.node for each in told(fleet).code] == ["edge-2"]


def test_a_code_list_with_too_few_signatures_vouches_for_nothing(fleet: Fleet) -> None:
    allow_code(fleet, CODE, "pumps")
    listed = max((fleet.folder / "trust" / "public").glob("*.code.json"))
    listed.write_bytes(re.sub(rb'"sig": ?"[0-9a-f]{2}', b'"sig":"00', listed.read_bytes()))
    assert told(fleet).code_role is None


def test_nodes_whose_policy_is_elsewhere_are_said_to_be_unseen(fleet: Fleet) -> None:
    far = Fleet("far", fleet.folder, (), {"fog-9": ("edge-8", "edge-9")})
    assert told(far) == Approvals(unseen=["edge-8", "edge-9"])


def test_two_people_are_named_for_exactly_this_run(fleet: Fleet) -> None:
    found = told(fleet, Cloud({**PROPOSAL, "digest": "0" * 64}, PROPOSAL)).run
    assert found
    assert (found.asked_by, found.approved_by, found.proposal) == ("ida", "noor", "c0ffee")
    for other in ({"digest": "0" * 64}, {"decided": "rejected"}, {"decided": ""}, {"action": "runs.stop"}):
        assert told(fleet, Cloud({**PROPOSAL, **other})).run is None
    assert told(fleet, Away()).run is None


def test_the_data_of_a_run_are_what_its_nodes_told_last() -> None:
    def event(what: str, node: str = "cloud", **fields: Any) -> dict[str, Any]:
        return {"what": what, "node": node, "fields": fields}

    timeline = [
        event("data", "a", fingerprint="f1" * 32, files=3, bytes=9, rows=7),
        event("data", "a", fingerprint="f2" * 32, files=4, bytes=10),
        event("round", members="a=81, b=40"),
        event("round", members="a=82"),
        event("contract", "c", version=1),
    ]
    found = msgspec.convert(data_windows(timeline), list[DataLine])
    assert found == [DataLine("a", 82, "f2" * 32, 4, 10, 7), DataLine("b", 40)]
    assert data_windows([]) == []
