"""From a node's trusted metadata to the few facts that each plan is judged by."""

from __future__ import annotations

from reuna.core.errors import Untrusted
from reuna.trust.metadata import TrustState, complete, targets_of
from reuna.trust.parse import delegation, public_keys
from reuna.trust.plans import PlanGate


def plan_gate(state: TrustState) -> PlanGate:
    """The key of the role plans, good until the first of the roles above it ends.

    Raises `Untrusted` (missing, keys).
    """
    if not complete(state):
        raise Untrusted("missing", "this node has not yet accepted the fleet's metadata")
    targets = targets_of(state, "targets")
    role = delegation(targets, "plans")
    assert targets.delegations is not None
    if role.threshold != 1:
        raise Untrusted("keys", "a plan carries one signature, but plans asks for more")
    above = ("timestamp", "snapshot", "targets", "plans")
    until = min(state.root.expires, *(state.files[name].expires for name in above))
    keys = public_keys("plans", role, targets.delegations.keys)
    return PlanGate(state.fleet, keys, until, state.signed_time)
