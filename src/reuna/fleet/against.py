"""Asks a running fleet whether it is ready for a project, before anything is trained.

    found = await ask(fleet, operator, project, settings, wait_s, watch)
    found["ready"], found["edges"][0]["said"]

The cloud puts one signed plan of the task ``check`` before every node; each answers by its own policy, data
and machine (`reuna.edge.ready`). Nothing is signed here: code that nobody has approved is said to wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.installed import modules_of
from reuna.adapters.project import read_code
from reuna.core.contract import contract
from reuna.core.contract_report import contract_reports
from reuna.core.errors import ABSENCES, RunFailed, Unreachable
from reuna.core.gates import CONTRACT
from reuna.core.project import ProjectSettings
from reuna.core.readiness import ABOUT, LOWER_BOUND, Needs, against, as_settings, word_of
from reuna.core.records import UNHEARD, Member, RunSpec, Said
from reuna.fleet.client import Operator
from reuna.fleet.code import is_own
from reuna.fleet.layout import Fleet
from reuna.fleet.session import Job, described, nodes_of
from reuna.loop.plan import run_id
from reuna.loop.train import OLDER
from reuna.trust.requests import REASONS

POLL_S = 0.2
LATE_S = 3.0  #: for counts that come after the words, on another way
QUEUE_S = 600.0  #: how long a check waits for a round of a run to end
Watch = Callable[[str], None]


async def ask(
    fleet: Fleet,
    operator: Operator,
    project: Path,
    settings: ProjectSettings,
    wait_s: float,
    watch: Watch,
) -> dict[str, Any]:
    """What every node says; ``watch`` is told of each step in a sentence.

    ``wait_s``: how long nodes may take. Raises `ProjectError`, `Unreachable`, `RunFailed`.
    """
    job = Job(project, settings, nodes_of(fleet), Path())
    spec, bundle = await asyncio.to_thread(prepared, job, fleet, wait_s)
    await asyncio.to_thread(operator.put_blob, bundle)
    await asyncio.to_thread(operator.check, spec)
    members = await answers(operator, spec, wait_s, watch)
    events = await _counts(operator, spec, members)
    sites = {node.name: node.site for node in job.nodes}
    return report(spec, members, sites, contract_reports(events, contract(spec.settings)))


def prepared(job: Job, fleet: Fleet, wait_s: float) -> tuple[RunSpec, bytes]:
    """The run that is asked about, and its code. Raises `ProjectError`."""
    name = run_id(time.time(), secrets.token_hex(2)).replace("r-", "c-", 1)
    spec, (bundle, model) = described(job, fleet, name)
    gated = {each.metric for each in job.settings.gates} - {CONTRACT}
    header = model[: int.from_bytes(model[:8], "little") + 8]
    needs = Needs(
        modules_of(read_code(job.project)),
        tuple(sorted({job.settings.metric, *gated})),
        hashlib.sha256(header).hexdigest(),
    )
    settings = {**spec.settings, **as_settings(needs)}
    return msgspec.structs.replace(spec, settings=settings, deadline_s=wait_s), bundle


async def answers(operator: Operator, spec: RunSpec, wait_s: float, watch: Watch) -> list[Member]:
    """Until every node has answered or the time is over. Raises `RunFailed`, `Unreachable`."""
    began, said = time.monotonic(), ""
    while True:
        found = await asyncio.to_thread(operator.checked, spec.run)
        if (now := _progress(found, wait_s)) != said:
            watch(said := now)
        if found["state"] == "done":
            return msgspec.convert(found["members"], list[Member])
        if found["state"] == "failed":
            raise RunFailed(f"the check failed: {found.get('message', 'no reason given')}", "Ask again.")
        if found["state"] == "queued" and time.monotonic() - began > QUEUE_S:
            raise Unreachable(
                f"the check has waited for its turn for {QUEUE_S:g} s: a round of a run goes on",
                "Ask again when it has ended.",
            )
        await asyncio.sleep(POLL_S)


def _progress(found: Mapping[str, Any], wait_s: float) -> str:
    if found["state"] == "queued":
        return "waits for its turn among the rounds of runs"
    answered = sum(each.get("absent") != UNHEARD for each in found["members"])
    edges = len(found["edges"])
    return f"{answered} of {edges} edges have answered (at most {wait_s:g} s)"


async def _counts(operator: Operator, spec: RunSpec, members: list[Member]) -> list[dict[str, Any]]:
    """The timeline, once it has the counts of each node that looked at its data and may tell them."""
    telling = {each.node for each in members if _tells(each)} if contract(spec.settings).looks else set()
    deadline = time.monotonic() + LATE_S
    while True:
        events = await asyncio.to_thread(operator.timeline, spec.run, 0)
        if telling <= {event["node"] for event in events} or time.monotonic() > deadline:
            return events
        await asyncio.sleep(POLL_S)


def _tells(member: Member) -> bool:
    looked = any(each.about == "contract" and each.why in ("", "R114") for each in member.said)
    return looked and word_of(member.said, "statistic") == "yes"


# --- the answers, for people and scripts ------------------------------------------------------------


def report(
    spec: RunSpec, members: list[Member], sites: Mapping[str, str], counts: list[dict[str, Any]]
) -> dict[str, Any]:
    """What `reuna check --against --json` prints."""
    by_node = {each["node"]: each for each in counts}
    edges = [_edge(each, sites.get(each.node, each.node), by_node.get(each.node)) for each in members]
    return {
        "check": spec.run,
        "project": spec.project,
        "code": spec.bundle,
        "params": spec.params,
        "ready": bool(edges) and all(each["ready"] for each in edges),
        "edges": edges,
    }


def _edge(member: Member, site: str, counts: dict[str, Any] | None) -> dict[str, Any]:
    stands = against(member.said)
    return {
        "node": member.node,
        "site": site,
        "ready": not (member.absent or stands or not member.said),
        "absent": absent(member),
        "said": [{"about": x.about, "word": x.word, "why": x.why, "means": sentence(x)} for x in member.said],
        "contract": counts,
        **member.metrics,
    }


def absent(member: Member) -> str:
    """Why a node said nothing, for people."""
    if member.absent == UNHEARD:
        return "no answer in time: it is away, its policy lets nothing leave now, or it runs an older version"
    if member.absent == OLDER:
        return "it runs an older version of Reuna, which knows no checks: upgrade it"
    if not (member.absent or member.said):
        return "its fog runs an older version of Reuna, which passes no answers on: upgrade it"
    return member.absent


def sentence(said: Said) -> str:
    """What a word means, for people; '' for a plain yes.

    >>> sentence(Said("code", "wait", "code-ask"))
    "the code waits for an officer's approval"
    >>> sentence(Said("libraries", "no", "torch"))
    'torch is not installed'
    """
    if said.about == "libraries" and said.why:
        return f"{said.why} is not installed" if said.word == "no" else f"{said.why} has another version"
    if said.why == LOWER_BOUND and said.word != "yes":
        return f"{ABOUT[said.about]}, even before the code is loaded"
    if said.why == LOWER_BOUND:
        return "the code was not loaded, so that what it needs itself is not counted"
    if said.why in REASONS:
        return REASONS[said.why].replace("the code that made it", "the code")
    return ABSENCES.get(said.why, "") or ("" if said.word == "yes" else ABOUT[said.about])


def cell(edge: Mapping[str, Any], about: str) -> str:
    """One cell of the table: yes, waits, no, or a dash where nothing was said."""
    words = [each["word"] for each in edge["said"] if each["about"] == about]
    if not words:
        return "–"
    return "no" if "no" in words else "waits" if "wait" in words else "yes"


def signs_itself(fleet: Fleet, found: Mapping[str, Any]) -> bool:
    """Whether code that waits is approved by `reuna run` itself, because all keys of the fleet lie here."""
    waits = any(x["about"] == "code" and x["word"] == "wait" for edge in found["edges"] for x in edge["said"])
    return waits and bool(fleet.of("cloud")) and is_own(fleet)


def smallest(edges: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The node with the least memory to spare, of those that say."""
    known = [each for each in edges if "memory_free_mib" in each and "memory_needed_mib" in each]
    return min(known, key=lambda each: each["memory_free_mib"] - each["memory_needed_mib"], default=None)
