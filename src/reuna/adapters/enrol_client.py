"""Enrolment over HTTPS, the machine's side, in the form of EST (RFC 7030). Blocking.

    root = fetch_root(address, fingerprint)            # believed by its fingerprint alone
    source = EstSource(address, root_file)             # the `CertificateSource` port
    certificates = source.enrol(secret, request)

What the authority answers is documented in `reuna.adapters.enrol_server`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ssl
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from reuna.adapters.tls import identity_of
from reuna.core.errors import ADMISSION, NotAdmitted, PermissionDenied, Unreachable
from reuna.core.foreign import UNREADABLE

TIMEOUT_S = 20.0
MAX_ANSWER = 262_144  #: bytes
EST = "/.well-known/est"
PARENTS = ("cloud", "gateway")  #: roles that certify others
MAX_SAID = 1_000  #: characters of a refusal that are shown
T = TypeVar("T")


class _Said(msgspec.Struct):
    """Body of an answer that refuses."""

    reason: str
    message: str
    next_step: str


def fetch_root(address: str, fingerprint: str) -> bytes:
    """The fleet's root certificate (PEM), whoever brings it: its SHA-256 must be the one given.

    Raises `NotAdmitted` when no certificate offered has it, `Unreachable`.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.minimum_version = ssl.TLSVersion.TLSv1_3
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    data = _call(address, blind, "GET", f"{EST}/cacerts", {}, None, check=False)
    for der in _certificates(data):
        if hmac.compare_digest(hashlib.sha256(der).hexdigest(), fingerprint):
            return ssl.DER_cert_to_PEM_cert(der).encode()
    raise NotAdmitted(
        "fingerprint",
        f"the server at {address} is not of the fleet that the token names",
        "Somebody may stand between; check the address, then ask for a new token.",
    )


class EstSource:
    """An enrolment server at ``host:port`` that must chain to ``root`` (a PEM file).

    ``own`` is the file with this node's certificate and key, once there is one.
    """

    def __init__(self, address: str, root: Path, own: Path | None = None) -> None:
        self._address = address
        self._root = root
        self._own = own

    def invitation(self, secret: str) -> dict[str, Any]:
        """What the authority tells a machine with a token about its place. Raises `NotAdmitted`."""
        data = self._ask("GET", "/v1/invitation", _basic(secret), None, None)
        return _decoded(data, dict[str, Any])

    def enrol(self, secret: str, request: bytes) -> list[bytes]:
        """Certificates (DER) for a request (PKCS #10, DER), in no order. Raises `NotAdmitted`."""
        headers = {**_basic(secret), **_PKCS10}
        return _certificates(self._ask("POST", f"{EST}/simpleenroll", headers, _coded(request), None))

    def renew(self, request: bytes) -> list[bytes]:
        """The next certificate, by the one in ``own``."""
        body = _coded(request)
        return _certificates(self._ask("POST", f"{EST}/simplereenroll", _PKCS10, body, self._own))

    def renew_site(self, request: bytes) -> list[bytes]:
        """A certificate for the site's own authority, by the fog's in ``own``."""
        body = _coded(request)
        return _certificates(self._ask("POST", f"{EST}/site/simplereenroll", _PKCS10, body, self._own))

    def certify_below(self, name: str, under: str, request: bytes) -> list[bytes]:
        """A certificate for the site of the fog ``name`` under the fog ``under``, by the one in ``own``."""
        path = "/v1/sites/below?" + urlencode({"name": name, "under": under})
        return _certificates(self._ask("POST", path, _PKCS10, _coded(request), self._own))

    def recover(self, certificate: bytes, request: bytes) -> list[bytes]:
        """The next certificate after one (DER) that ended, for a request by the same key."""
        body = msgspec.msgpack.encode({"certificate": certificate, "request": request})
        return _certificates(self._ask("POST", "/v1/recover", {}, body, None))

    def revoked(self) -> list[str]:
        """Names that the authority has revoked."""
        return _decoded(self._ask("GET", "/v1/revoked", {}, None, self._own), list[str])

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, own: Path | None
    ) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(self._root)
        if own is not None:
            context.load_cert_chain(own)
        return _call(self._address, context, method, path, headers, body, check=True)


_PKCS10 = {"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"}


def _basic(secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"reuna:{secret}".encode()).decode()}


def _coded(request: bytes) -> bytes:
    return base64.encodebytes(request)


def _call(
    address: str,
    context: ssl.SSLContext,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    check: bool,
) -> bytes:
    """One question, one connection. With ``check`` the server must be one that certifies others."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT_S, context=context)
    try:
        connection.connect()
        if check:
            _check_parent(connection.sock.getpeercert())
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        data = response.read(MAX_ANSWER)
    except ssl.SSLCertVerificationError as error:
        said = f"the server at {address} is not accepted: {error.verify_message}"
        raise NotAdmitted("certificate", said) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{address}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status >= 400:
        raise _refusal(response.status, data)
    return data


def _check_parent(peercert: dict[str, Any] | None) -> None:
    try:
        found = identity_of(peercert)
    except PermissionDenied as error:
        raise NotAdmitted("certificate", error.message) from error
    if found.role not in PARENTS:
        raise NotAdmitted("certificate", f"{found.uri} answers, which certifies nobody")


def _certificates(data: bytes) -> list[bytes]:
    """DER of each certificate in a certificates-only answer. Raises `NotAdmitted`."""
    try:
        from cryptography.hazmat.primitives.serialization import pkcs7  # and with it all of `email`

        found = pkcs7.load_der_pkcs7_certificates(base64.b64decode(data))
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise NotAdmitted("malformed", f"the server's answer holds no certificates: {error}") from error
    return [certificate.public_bytes(Encoding.DER) for certificate in found]


def _decoded(data: bytes, kind: type[T]) -> T:
    """The JSON in an answer. Raises `NotAdmitted`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UNREADABLE as error:
        raise NotAdmitted("malformed", f"the server's answer cannot be read: {error}") from error


def _refusal(status: int, data: bytes) -> NotAdmitted | Unreachable:
    try:
        said = msgspec.json.decode(data, type=_Said)
    except UNREADABLE:
        return Unreachable(f"the enrolment server answered with status {status}")
    message, step = said.message[:MAX_SAID], said.next_step[:MAX_SAID]
    if said.reason in ADMISSION:
        return NotAdmitted(said.reason, message, step)
    return Unreachable(f"the enrolment server cannot answer now: {message}", step)
