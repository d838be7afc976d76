"""A second person's word on what somebody proposed at the cloud, from the side of whoever waits for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from reuna.core.errors import NotReleased
from reuna.core.records import ReleaseAsked
from reuna.fleet.client import Operator

POLL_S = 0.5
MAKE = "releases.make"  #: action of a proposal that asks for a release


async def decided(operator: Operator, id: str) -> dict[str, Any]:
    """The proposal once somebody has decided it, or nobody can any more."""
    while True:
        found = await asyncio.to_thread(operator.proposals)
        proposal = next(each for each in found if each["id"] == id)
        if not proposal["waiting"]:
            return proposal
        await asyncio.sleep(POLL_S)


def is_yes(proposal: dict[str, Any]) -> bool:
    """Whether a second person agreed."""
    return bool(proposal["decided"] == "approved")


def is_about(summary: str, project: str, run: str) -> bool:
    """Whether a proposal's summary (`ReleaseAsked.summary`) is of a release of that run."""
    return summary.startswith(f"release {project} ") and f" of {run}, " in summary


def verdict(proposal: dict[str, Any]) -> str:
    """What became of a proposal that nobody agreed to, for people."""
    by = proposal["decided_by"]
    return f"proposal {proposal['id']} " + (f"was rejected by {by}" if by else "was not decided in time")


def approve_release(
    operator: Operator, asked: ReleaseAsked, wait_s: float, tell: Callable[[str], None]
) -> dict[str, Any]:
    """A second person's yes to exactly this release; asked for once, however often this is called.

    ``tell`` hears the proposal's id when it has to wait. Raises `NotReleased`: nobody agreed within
    ``wait_s`` seconds, or somebody said no.
    """
    digest = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
    known = [p for p in operator.proposals() if (p["action"], p["digest"]) == (MAKE, digest)]
    found = next((p for p in known if is_yes(p) or p["waiting"] or p["decided"]), None)
    if found is None or found["waiting"]:
        number = found["id"] if found else operator.propose_release(asked)
        tell(number)
        found = asyncio.run(_within(operator, number, wait_s))
        if found is None:
            raise NotReleased(
                f"{asked.project} {asked.version} waits for a second person",
                f"Somebody else: `reuna proposals approve {number}`. Then this command again.",
            )
    if not is_yes(found):
        raise NotReleased(f"{asked.project} {asked.version}: {verdict(found)}", "Ask them what is wrong.")
    return found


async def _within(operator: Operator, id: str, wait_s: float) -> dict[str, Any] | None:
    """The decided proposal; None when it still waits after so many seconds."""
    try:
        return await asyncio.wait_for(decided(operator, id), wait_s)
    except TimeoutError:
        return None
