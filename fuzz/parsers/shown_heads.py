"""`reuna.exchange.proofs`: who shows a ledger's head, from certificates and signatures that a peer sends."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
from cryptography.utils import CryptographyDeprecationWarning

from fuzz.kit import attempt, scratch
from reuna.adapters import certificates
from reuna.adapters.certificates import Certificate, CertificateAuthority
from reuna.core.errors import BadMessage, Refused
from reuna.core.records import ShownHead
from reuna.exchange.proofs import prover, show
from reuna.wire import decode, encode
from tests.unit.trust.books import book


@cache
def _made() -> tuple[Certificate, ShownHead]:
    """The fleet's root, and a head that its fog shows."""
    authority = CertificateAuthority.create(scratch() / "shown-ca", "line-4")
    pair = authority.issue("fog", "mill-3")
    root = certificates.read_chain(Path(authority.certificate).read_bytes())[0]
    return root, show(book(2).heads[0], b"k" * 32, pair.certificate, pair.key)


def seeds() -> Iterator[bytes]:
    shown = _made()[1]
    yield b"\0" + encode(shown)
    yield b"\1" + shown.chain[0]


def check(data: bytes) -> None:
    root, good = _made()
    kind, rest = (data[0] & 1, data[1:]) if data else (0, b"")
    shown = attempt(lambda: decode(ShownHead, rest), BadMessage) if kind == 0 else None
    if kind == 1:  # any certificate under an honest head
        shown = msgspec.structs.replace(good, chain=(rest,))
    if shown is None:
        return
    with warnings.catch_warnings():  # of what a later version will refuse, which is right
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        now = certificates.from_der(good.chain[0]).not_valid_before_utc.timestamp() + 60
        identity = attempt(lambda: prover(shown, "line-4", root, now), Refused)
    if identity is not None:
        assert (identity.uri, shown.head, shown.key) == ("spiffe://line-4/fog/mill-3", good.head, good.key)
