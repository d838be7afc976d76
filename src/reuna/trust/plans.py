"""Plans signed by the online key of the role ``plans``: one signature a round, one check a node.

The metadata says which key that is and until when; the plan itself carries only a signature:

    signed  = msgpack [body, signature]          version byte 1 in front
    body    = msgpack [fleet, key id, made, plan]
    signature = Ed25519 over the DSSE v1 pre-authentication encoding of PAYLOAD_TYPE and body

``made`` is when it was signed, whole seconds since the epoch. Ed25519: RFC 8032; the encoding:
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE
from reuna.trust.dsse import authenticated, is_signed

FORMAT = 1  #: first byte of a signed plan
PAYLOAD_TYPE = b"application/vnd.reuna.plan.v1"
MAX_SIGNED = 1_001_000  #: bytes; a plan has at most 1 MB
MAX_AGE_S = 7 * 86_400  #: how long after it was signed a plan may still begin
MAX_RUNS = 64  #: runs whose newest round is remembered

S = TypeVar("S", bound=msgspec.Struct)


class PlanSigner(msgspec.Struct, frozen=True):
    """The online key, at the cloud alone. ``key`` is its id in the fleet's metadata."""

    fleet: str
    key: str
    private: Ed25519PrivateKey


class PlanGate(msgspec.Struct, frozen=True):
    """What the fleet's metadata says about plans: key id -> 32 bytes public key, and until when.

    ``until`` and ``signed_time`` in seconds since the epoch; see `reuna.trust.gate.plan_gate`.
    """

    fleet: str
    keys: dict[str, bytes]
    until: int
    signed_time: int


class About(msgspec.Struct, frozen=True):
    """What a plan says of its place in a run. ``shared`` is the digest of what it asks of every fog alike.

    ``before``: that of the round before, as the plan says it.
    """

    run: str
    round: int
    attempt: int
    shared: str = ""
    before: str = ""


AboutOf = Callable[[bytes], About]


class Seen(msgspec.Struct, frozen=True):
    """The newest plan accepted of a run. ``digest``: SHA-256 of its bytes."""

    round: int
    attempt: int
    digest: str
    made: int
    key: str
    shared: str = ""


class Floor(msgspec.Struct, frozen=True):
    """What was accepted, so that nothing older comes back. Kept on disk by the rim.

    A run that is not among ``runs`` must have been signed after ``horizon``.
    """

    runs: dict[str, Seen] = {}
    horizon: int = 0


class Accepted(msgspec.Struct, frozen=True):
    """A plan's own bytes, and the floor from now on (equal to the old one when it came again).

    ``follows``: the round before it is the one that this node was given last.
    """

    plan: bytes
    floor: Floor
    about: About
    follows: bool


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    fleet: str
    key: str
    made: int
    plan: bytes


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: bytes
    signature: bytes


_encode = msgspec.msgpack.Encoder().encode


def sign_plan(plan: bytes, signer: PlanSigner, now: float) -> bytes:
    """The plan with its signature. The same arguments give the same bytes."""
    body = _encode(_Body(signer.fleet, signer.key, int(now), plan))
    return bytes((FORMAT,)) + _encode(_Signed(body, signer.private.sign(authenticated(PAYLOAD_TYPE, body))))


def verify_plan(gate: PlanGate, floor: Floor, signed: bytes, now: float, about_of: AboutOf) -> Accepted:
    """The plan inside, if this node may act on it. ``about_of`` reads its place in a run.

    The signature is checked before anything inside is decoded. Raises `Untrusted`, and what
    ``about_of`` raises.
    """
    body, made_by = _open(gate, signed)
    at = max(now, gate.signed_time)
    if body.fleet != gate.fleet:
        raise Untrusted("fleet", f"the plan is for fleet {body.fleet!r:.80}, not {gate.fleet!r}")
    if at >= gate.until or body.made >= gate.until:
        raise Untrusted("expired", "the key that signed the plan is over its time")
    if at - body.made > MAX_AGE_S:
        raise Untrusted("expired", f"the plan was signed {int(at - body.made)} s ago")
    about = about_of(body.plan)
    digest = hashlib.sha256(body.plan).hexdigest()
    seen = Seen(about.round, about.attempt, digest, body.made, made_by, about.shared)
    known = _of_known_keys(floor, gate)
    follows = _check_history(known.runs.get(about.run), about)
    return Accepted(body.plan, _raise_floor(known, about.run, seen), about, follows)


