"""A site's policy: what may leave, to whom, under which conditions. All that is not allowed is refused.

The records are what `reuna.trust.policy_text.parse` makes of ``policy.toml``. What the site's
officers sign is not the file but `canonical`, so comments and layout may change and nothing
else. A field that is not written is left out of the signed bytes, so a later version may add
fields and old signatures stay good.

>>> from datetime import date
>>> policy = Policy(FORMAT, "mill-3", 1, Validity(date(2026, 11, 1), date(2027, 1, 31)), Signers(1, {}))
>>> canonical(policy)[:25]
b'{"format":"reuna/policy/v'
>>> policy.flows  # deny by default
()
"""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Literal

import msgspec

FORMAT = "reuna/policy/v1"
MAX_POLICY = 256 * 1024  #: bytes of a policy file; judged before it is read

#: What kinds of bytes there are, in the words of explanations.
KINDS: dict[str, str] = {
    "model_update": "what training changed in a model, and sums of that",
    "metric": "results of training and tests: named numbers, counts and who took part",
    "statistic": "counts, histograms and drift sketches over many rows, and a keyed fingerprint of the data",
    "prediction": "answers of a model",
    "window": "the signals of single windows that the model at the node is unsure of, for its own fog",
    "log": "events and errors of a node, and which releases it holds",
    "raw": "rows of data",
    "presence": "that a node is there, asks for work, and fetches models",
    "head": "how far the ledger of a node reaches, signed, for the cloud to countersign",
}
PROTECTIONS = ("clear", "split", "secagg")  #: from weak to strong
DATASET = "data"  #: what the sources call a node's data unless the node's settings say otherwise
ANY = "*"  #: in a list of metric names or columns: all of them

_EPOCH = date(1970, 1, 1).toordinal()

Protection = Literal["clear", "split", "secagg"]
NewCode = Literal["ask", "deny"]
Exhausted = Literal["block", "pause"]


class Validity(msgspec.Struct, frozen=True):
    """From the start of the first to the end of the last day, UTC. Written ``from`` and ``until``."""

    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="until")


class Signers(msgspec.Struct, frozen=True):
    """Whose signatures a policy needs: how many, of which names -> Ed25519 public keys (64 hex digits)."""

    threshold: int
    keys: dict[str, str]


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """What code may read of one dataset. ``row_unit`` is what one row is about, as ``asset-day``."""

    columns: tuple[str, ...]
    purpose: tuple[str, ...] = ()
    row_unit: str = ""


class Tensors(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model update may consist of. ``schema``: SHA-256 of names and shapes; ``max_norm``: L2."""

    schema: str = ""
    dtypes: tuple[str, ...] | None = None
    max_params: int | None = None
    max_norm: float | None = None


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """Differential privacy: how much ε of which unit may be spent, in all and by one update.

    ``on_exhausted``: ``block`` refuses for good, ``pause`` keeps the update for the next policy.
    """

    unit: str
    max_epsilon_total: float
    max_epsilon_round: float
    delta: float
    on_exhausted: Exhausted = "block"


class FlowRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that may leave: its kind, the recipients' names, and what must hold. None: no bound."""

    kind: str
    to: tuple[str, ...]
    protection: Protection = "clear"
    min_cohort: int = 0
    min_organisations: int = 0
    min_samples: int = 0
    min_local_steps: int = 0
    tensors: Tensors = Tensors()
    dp: Budget | None = None
    max_rounds_per_day: int | None = None
    names: tuple[str, ...] | None = None
    max_values_per_round: int | None = None
    min_cell: int = 0


class CodeEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A code bundle that may run: its digest, who approved it, and the last day (UTC)."""

    digest: str
    approved_by: tuple[str, ...]
    until: date


class Code(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which pushed code may run. ``new_code``: whether an unknown digest asks the officers or not."""

    allow: tuple[CodeEntry, ...] = ()
    new_code: NewCode = "deny"
    min_sandbox_level: int = 0


class Window(msgspec.Struct, frozen=True):
    """A time of the week, UTC. ``days``: 0 is Monday; ``start`` and ``end`` in minutes.

    ``end`` below ``start`` is on the next day.
    """

    days: tuple[int, ...]
    start: int
    end: int


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bounds over all kinds. ``windows`` None: any time; empty: never."""

    bytes_per_day: int | None = None
    windows: tuple[Window, ...] | None = None


class LedgerSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the ledger's records go, its signed heads among them."""

    heads_to: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """A site's whole policy. ``recipients``: name -> identity, ``spiffe://fleet/role/name``."""

    format: str
    site: str
    serial: int
    valid: Validity
    signers: Signers
    recipients: dict[str, str] = {}
    sources: dict[str, Source] = {}
    flows: tuple[FlowRule, ...] = ()
    code: Code = Code()
    limits: Limits = Limits()
    kill_switch: str = ""
    ledger: LedgerSettings = LedgerSettings()


def canonical(policy: Policy) -> bytes:
    """The bytes that are signed: JSON with sorted keys, without what has its default."""
    return msgspec.json.encode(policy, order="sorted")


def digest(policy: Policy) -> str:
    """SHA-256 of `canonical`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(policy)).hexdigest()


def day_of(now: float) -> int:
    """Days from the epoch to a time in seconds since the epoch, UTC."""
    return int(now // 86_400)


def day_number(day: date) -> int:
    """Days from the epoch to a date."""
    return day.toordinal() - _EPOCH


def rule_name(policy: Policy, position: int) -> str:
    """How a rule is named in verdicts and the ledger: ``flows[1] metric`` is the first of the file."""
    return f"flows[{position + 1}] {policy.flows[position].kind}"
