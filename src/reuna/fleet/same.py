"""Whether machines that joined a fleet have the data that an earlier run had: they are asked, nothing trains.

    told = await ask(operator, result, watch)
    found = compare(result, told)
    found.same, found.sentence

The cloud puts the plan of that very run before every node as a check (`reuna.fleet.against`) that asks for
nothing but which data it has. A node tells a fingerprint as it told in the run, under its own key, where its
site's policy lets it leave (`reuna.core.fingerprint`). What is not told is not known, so not the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reuna.core.fingerprint import WHAT
from reuna.core.readiness import ADVICE, Needs, against, as_settings, word_of
from reuna.core.records import Member, RunSpec, Said
from reuna.fleet.against import LATE_S, POLL_S, absent, answers, sentence
from reuna.fleet.client import Operator
from reuna.fleet.result import Inputs
from reuna.fleet.unchanged import had_everybody, is_buffered, is_whole, nodes_of
from reuna.loop.plan import run_id

WAIT_S = 60.0  #: a node has as long to answer as for a round, and at most this
NAMED = 8  #: nodes in one sentence
#: Words that say that a node would take no part, whatever its data are; of others a no does.
FIRST = ("code", "data", "contract")
Watch = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """What a node says of its data: two digests under its own key; or ``why`` it says nothing."""

    fingerprint: str = ""
    setup: str = ""
    why: str = ""


@dataclass(frozen=True)
class Compared:
    """Whether every node has what it had, and if not who has not, or is not known, for people."""

    same: bool
    sentence: str = ""


def found_in(result: Mapping[str, Any]) -> dict[str, Told]:
    """By node what it told in a run. One that told of two data trained on both, and on neither."""
    every: dict[str, set[Told]] = {}
    for event in result["timeline"]:
        if event["what"] == WHAT:
            every.setdefault(event["node"], set()).add(_of(event["fields"]))
    once = {node: next(iter(told)) for node, told in every.items() if len(told) == 1}
    return {node: told for node, told in once.items() if told.fingerprint and told.setup}


def why_not(folder: Path, result: Mapping[str, Any], inputs: Inputs) -> str:
    """Why nothing that nodes say makes this result the answer; '' when they should be asked."""
    lacking = nodes_of(inputs) - (found_in(result).keys() if "asked" in result else set())
    if not inputs.packages:
        return "a package that the code needs is not installed here"
    if is_buffered(result):
        return "its steps were made of the updates that had come, and in another run others come first"
    if not had_everybody(result):
        return "somebody was absent from it"
    if not is_whole(folder, result):
        return "its model is not there any more"
    if lacking:
        return (
            f"it has no fingerprint of the data of {_names(lacking)} (their sites' policies kept it, they "
            "changed in the run, or an older version ran there)"
        )
    return ""


def question(result: Mapping[str, Any], schema: str = "") -> RunSpec:
    """The check that asks every node of a finished run which data it has now."""
    asked = msgspec.convert(result["asked"], RunSpec)
    needs = Needs(metrics=(asked.metric,), schema=schema, window=True)
    return msgspec.structs.replace(
        asked,
        run=run_id(time.time(), secrets.token_hex(2)).replace("r-", "c-", 1),
        settings={**asked.settings, **as_settings(needs)},
        deadline_s=min(asked.deadline_s, WAIT_S),
        build="",
        retries="",
        why="",
    )


async def ask(operator: Operator, folder: Path, result: Mapping[str, Any], watch: Watch) -> dict[str, Told]:
    """What every node of a finished run says of its data now; ``watch`` is told how far it is.

    ``folder`` is the run's. Raises `Unreachable`, `RunFailed`, and what else the cloud refuses a check with.
    """
    spec = question(result, await asyncio.to_thread(schema_in, folder / "model.safetensors"))
    await asyncio.to_thread(operator.check, spec)
    members = await answers(operator, spec, spec.deadline_s, watch)
    telling = {
        each.node for each in members if not _stands(each) and word_of(each.said, "statistic") == "yes"
    }
    events = await _events(operator, spec.run, telling)
    return told_of(members, events)


async def _events(operator: Operator, run: str, telling: set[str]) -> list[dict[str, Any]]:
    """The timeline, once it has the word of each node that may tell; they come on another way."""
    deadline = time.monotonic() + LATE_S
    while True:
        events = await asyncio.to_thread(operator.timeline, run, 0)
        if telling <= {event["node"] for event in events if event["what"] == WHAT}:
            return events
        if time.monotonic() > deadline:
            return events
        await asyncio.sleep(POLL_S)


def schema_in(model: Path) -> str:
    """SHA-256 of the names and shapes of a model's tensors, as policies know it."""
    with model.open("rb") as file:
        head = file.read(8)
        return hashlib.sha256(head + file.read(int.from_bytes(head, "little"))).hexdigest()


def told_of(members: Iterable[Member], events: Iterable[Mapping[str, Any]]) -> dict[str, Told]:
    """By node what it says of its data, of those that were asked."""
    fields = {event["node"]: event["fields"] for event in events if event["what"] == WHAT}
    return {each.node: _told(each, fields.get(each.node)) for each in members}


def _told(member: Member, fields: Mapping[str, Any] | None) -> Told:
    if reason := absent(member):
        return Told(why=reason)
    if stands := _stands(member):
        return Told(why="; ".join(map(_worded, stands)))
    if word_of(member.said, "statistic") != "yes":
        refused = next((each for each in member.said if each.about == "statistic"), Said("statistic", "no"))
        when = "does not let" if refused.word == "no" else "does not now let"
        why = f" [{refused.why}]" if refused.why else ""
        return Told(why=f"its site's policy {when} the fingerprint of its data leave{why}")
    if fields is None:
        return Told(why="it told nothing of its data: it runs an older version of Reuna, or the line was cut")
    return _of(fields)


def _stands(member: Member) -> list[Said]:
    """Why it would take no part in such a run. What may only leave later is no other input."""
    return [
        each
        for each in against(member.said)
        if each.about not in ADVICE and (each.word == "no" or each.about in FIRST)
    ]


def _worded(said: Said) -> str:
    return f"{sentence(said)} [{said.why}]" if said.why else sentence(said)


def _of(fields: Mapping[str, Any]) -> Told:
    return Told(str(fields.get("fingerprint", "")), str(fields.get("setup", "")))


# --- comparing --------------------------------------------------------------------------------------


def compare(result: Mapping[str, Any], told: Mapping[str, Told]) -> Compared:
    """What nodes say now beside what they said in a finished run. Same only if every node said the same."""
    had = found_in(result)
    nodes = sorted(had.keys() | told.keys())
    silent = [node for node in nodes if not told.get(node, Told()).fingerprint]
    changed = [node for node in nodes if node in told and node not in silent and told[node] != had.get(node)]
    data = [node for node in changed if node not in had or told[node].fingerprint != had[node].fingerprint]
    setup = sorted(set(changed) - set(data))
    if nodes and not silent and not changed:
        return Compared(True)
    parts = []
    if data:
        parts.append(f"the data changed at {_of_all(data, nodes)}")
    if setup:
        parts.append(f"the packages or the columns that code may read changed at {_of_all(setup, nodes)}")
    parts += [
        f"{node} is not known: {told[node].why if node in told else 'nobody asked it'}" for node in silent
    ]
    return Compared(False, "; ".join(parts) or "it had no nodes")


def _of_all(some: list[str], every: list[str]) -> str:
    return f"{len(some)} of {len(every)} nodes: {_names(some)}"


def _names(nodes: Iterable[str]) -> str:
    names = sorted(nodes)
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
