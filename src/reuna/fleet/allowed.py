"""Who approved a run and its code, and how far the ledgers of its nodes reached, when it ended.

Seen from where the run was begun: the policies of this machine's nodes, the list of the fleet's code
role, the proposals of its cloud. What lies on other machines alone is said to be unseen, never made up.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.head_store import HeadStore, Kept
from reuna.adapters.policy_store import read_policy, read_signatures
from reuna.adapters.tuf_repository import TufRepository
from reuna.cloud.files import HEADS
from reuna.core.errors import ReunaError
from reuna.core.records import RunSpec
from reuna.fleet.client import Operator
from reuna.fleet.code import is_vouched
from reuna.fleet.layout import Fleet, PlaceFile
from reuna.trust import publish
from reuna.trust.policy_sign import is_signed

SUBMIT = "runs.submit"


def of_run(fleet: Fleet, operator: Operator, spec: RunSpec) -> dict[str, Any]:
    """``approvals`` and ``heads`` of a run's result."""
    here = sorted(fleet.of("edge"), key=lambda place: place.name)
    joined = sorted(edge for edges in fleet.joined.values() for edge in edges)
    approvals: dict[str, Any] = {
        "code": [found for place in here if (found := _at_node(place, spec.bundle))],
        "unseen": joined,
    }
    more = {"code_role": _by_role(fleet, spec.bundle), "run": _by_people(operator, spec)}
    told = {name: found for name, found in more.items() if found is not None}
    return {"approvals": {**approvals, **told}, "heads": heads_of(fleet)}


def heads_of(fleet: Fleet) -> list[dict[str, Any]]:
    """The newest countersigned head of each node, where the fleet's cloud is on this machine."""
    return [each for place in fleet.of("cloud") for each in newest_heads(place.folder / "state" / HEADS)]


def newest_heads(file: Path) -> list[dict[str, Any]]:
    """The same of a cloud's store of heads; none without such a file. Raises `Corrupted`, `NotUsable`."""
    if not file.is_file():
        return []
    with closing(HeadStore(file)) as store:
        newest: dict[str, Kept] = {kept.node: kept for kept in store.every()}
    return [
        {
            "node": kept.node,
            "ledger": kept.ledger,
            "seq": kept.seq,
            "at": kept.at,
            "key": kept.key.hex(),
            "countersignature": kept.countersignature.hex(),
        }
        for _, kept in sorted(newest.items())
    ]


def _at_node(place: PlaceFile, code: str) -> dict[str, Any] | None:
    """What a node's policy says of the code; None when it does not name it."""
    file = place.folder / "policy.toml"
    try:
        policy, signatures = read_policy(file), read_signatures(file)
    except ReunaError:
        return None
    entry = next((each for each in policy.code.allow if each.digest == code), None)
    if entry is None:
        return None
    names = {public: name for name, public in policy.signers.keys.items()}
    signed = [names[each.key] for each in signatures if each.key in names and is_signed(policy, each)]
    return {
        "node": place.name,
        "by": list(entry.approved_by),
        "until": entry.until.isoformat(),
        "site": policy.site,
        "serial": policy.serial,
        "signed_by": sorted(signed),
    }


def _by_role(fleet: Fleet, code: str) -> dict[str, Any] | None:
    """The code role's list, where it is here, names the code and has enough signatures."""
    if not fleet.of("cloud"):
        return None
    trust = Path(fleet.setting("trust"))
    try:
        repository = TufRepository(trust / "public")
        listed, above = repository.newest("code"), repository.newest("targets")
        if not is_vouched(trust, code) or publish.lacking("code", listed, above):
            return None
        ring = publish.rings("targets", above)["code"]
    except ReunaError:
        return None
    named = {publish.key_of(public).keyid for public in ring.keys}
    return {
        "version": repository.version("code"),
        "threshold": ring.threshold,
        "signed_by": sorted(named & publish.signatures("code", listed)),
    }


def _by_people(operator: Operator, spec: RunSpec) -> dict[str, Any] | None:
    """The proposal of exactly this run that a second person allowed, if two were asked for."""
    asked = hashlib.sha256(msgspec.json.encode(spec)).hexdigest()
    try:
        proposals = operator.proposals()
    except ReunaError:
        return None
    for each in proposals:
        if (each["action"], each["digest"], each["decided"]) == (SUBMIT, asked, "approved"):
            return {
                "proposal": each["id"],
                "digest": each["digest"],
                "asked_by": each["by"],
                "asked_at": each["at"],
                "approved_by": each["decided_by"],
                "approved_at": each["decided_at"],
            }
    return None
