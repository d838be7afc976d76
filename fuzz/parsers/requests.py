"""Requests for certificates, ended certificates, and what an enrolment server answers."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.utils import CryptographyDeprecationWarning

from fuzz.kit import attempt, scratch
from reuna.adapters import certificates, enrol_client, enrol_server
from reuna.adapters.certificates import CertificateAuthority
from reuna.core.errors import NotAdmitted, PermissionDenied, Unreachable
from reuna.core.records import Identity

KEY = ec.derive_private_key(7, ec.SECP256R1())


def seeds() -> Iterator[bytes]:
    request = certificates.request(KEY, ("10.0.0.5", "mill.example"))
    der = certificates.to_der(_certificate())
    answer = pkcs7.serialize_certificates([_certificate()], Encoding.DER)
    yield b"\0" + request
    yield b"\1" + der
    yield b"\2" + base64.encodebytes(answer)
    yield b"\3" + msgspec.msgpack.encode({"certificate": der, "request": request})
    yield b"\4" + json.dumps({"reason": "used", "message": "m", "next_step": "n"}).encode()


def check(data: bytes) -> None:
    with warnings.catch_warnings():  # of what a later version will refuse, which is right
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        warnings.filterwarnings("ignore", "PKCS#7", UserWarning)
        _check(*((data[0] % 5, data[1:]) if data else (0, b"")))


def _check(kind: int, rest: bytes) -> None:
    if kind == 0:
        attempt(lambda: certificates.read_request(rest), NotAdmitted)
    elif kind == 1:
        _ended(rest)
    elif kind == 2:
        attempt(lambda: enrol_client._certificates(rest), NotAdmitted)
        attempt(lambda: enrol_client._certificates(base64.b64encode(rest)), NotAdmitted)
    elif kind == 3:
        attempt(lambda: enrol_server._recovery(rest), NotAdmitted)
    else:
        raised = enrol_client._refusal(403, rest)
        assert isinstance(raised, NotAdmitted | Unreachable)


def _ended(der: bytes) -> None:
    """As `reuna.exchange.enrolment.Enrolment.recover` looks at it, whoever signed it."""
    certificates.flaw(der)
    found = attempt(lambda: certificates.from_der(der), NotAdmitted)
    if found is not None:
        _authority().issued(found)
        attempt(lambda: certificates.identity_in(found), PermissionDenied)


@cache
def _authority() -> CertificateAuthority:
    return CertificateAuthority.create(scratch() / "authority", "line-4")


@cache
def _certificate() -> certificates.Certificate:
    now = datetime.fromtimestamp(1_795_000_000, UTC)
    identity = Identity("line-4", "fog", "mill-3")
    return _authority().certify(KEY.public_key(), identity, ("10.0.0.5",), now=now)
