"""A site with a policy, keys from a seed, and requests that its policy allows."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.trust.policy import (
    FORMAT,
    Budget,
    Code,
    CodeEntry,
    FlowRule,
    Limits,
    Policy,
    Signers,
    Source,
    Tensors,
    Validity,
    Window,
)
from reuna.trust.requests import Request, State

FOG = "spiffe://line-4/gateway/north"
CLOUD = "spiffe://line-4/cloud/cloud"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()  # a Wednesday
CODE = hashlib.sha256(b"bundle").hexdigest()
IN_FORCE = State(valid=True)


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public(name: str) -> str:
    return key(name).public_key().public_bytes_raw().hex()


SIGNERS = Signers(2, {"dpo": public("dpo"), "ot": public("ot"), "it": public("it")})


def policy(**other: object) -> Policy:
    """The policy of mill-3, with other fields where they are given."""
    fields = {
        "format": FORMAT,
        "site": "mill-3",
        "serial": 17,
        "valid": Validity(date(2026, 11, 1), date(2027, 1, 31)),
        "signers": SIGNERS,
        "recipients": {"fog": FOG, "cloud": CLOUD},
        "sources": {"press": Source(("rms", "temp"), ("maintenance",), "asset-day")},
        "flows": (
            FlowRule(
                "model_update",
                ("fog",),
                "secagg",
                min_cohort=5,
                min_samples=2000,
                min_local_steps=10,
                tensors=Tensors("ab" * 32, ("float32",), 2_000_000, 1.0),
                dp=Budget("asset-day", 4.0, 0.2, 1e-6),
                max_rounds_per_day=24,
            ),
            FlowRule("metric", ("cloud", "fog"), names=("loss", "mae"), max_values_per_round=32, min_cell=10),
            FlowRule("log", ()),
            FlowRule("raw", ()),
            FlowRule("presence", ("fog",)),
        ),
        "code": Code((CodeEntry(CODE, ("dpo",), date(2026, 12, 31)),), "ask", 3),
        "limits": Limits(1_000_000, (Window((0, 1, 2, 3, 4, 5, 6), 6 * 60, 22 * 60),)),
        "kill_switch": "/etc/reuna/STOP",
    }
    return Policy(**{**fields, **other})  # type: ignore[arg-type]


def update(**other: object) -> Request:
    """A model update that the policy allows."""
    fields = {
        "kind": "model_update",
        "to": FOG,
        "bytes": 4000,
        "now": NOW,
        "run": "r-1",
        "round": 1,
        "protection": "secagg",
        "cohort": 5,
        "samples": 2000,
        "local_steps": 10,
        "params": 1000,
        "dtype": "float32",
        "norm": 1.0,
        "schema": "ab" * 32,
        "epsilon": 0.2,
        "epsilon_unit": "asset-day",
        "delta": 1e-6,
        "code": CODE,
        "sandbox": 3,
    }
    return Request(**{**fields, **other})  # type: ignore[arg-type]


def metric(**other: object) -> Request:
    """A metric that the policy allows."""
    fields = {
        "kind": "metric",
        "to": CLOUD,
        "bytes": 200,
        "now": NOW,
        "run": "r-1",
        "round": 1,
        "metrics": ("loss",),
        "values": 1,
        "cell": 10,
    }
    return Request(**{**fields, **other})  # type: ignore[arg-type]
