"""The site's part of an egress: its policy in force and its ledger, from the node's disk."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import NamedTuple

from reuna.adapters.ledger_file import LedgerFile, entries
from reuna.adapters.policy_store import InForce, PolicyStore, is_stopped
from reuna.adapters.trust_keys import new_key, read_key, write_key
from reuna.core.ports import Clock
from reuna.exchange.flows import SiteFlows
from reuna.exchange.heads import News
from reuna.exchange.intents import Standing
from reuna.exchange.link import EgressSettings
from reuna.exchange.resume import Resumer, resume
from reuna.trust.heads import Signer
from reuna.trust.publish import PrivateKey

log = logging.getLogger("reuna.egress")
LOOK_S = 60.0  #: files that did not change are judged again after so long: days pass


class Site(NamedTuple):
    """Flow control of a node, its policy, its ledger and what is news in it, the ledger's public key."""

    flows: SiteFlows
    rules: Rules
    news: News
    key: bytes
    resumer: Resumer

    def targets(self, now: float) -> tuple[str, ...]:
        """Where the policy in force wants the ledger's records."""
        policy = self.rules(now).policy
        return policy.ledger.heads_to if policy else ()


def open_site(settings: EgressSettings, folder: Path, clock: Clock) -> Site:
    """Open, or begin, what a node needs to let anything leave.

    The ledger names the site of the policy, before there is one that of the node's certificate.
    Raises `LedgerProblem`, `Corrupted`, `KeyProblem`, `DiskFull`.
    """
    store = PolicyStore(Path(settings.policy), folder / "policy")
    _, certified = settings.bus  # the gateway of the site: an edge's fog, a fog's own
    signer = Signer(store.site() or certified, settings.name, ledger_key(folder / "ledger.key"))
    known, rules = resume(folder / "ledger", signer.public), Rules(store)
    mark = known.mark if known else None
    past = list(entries(folder / "ledger", mark.place if mark else None))
    news = News(LedgerFile(folder / "ledger", signer, clock, since=mark), clock)
    memory = known.memory if known else None
    flows = SiteFlows(news, rules, clock, past, memory, settings.dataset, rules.at_hand)
    return Site(
        flows, rules, news, signer.public, Resumer(folder / "ledger", news.ledger, flows, signer.private)
    )


def ledger_key(path: Path) -> PrivateKey:
    """What this node signs its ledger with; made once, never leaves."""
    if not path.exists():
        write_key(path, new_key(), None)
    return read_key(path, None)


class Rules:
    """The policy in force; files and the kill switch are looked at each time."""

    def __init__(self, store: PolicyStore) -> None:
        self._store = store
        self._seen: object = None
        self._lock = threading.Lock()
        self._looked = -LOOK_S
        self._found = InForce(None)

    def __call__(self, now: float) -> Standing:
        """See `reuna.exchange.flows.Rules`. Raises `Corrupted`, `DiskFull`."""
        with self._lock:
            seen = self._store.version()
            if seen != self._seen or not 0 <= now - self._looked < LOOK_S:
                before, self._found = self._found, self._store.load(now)
                self._looked, self._seen = now, seen
                self._tell(before)
            return _standing(self._found)

    def at_hand(self, now: float) -> Standing | None:
        """The same, unless files are to be read for that: it waits for nobody who reads them."""
        found = self._found  # what is found is kept before it counts as seen
        seen = self._store.version() == self._seen and 0 <= now - self._looked < LOOK_S
        return _standing(found) if seen and found is self._found else None

    def _tell(self, before: InForce) -> None:
        """Say in the node's log when another policy is in force, or a new one is not accepted."""
        found = self._found
        if found.policy is not None and found.digest != before.digest:
            by = ", ".join(found.signed_by)
            log.info("policy %d of %s is in force, signed by %s", found.policy.serial, found.policy.site, by)
        if found.problem not in ("", before.problem):
            log.warning("%s", found.problem)


def _standing(found: InForce) -> Standing:
    stopped = found.policy is not None and is_stopped(found.policy)
    return Standing(found.policy, found.digest, found.problem, stopped)
