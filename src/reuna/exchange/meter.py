"""What left, added up by link and kind; and the flow control of simulations, which only counts."""

from __future__ import annotations

from collections.abc import Iterable

from reuna.core.records import Flow, Rehearsal, Said, Terms, Work
from reuna.exchange.flows import REPEATS, Passage
from reuna.exchange.intents import Leaving
from reuna.trust.foretell import Ahead
from reuna.trust.ledger import Entry


class CountedFlows:
    """`FlowControl` where no policy is: all may leave, and the bytes are counted."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.lines: list[Flow] = []
        self._left: set[tuple[str, str, str]] = set()

    def leave(self, *payloads: Leaving) -> Passage:
        for each in payloads:
            known = (each.request.kind, each.payload, each.plan)
            if each.request.kind not in REPEATS and known in self._left:
                continue
            self._left.add(known)
            self.lines.append(flow(self.node, each.request.to, each.request.kind, each.request.bytes))
        return ()

    def arrived(self, passage: Passage, outcome: str) -> None:
        """Nothing is written down."""

    def stayed(self, payload: Leaving) -> None:
        """Not counted after all."""
        request = payload.request
        self.lines.remove(flow(self.node, request.to, request.kind, request.bytes))

    def moment(self, size: int, to: str, work: Work | None = None, unsigned: str = "") -> Terms | None:
        """At any time."""
        return None if work is None else Terms()

    def glance(self, size: int, to: str, work: Work | None = None, unsigned: str = "") -> Terms | None:
        """As soon."""
        return self.moment(size, to, work, unsigned)

    def mark(self) -> str:
        """Nothing ever changes."""
        return ""

    def approved(self, work: Work, unsigned: str) -> Terms:
        """Any bundle, in any sandbox, may read all there is."""
        return Terms()

    def rehearse(self, ahead: Ahead) -> Rehearsal:
        """Yes to everything."""
        kinds = ("code", "data", *(each.kind for each in ahead.requests))
        return Rehearsal(tuple(map(Said, kinds)))

    def listed(self, kind: str, to: str, names: Iterable[str]) -> frozenset[str]:
        """All of them."""
        return frozenset(names)

    def least_cell(self, kind: str, to: str) -> int:
        """Any."""
        return 0


def flow(node: str, to: str, kind: str, payload_bytes: int, messages: int = 1) -> Flow:
    """Payloads over the link from a node to the name at the end of an identity, or to a sink's address."""
    end = to.rpartition("/")[2] if to.startswith("spiffe://") else to
    return Flow(f"{node} → {end}", kind, payload_bytes, messages)


def left(node: str, entries: Iterable[Entry]) -> list[Flow]:
    """What left a node, by its ledger's settled entries."""
    sent = (entry for entry in entries if entry.kind == "intent")
    return [flow(node, e.to, e.flow, e.payload_bytes, e.messages or 1) for e in sent]


def total(flows: Iterable[Flow]) -> list[Flow]:
    """One flow for each link and kind, sorted."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for each in flows:
        size, messages = sums.get((each.link, each.kind), (0, 0))
        sums[each.link, each.kind] = (size + each.payload_bytes, messages + each.messages)
    return [Flow(link, kind, *counts) for (link, kind), counts in sorted(sums.items())]
