"""Heads of a ledger: what a node signs about its own ledger, and the cloud signs in turn.

A head says "my ledger has at place ``seq`` the record with this digest". Signed by the node and
countersigned by the cloud, neither can change what lies before it without the other noticing.

    statement = msgpack [kind, body, signature]
    head      = msgpack [ledger, site, node, seq, digest, time_ms]
    countersignature = msgpack [statement of the head, public key, time_ms]
    signature = Ed25519 over the DSSE v1 pre-authentication encoding of
                ``application/vnd.reuna.ledger-KIND.v1`` and body

Ed25519: RFC 8032; the encoding: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.core.errors import Untrusted
from reuna.core.foreign import UNREADABLE
from reuna.trust.dsse import authenticated, is_signed
from reuna.trust.ledger import Entry, Hash, Head, Millis, State, add_own

MAX_STATEMENT = 2048  #: bytes; ours have at most some 700
Kind = Literal["head", "countersignature"]
S = TypeVar("S", bound=msgspec.Struct)


class Countersignature(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The cloud has seen a node's head: the head's statement, the cloud's public key, the time."""

    statement: bytes
    key: Hash
    time_ms: Millis


class Signer(msgspec.Struct, frozen=True):
    """What a node signs with, and as whom."""

    site: str
    node: str
    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The key that others know, 32 bytes."""
        return self.private.public_key().public_bytes_raw()


class Keys(msgspec.Struct, frozen=True):
    """Public keys, 32 bytes each, that may sign heads and countersign them."""

    node: frozenset[bytes] = frozenset()
    cloud: frozenset[bytes] = frozenset()


class _Statement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: Kind
    body: bytes
    signature: bytes


_encode = msgspec.msgpack.Encoder().encode


def sign_head(head: Head, private: Ed25519PrivateKey) -> bytes:
    """A statement of the node about its ledger."""
    return _sign("head", head, private)


def add_head(state: State, signer: Signer, now_ms: int) -> tuple[State, bytes]:
    """Sign all records so far."""
    owner = state.owner
    head = Head(owner.ledger, owner.site, owner.node, state.seq - 1, state.digest, now_ms)
    statement = sign_head(head, signer.private)
    return add_own(state, Entry(time_ms=now_ms, kind="head", statement=statement))


def open_head(statement: bytes, keys: Collection[bytes]) -> Head:
    """What a node states, signed by one of ``keys``. Raises `Untrusted` (oversized, malformed, signature)."""
    return _open("head", Head, statement, keys)


def countersign(
    statement: bytes, keys: Collection[bytes], private: Ed25519PrivateKey, known: Head | None, now_ms: int
) -> bytes:
    """The cloud's statement that it has seen a node's head.

    ``keys`` are the node's, ``known`` the newest head countersigned for this node before: a ledger
    never goes back, and has one record at each place. Raises `Untrusted`: as `open_head`, and
    replayed or conflict when the node's ledger was cut, forked or begun anew.
    """
    head = open_head(statement, keys)
    if known is not None:
        _check_follows(known, head)
    public = private.public_key().public_bytes_raw()
    return _sign("countersignature", Countersignature(statement, public, now_ms), private)


def open_countersignature(statement: bytes, keys: Keys) -> Head:
    """The head that the cloud has seen; both signatures are checked.

    Raises `Untrusted` (oversized, malformed, signature).
    """
    seen = _open("countersignature", Countersignature, statement, keys.cloud)
    return open_head(seen.statement, keys.node)


def read_head(statement: bytes) -> Head:
    """The head in a statement or under a countersignature, unjudged. Raises `Untrusted` (malformed)."""
    return _decode(Head, _decode(_Statement, head_statement(statement)).body)


def countersigner(statement: bytes) -> bytes:
    """The public key (32 bytes) that a countersignature names, unjudged. Raises `Untrusted` (malformed)."""
    return _decode(Countersignature, _decode(_Statement, statement).body).key


def head_statement(statement: bytes) -> bytes:
    """The node's own statement, also from under a countersignature. Raises `Untrusted` (malformed)."""
    outer = _decode(_Statement, statement)
    return _inner(outer) if outer.kind == "countersignature" else statement


def known_heads(statements: Iterable[bytes], keys: Keys) -> tuple[Head, ...]:
    """Heads kept outside the ledger, each signed by the node or countersigned by the cloud.

    Raises `Untrusted`: a statement that nobody known has signed is no evidence.
    """
    return tuple(_known(statement, keys) for statement in statements)


def _known(statement: bytes, keys: Keys) -> Head:
    if _decode(_Statement, statement).kind == "countersignature":
        return open_countersignature(statement, keys)
    return open_head(statement, keys.node)


def _inner(outer: _Statement) -> bytes:
    inner = _decode(Countersignature, outer.body).statement
    if _decode(_Statement, inner).kind != "head":
        raise Untrusted("malformed", "a countersignature of something else than a head")
    return inner


def _check_follows(known: Head, head: Head) -> None:
    if head.ledger != known.ledger:
        raise Untrusted(
            "conflict", f"{head.node} began another ledger after record {known.seq} of its old one"
        )
    if head.seq < known.seq:
        raise Untrusted("replayed", f"{head.node} shows record {head.seq}; it showed {known.seq} before")
    if head.seq == known.seq and head.digest != known.digest:
        raise Untrusted("conflict", f"{head.node} shows two different records {head.seq}")


def _sign(kind: Kind, record: msgspec.Struct, private: Ed25519PrivateKey) -> bytes:
    body = _encode(record)
    return _encode(_Statement(kind, body, private.sign(authenticated(_type(kind), body))))


def _open(kind: Kind, record: type[S], statement: bytes, keys: Collection[bytes]) -> S:
    outer = _decode(_Statement, statement)
    if outer.kind != kind:
        raise Untrusted("malformed", f"a {outer.kind}, where a {kind} is wanted")
    if not any(is_signed(key, _type(kind), outer.body, outer.signature) for key in keys):
        raise Untrusted("signature", f"the {kind} is not signed by a key known here")
    return _decode(record, outer.body)


def _decode(kind: type[S], data: bytes) -> S:
    if len(data) > MAX_STATEMENT:
        raise Untrusted("oversized", f"a statement of {len(data)} bytes, more than {MAX_STATEMENT}")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except UNREADABLE as error:
        raise Untrusted("malformed", f"a statement about a ledger that cannot be read: {error}") from error


def _type(kind: Kind) -> bytes:
    return f"application/vnd.reuna.ledger-{kind}.v1".encode()
