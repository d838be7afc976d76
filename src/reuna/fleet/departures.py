"""What left each node of a fleet, to whom and under which rule, and what was refused: from the ledgers.

And what came down to it, which each node counts beside its ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reuna.adapters.ledger_file import entries, segments
from reuna.core.records import Flow
from reuna.exchange import arrivals
from reuna.exchange.arrivals import ARRIVALS, Counts
from reuna.exchange.meter import left, total
from reuna.fleet.layout import Fleet
from reuna.trust.ledger import Entry, settled

Entries = Mapping[str, Sequence[Entry]]  #: node -> entries of its ledger


def entries_of(fleet: Fleet, since: float) -> dict[str, list[Entry]]:
    """Entries from a time on, seconds since the epoch. Raises `Corrupted`."""
    found = {}
    for place in fleet.places:
        folder = place.folder / "state" / "ledger"
        if segments(folder):
            found[place.name] = [e for e in settled(entries(folder)) if e.time_ms >= 1000 * since]
    return found


def flows(entries: Entries) -> list[Flow]:
    """Payloads by link and kind."""
    return total(flow for node, of_node in entries.items() for flow in left(node, of_node))


def arrived(fleet: Fleet) -> dict[str, Counts]:
    """Node -> what came down to it since it has been there, for places on this machine."""
    files = {place.name: place.folder / "state" / ARRIVALS for place in fleet.places}
    return {name: arrivals.read(file) for name, file in files.items()}


def came(fleet: Fleet, before: Mapping[str, Counts]) -> list[Flow]:
    """Payloads by link and kind, from parent to child, since `arrived` gave ``before``."""
    found = []
    for node, now in sorted(arrived(fleet).items()):
        counts = arrivals.since(before.get(node, {}), now)
        parent = fleet.setting("parent.name", node) if counts else ""
        found += [Flow(f"{parent} → {node}", kind, *count) for kind, count in sorted(counts.items())]
    return found


def rules(entries: Entries) -> list[dict[str, Any]]:
    """Payloads by node, kind, recipient and the rule that allowed them."""
    found = []
    for node, of_node in sorted(entries.items()):
        sent = [entry for entry in of_node if entry.kind == "intent"]
        sizes, counts = Counter[tuple[str, str, str]](), Counter[tuple[str, str, str]]()
        for entry in sent:
            sizes[entry.flow, entry.to, entry.rule] += entry.payload_bytes
            counts[entry.flow, entry.to, entry.rule] += entry.messages or 1
        for (kind, to, rule), messages in sorted(counts.items()):
            size = sizes[kind, to, rule]
            found.append(
                {"node": node, "kind": kind, "to": to, "rule": rule, "bytes": size, "messages": messages}
            )
    return found


def refused(entries: Entries) -> list[dict[str, Any]]:
    """What the sites' policies refused, and why; the same refusal is noted once a minute."""
    counts = Counter(
        (node, entry.flow, entry.to, entry.rule, entry.reason)
        for node, of_node in entries.items()
        for entry in of_node
        if entry.kind == "refused"
    )
    return [
        {"node": node, "kind": kind, "to": to, "rule": rule, "why": why, "noted": noted}
        for (node, kind, to, rule, why), noted in sorted(counts.items())
    ]
