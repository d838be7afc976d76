"""What the cloud keeps of the ledgers of a fleet's nodes, for auditors: heads, keys, a new beginning."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from reuna.adapters.head_store import HeadStore, Kept
from reuna.cloud.files import HEADS
from reuna.core.errors import LedgerProblem
from reuna.exchange.storage import tables_of
from reuna.fleet.trail import Trail
from reuna.trust.heads import countersigner


def heads(settings: Mapping[str, Any], node: str = "") -> list[dict[str, Any]]:
    """Countersigned heads, the oldest first. Raises `LedgerProblem` when there are none, `Corrupted`."""
    return [
        {
            "node": kept.node,
            "ledger": kept.ledger,
            "seq": kept.seq,
            "at": kept.at,
            "countersignature": kept.countersignature.hex(),
        }
        for kept in _kept(settings, node)
    ]


def keys(settings: Mapping[str, Any], node: str = "") -> list[dict[str, str]]:
    """Public keys that signed and countersigned them: who (``node`` or ``cloud``), key, name."""
    found: dict[tuple[str, str], str] = {}
    for kept in _kept(settings, node):
        found.setdefault(("cloud", countersigner(kept.countersignature).hex()), "")
        found.setdefault(("node", kept.key.hex()), kept.node)
    return [{"who": who, "key": key, "name": name} for (who, key), name in found.items()]


def release(settings: Mapping[str, Any], node: str) -> int:
    """Let a node begin another ledger; how many it had. Raises `LedgerProblem`, `Corrupted`."""
    with Trail.of_place(settings).doing("ledger.release", node):
        identities = {kept.node for kept in _kept(settings, node)}
        with closing(HeadStore(tables_of(settings, HEADS))) as store:
            return sum(store.release(identity) for identity in identities)


def _kept(settings: Mapping[str, Any], node: str) -> list[Kept]:
    at = tables_of(settings, HEADS)
    where = at if isinstance(at, Path) else at.where
    if isinstance(at, Path) and not at.exists():
        raise LedgerProblem(f"no countersigned heads in {at}", "Name the cloud's settings.")
    with closing(HeadStore(at)) as store:
        found = [kept for kept in store.every() if not node or node in {kept.node, _name(kept)}]
    if not found:
        raise LedgerProblem(f"no countersigned head of {node or 'any node'} in {where}", "Name another node.")
    return found


def _name(kept: Kept) -> str:
    return kept.node.rpartition("/")[2]