def opened(signed: bytes) -> bytes:
    """The plan inside, unjudged: for what stands behind the egress that has verified it.

    Raises `Untrusted` (malformed).
    """
    return _decode(_Body, _decode(_Signed, signed[1:]).body).plan


def _open(gate: PlanGate, signed: bytes) -> tuple[_Body, str]:
    if len(signed) > MAX_SIGNED:
        raise Untrusted("oversized", f"a signed plan of {len(signed)} bytes, more than {MAX_SIGNED}")
    if signed[:1] != bytes((FORMAT,)):
        raise Untrusted("malformed", "this is no signed plan")
    outer = _decode(_Signed, signed[1:])
    for key, public in gate.keys.items():
        if is_signed(public, PAYLOAD_TYPE, outer.body, outer.signature):
            body = _decode(_Body, outer.body)
            if body.key == key:
                return body, key
    raise Untrusted("signature", "the plan is not signed by a key of the role plans")


def _decode(kind: type[S], data: bytes) -> S:
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except UNREADABLE as error:
        raise Untrusted("malformed", f"a signed plan that cannot be read: {error}") from error


# --- replays ---------------------------------------------------------------------------------------


def _of_known_keys(floor: Floor, gate: PlanGate) -> Floor:
    """What replaced keys have signed counts no more, also not numbers that a thief drove up."""
    runs = {run: seen for run, seen in floor.runs.items() if seen.key in gate.keys}
    if len(runs) == len(floor.runs):
        return floor
    return Floor(runs, floor.horizon if runs else 0)


def _check_history(old: Seen | None, new: About) -> bool:
    """Whether the plan goes on from the one accepted last; one of another history is refused.

    A node that was away for a round cannot tell, and then this is False. Raises `Untrusted`.
    """
    if old is None or not old.shared:
        return new.round == 1
    if new.round == old.round and new.attempt > old.attempt and new.shared != old.shared:
        raise Untrusted("conflict", f"another attempt at round {new.round} of {new.run} asks for other work")
    if new.round == old.round + 1 and new.before != old.shared:
        told = f"round {new.round} of {new.run} goes on from another round {old.round}"
        raise Untrusted("conflict", f"{told} than this node was given")
    return new.round <= old.round + 1


def _raise_floor(floor: Floor, run: str, new: Seen) -> Floor:
    old = floor.runs.get(run)
    if old is None:
        if new.made <= floor.horizon:
            raise Untrusted("replayed", f"{run} is older than the runs this node remembers")
        return _drop_oldest(Floor({**floor.runs, run: new}, floor.horizon))
    if (new.round, new.attempt) < (old.round, old.attempt):
        raise Untrusted("replayed", f"round {new.round} of {run}: round {old.round} was accepted before")
    if (new.round, new.attempt) == (old.round, old.attempt):
        if new.digest != old.digest:
            raise Untrusted("conflict", f"two different plans for round {new.round} of {run}")
        return floor
    return Floor({**floor.runs, run: new}, floor.horizon)


def _drop_oldest(floor: Floor) -> Floor:
    if len(floor.runs) <= MAX_RUNS:
        return floor
    oldest = min(floor.runs, key=lambda run: floor.runs[run].made)
    horizon = max(floor.horizon, floor.runs[oldest].made)
    return Floor({run: seen for run, seen in floor.runs.items() if run != oldest}, horizon)
