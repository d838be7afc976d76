"""What nodes say of their data beside what they said in an earlier run: only what all of them say again is the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import ABSENCES
from reuna.core.fingerprint import Window, as_fields
from reuna.core.readiness import needs_of
from reuna.core.records import Event, Member, RunSpec, Said
from reuna.exchange.encode import schema_of
from reuna.fleet import same
from reuna.fleet.client import Operator
from reuna.fleet.same import Told, ask, compare, found_in, question, schema_in, told_of, why_not
from reuna.loop import train
from reuna.sim.faults import Walker, fleet_of
from reuna.sim.fleet import make_spec
from reuna.sim.storage import MemoryBlob
from reuna.wire import digest_bytes
from tests.finished import finished
from tests.unit.fleet.test_unchanged import INPUTS, closed

SPEC, MODEL, _ = make_spec(fleet_of(1, 2), Walker(), 1)
YES = tuple(map(Said, ("code", "data", "model_update", "metric", "statistic", "contract")))
FAR = msgspec.structs.replace(INPUTS, data={}, rules={})
marks = st.sampled_from(["1" * 64, "2" * 64])


def event(node: str, told: Told, run: str = "r-1") -> dict[str, Any]:
    fields = as_fields(Window(told.fingerprint, 1, 9, told.setup), 90)
    return {"what": "data", "node": node, "run": run, "round": 1, "at": 1.0, "fields": fields}


def result(told: dict[str, Told], *more: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """Of a run in which nodes told that of their data."""
    timeline = [*(event(node, each) for node, each in told.items()), *more, closed(1), closed(2)]
    plain = {"timeline": timeline, "model_digest": digest_bytes(MODEL), "asked": msgspec.to_builtins(SPEC)}
    return finished(**{**plain, "inputs": msgspec.to_builtins(FAR), **parts})


A, B = Told("a" * 64, "5" * 64), Told("b" * 64, "5" * 64)
HAD = {"pump-1": A, "pump-2": B}


# --- comparing ----------------------------------------------------------------------------------------

windows = st.builds(Told, marks, marks)
told = st.dictionaries(st.sampled_from(["a", "b", "c"]), windows, min_size=1)


@given(told, told)
def test_only_what_every_node_says_again_is_the_same(had: dict[str, Told], now: dict[str, Told]) -> None:
    found = compare(result(had), now)
    assert found.same == (had == now)
    assert bool(found.sentence) != found.same
    differ = {node for node in had.keys() | now.keys() if had.get(node) != now.get(node)}
    assert all(node in found.sentence for node in differ)


@given(told, st.sampled_from(["it is away", "its policy keeps it"]))
def test_a_node_that_says_nothing_is_not_the_same_and_is_named_with_why(
    had: dict[str, Told], why: str
) -> None:
    silent = min(had)
    found = compare(result(had), {**had, silent: Told(why=why)})
    assert not found.same
    assert found.sentence == f"{silent} is not known: {why}"
    without = {node: each for node, each in had.items() if node != silent}
    assert compare(result(had), without).sentence == f"{silent} is not known: nobody asked it"


def test_it_is_said_which_nodes_changed_and_how_many_and_whether_it_was_their_data() -> None:
    other = Told("c" * 64, "5" * 64)
    assert compare(result(HAD), {"pump-1": A, "pump-2": other}).sentence == (
        "the data changed at 1 of 2 nodes: pump-2"
    )
    assert compare(result(HAD), {"pump-1": Told(A.fingerprint, "6" * 64), "pump-2": other}).sentence == (
        "the data changed at 1 of 2 nodes: pump-2; "
        "the packages or the columns that code may read changed at 1 of 2 nodes: pump-1"
    )
    many = {f"pump-{number}": A for number in range(10)}
    said = compare(result(many), dict.fromkeys(many, other)).sentence
    assert said.endswith("pump-6, pump-7 and 2 more")
    assert not compare(result({}), {}).same


# --- what an earlier run has to say -------------------------------------------------------------------


def test_a_node_that_told_of_two_data_in_one_run_told_of_none() -> None:
    assert found_in(result(HAD)) == HAD
    assert found_in(result(HAD, event("pump-2", B))) == HAD, "told twice, after a restart"
    assert found_in(result(HAD, event("pump-2", A))) == {"pump-1": A}
    assert found_in(result({"pump-1": Told(A.fingerprint)})) == {}, "an older version told no setup"


def test_nobody_is_asked_for_a_run_that_cannot_be_the_answer(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(MODEL)
    assert why_not(tmp_path, result(HAD), FAR) == ""
    one = why_not(tmp_path, result({"pump-1": A}), FAR)
    assert one.startswith("it has no fingerprint of the data of pump-2 (")
    assert "no fingerprint" in why_not(tmp_path, result(HAD, asked=None), FAR)
    absent = result(HAD, timeline=[closed(1), closed(2, "pump-2: its disk is full")])
    assert why_not(tmp_path, absent, FAR) == "somebody was absent from it"
    assert why_not(tmp_path / "no", result(HAD), FAR) == "its model is not there any more"
    unknown = msgspec.structs.replace(FAR, packages="")
    assert "not installed here" in why_not(tmp_path, result(HAD), unknown)


# --- what a node says ---------------------------------------------------------------------------------


def said(member: Member, *events: dict[str, Any]) -> str:
    """Why it says nothing of its data; '' when it does."""
    return told_of([member], events)[member.node].why


def but(*words: Said) -> Member:
    names = {each.about for each in words}
    return Member("pump-1", said=(*(each for each in YES if each.about not in names), *words))


def test_a_node_tells_what_it_told_in_the_run() -> None:
    assert told_of([but()], [event("pump-1", A), event("pump-2", B)]) == {"pump-1": A}
    late = but(Said("model_update", "wait", "bytes"))
    assert told_of([late], [event("pump-1", A)]) == {"pump-1": A}, "what may leave tomorrow is no other input"


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (Member("pump-1", absent=train.UNHEARD), "no answer in time: it is away"),
        (Member("pump-1", absent=train.OLDER), "older version"),
        (Member("pump-1", absent=f"R401 {ABSENCES['R401']}"), "its disk is full"),
        (but(Said("statistic", "no", "kind")), "does not let the fingerprint of its data leave [kind]"),
        (but(Said("statistic", "no")), "does not let the fingerprint of its data leave"),
        (but(Said("statistic", "wait", "window")), "does not now let the fingerprint of its data leave"),
        (but(Said("code", "wait", "code-ask")), "waits for an officer's approval [code-ask]"),
        (but(Said("model_update", "no", "kind")), "[kind]"),
        (but(Said("contract", "no", "R114")), "[R114]"),
        (but(), "it told nothing of its data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_that_does_not_say_which_data_it_has_says_why(member: Member, words: str) -> None:
    assert words in said(member)


def test_a_node_that_would_take_no_part_has_not_the_same_although_its_data_are() -> None:
    for each in (Said("code", "no", "stopped"), Said("data", "no", "columns"), Said("metric", "no", "names")):
        assert said(but(each), event("pump-1", A))


# --- asking -------------------------------------------------------------------------------------------


def test_the_question_is_the_run_itself_with_needs_that_ask_for_the_data_alone() -> None:
    own = {"deadline_s": 600.0, "build": "b" * 64, "retries": "r-0", "why": "schedule nightly"}
    had = msgspec.structs.replace(SPEC, **own)
    asked = question(result(HAD, asked=msgspec.to_builtins(had)), "ab")
    needs = needs_of(asked.settings)
    assert (needs.window, needs.modules, needs.schema, needs.metrics) == (True, (), "ab", (SPEC.metric,))
    assert asked.run.startswith("c-")
    assert asked.deadline_s == same.WAIT_S, "nobody waits longer than that for a node that is away"
    assert (asked.build, asked.retries, asked.why) == ("", "", "")
    assert msgspec.structs.replace(asked, run=had.run, settings=had.settings, **own) == had


def test_the_schema_is_that_which_policies_know(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(MODEL)
    assert schema_in(tmp_path / "model.safetensors") == schema_of(MemoryBlob(MODEL, ""))


class Cloud:
    """A cloud whose nodes answer at once, and whose counts come a little later."""

    def __init__(self, members: list[Member], late: int) -> None:
        self.members = members
        self.late = late
        self.spec = SPEC

    def check(self, spec: RunSpec) -> None:
        self.spec = spec

    def checked(self, run: str) -> dict[str, Any]:
        edges = [each.node for each in self.members]
        return {"state": "done", "edges": edges, "members": msgspec.to_builtins(self.members)}

    def timeline(self, run: str, after: int) -> list[dict[str, Any]]:
        self.late -= 1
        assert run == self.spec.run
        told = Event("pump-1", "b", 1, 1.0, "contract", run, 1, {"version": 1})
        return [msgspec.to_builtins(told), *([] if self.late >= 0 else [event("pump-1", A, run)])]


def test_what_comes_on_another_way_is_waited_for_and_of_who_may_not_tell_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(MODEL)
    monkeypatch.setattr(same, "POLL_S", 0.0)
    silent = Member("pump-2", said=(*YES[:4], Said("statistic", "no", "kind")))
    cloud = Cloud([but(), silent], late=3)
    lines: list[str] = []
    operator: Operator = cloud  # type: ignore[assignment]
    found = asyncio.run(ask(operator, tmp_path, result(HAD), lines.append))
    assert found["pump-1"] == A
    assert "[kind]" in found["pump-2"].why
    assert lines == ["2 of 2 edges have answered (at most 60 s)"]
    cloud.late = 0
    monkeypatch.setattr(same, "LATE_S", 0.0)
    assert asyncio.run(ask(operator, tmp_path, result(HAD), lines.append))["pump-1"] == A
