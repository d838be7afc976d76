"""What the cloud says of the gates of a run of a build: at every site, from what nodes measured; no more."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reuna.cloud.release import CHAMPION, judged
from reuna.core.errors import BlobNotFound
from reuna.core.records import RunSpec
from reuna.wire.build import NEEDED, PLAN, canonical, encode, sha256

SPEC = RunSpec(
    "r-1", "pumps", "t", "all", 3, "fedavg", {"north": ("e1", "e2"), "south": ("e3",)}, "ab" * 32, 72, 10,
    "cd" * 32, 5,
)  # fmt: skip
OUTCOME = {"model": "ef" * 32, "federated": {"e1": {"all": 0.9}, "e2": {"all": 0.7}, "e3": {"all": 0.85}}}


class Builds:
    """One build, with these gates in its plan."""

    def __init__(self, *gates: tuple[str, str, float], **more: Any) -> None:
        told = [dict(zip(("metric", "limit", "bound"), each, strict=True)) for each in gates]
        parts = dict.fromkeys(NEEDED, b"{}\n") | {PLAN: canonical({"name": "pumps", "gates": told, **more})}
        self.data = encode("pumps", parts)
        self.digest = sha256(self.data)

    def get(self, digest: str) -> bytes:
        if digest != self.digest:
            raise BlobNotFound(f"no build {digest[:12]}")
        return self.data


def told(builds: Builds, enrolled: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    spec = msgspec.structs.replace(SPEC, **{"build": builds.digest, **more})
    return judged(spec, OUTCOME, [], enrolled or {}, builds)


def test_on_one_machine_each_edge_is_a_site_and_the_worst_decides() -> None:
    found = told(Builds(("all", "min", 0.75)))
    assert (found["decision"], found["worst"]["site"], found["worst"]["value"]) == ("fail", "e2", 0.7)
    assert [each["site"] for each in found["verdicts"]] == ["e1", "e2", "e3"]


def test_edges_that_enrolled_at_a_site_are_judged_together() -> None:
    found = told(Builds(("all", "min", 0.75)), {"e1": "north", "e2": "north", "e3": "south"})
    assert found["decision"] == "pass"
    assert [(each["site"], each["value"]) for each in found["verdicts"]] == [
        ("north", pytest.approx(0.8)),
        ("south", 0.85),
    ]


def test_every_type_of_machine_is_judged_too() -> None:
    found = told(Builds(("all", "min", 0.75), machines={"old": ["e2"]}), {"e1": "n", "e2": "n", "e3": "s"})
    assert (found["decision"], found["worst"]["machines"]) == ("fail", "old")


def test_what_compares_with_the_champion_is_left_to_where_that_is_known() -> None:
    both = told(Builds(("all", "min", 0.5), ("all", "max_drop", 0.02)))
    assert (both["decision"], both["left"]) == ("pass", ["all max_drop"])
    alone = told(Builds(("all", "max_drop", 0.02)))
    assert (alone["decision"], alone["why"], alone["left"]) == ("open", CHAMPION, ["all max_drop"])


def test_a_build_without_gates_has_no_judgement() -> None:
    assert told(Builds()) == {}


def test_a_build_that_cannot_be_read_ends_no_run() -> None:
    gone = told(Builds(("all", "min", 0.5)), build="0" * 64)
    assert (gone["decision"], gone["why"]) == ("open", f"{BlobNotFound.code} no build 000000000000")
    broken = Builds(gates=[7])
    assert told(broken)["decision"] == "open"


def test_an_edge_that_was_not_heard_leaves_the_gate_open() -> None:
    builds = Builds(("all", "min", 0.5))
    spec = msgspec.structs.replace(SPEC, build=builds.digest)
    outcome = {**OUTCOME, "federated": {"e1": {"all": 0.9}, "e2": {"absent": "R1 x"}}}
    found = judged(spec, outcome, [], {}, builds)
    assert (found["decision"], found["worst"]["why"]) == ("open", "nothing was heard")
