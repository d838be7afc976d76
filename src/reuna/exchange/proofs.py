"""A node proves that the key of its ledger is its own: with the key of its certificate.

The certificate is short-lived and renewed, the ledger's key stays; so each head that is shown carries
a fresh proof. ``proof`` is ECDSA with SHA-256 over the DSSE encoding of `KIND` and the body
msgpack [head, key].
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import msgspec

from reuna.adapters import certificates
from reuna.adapters.certificates import Certificate
from reuna.core.errors import NotAdmitted, PermissionDenied, Refused
from reuna.core.records import Identity, ShownHead
from reuna.trust.dsse import authenticated

KIND = b"application/vnd.reuna.ledger-identity.v1"
CHAINS = 4096  #: certificates whose judgement is remembered
LONGEST = 2  #: certificates below the root: a node's, its site's


def show(head: bytes, key: bytes, certificate: Path, private: Path) -> ShownHead:
    """A head (a statement signed by ``key``, 32 bytes) with the proof of who shows it.

    Reads the node's certificate and its key, which may have been renewed. Raises `Corrupted`, `OSError`.
    """
    chain = certificates.read_chain(certificate.read_bytes())[:LONGEST]
    proof = certificates.sign_with(certificates.read_key(private.read_bytes()), _body(head, key))
    return ShownHead(head, key, tuple(map(certificates.to_der, chain)), proof)


def prover(shown: ShownHead, fleet: str, root: Certificate, now: float) -> Identity:
    """Who shows a head. Raises `Refused` ('identity') with what is wrong."""
    try:
        chain = [certificates.from_der(der) for der in shown.chain]
        if not 1 <= len(chain) <= LONGEST:
            raise Refused("identity", f"a head came with {len(chain)} certificates")
        identity = certificates.identity_in(chain[0])
    except (NotAdmitted, PermissionDenied) as error:
        raise Refused("identity", f"a head came with a certificate that is none: {error.message}") from error
    wrong = _wrong(identity, chain, fleet, root, now)
    if not wrong and not certificates.is_signed_by(chain[0], _body(shown.head, shown.key), shown.proof):
        wrong = "the head is not signed by the certificate's key"
    if wrong:
        raise Refused("identity", f"{identity.uri} is not who shows a head: {wrong}")
    return identity


def _wrong(identity: Identity, chain: list[Certificate], fleet: str, root: Certificate, now: float) -> str:
    """What is wrong with a chain, else empty. A site's authority certifies names of its site alone."""
    if identity.fleet != fleet:
        return "it is of another fleet"
    site = certificates.site_of_authority(chain[1]) if len(chain) > 1 else ""
    if site != identity.site or (len(chain) > 1 and not site):
        return "its certificate is not of its site's authority"
    ders = tuple(map(certificates.to_der, (*chain, root)))
    if not _leads(ders):
        return "its certificate does not lead to the fleet's root"
    if not all(certificates.holds_at(each, now) for each in chain):
        return "its certificate does not hold now"
    return _flaw(ders[0])


@lru_cache(CHAINS)
def _leads(chain: tuple[bytes, ...]) -> bool:
    """Whether each of some certificates is signed by the next one, whatever the time.

    Every node shows the same chain once a minute for days.
    """
    found = [certificates.from_der(each) for each in chain]
    return all(certificates.issued_by(each, issuer) for each, issuer in pairwise(found))


_flaw = lru_cache(CHAINS)(certificates.flaw)


def _body(head: bytes, key: bytes) -> bytes:
    return authenticated(KIND, msgspec.msgpack.encode([head, key]))
