"""Certificates of OPC UA applications: this client's own, and whether a server's is trusted.

An application's certificate names it by a URI in the subject alternative name. Keys are RSA, as the security
policies want. A server is trusted by its very certificate, or by an authority that signed one for its host.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reuna.adapters.files import storage_error, system_error
from reuna.core.errors import KeyProblem, Unreachable
from reuna.core.sources import MAX_REASON

BITS = 2048  #: of a new key; the policies of today take 2048 to 4096
DAYS = 1825  #: a new certificate's life
SUFFIXES = (".der", ".cer", ".crt", ".pem")  #: of certificates in a folder of trust
_PEM = b"-----BEGIN"
_AGAIN = "Make a new one with `reuna source certificate`, and let the server trust it."
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True)
class Identity:
    """This client's certificate and key, and the URI by which the certificate names it."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    uri: str

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_pem(self) -> bytes:
        """For the library; it stays in memory."""
        return _pem_of(self.key)


@dataclass(frozen=True)
class Trust:
    """Whom this client trusts: one pinned certificate, or certificates and authorities of a folder."""

    where: str
    pinned: x509.Certificate | None = None
    certificates: tuple[x509.Certificate, ...] = ()
    revoked: tuple[x509.CertificateRevocationList, ...] = field(default=(), repr=False)


def new_identity(name: str, days: int, now: datetime, host: str = "") -> Identity:
    """A new key with a certificate that it signed itself, for a client called ``name`` on this host."""
    host = host or socket.gethostname()
    uri = f"urn:{host}:reuna:{name}:{uuid.uuid4()}"
    key = rsa.generate_private_key(65_537, BITS)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Reuna"),
        ]
    )
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), _host(host)]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_usage(), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .add_extension(own, False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), False)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key, uri)


def _usage() -> x509.KeyUsage:
    """What OPC UA asks of an application's certificate that signed itself (part 6, 6.2.2)."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def own_identity(certificate: Path, key: Path, now: datetime) -> Identity:
    """This client's certificate and key. Raises `NotUsable`, or `KeyProblem`, which says what is wrong."""
    found = read_certificate(certificate)
    secret = _read_key(key)
    if found.public_key() != secret.public_key():
        raise KeyProblem(f"{key} is not the key of {certificate}", "Name the two that belong together.")
    wrong = _time_wrong(found, now)
    if wrong:
        raise KeyProblem(f"{certificate}: {wrong}", _AGAIN)
    uris = _uris(found)
    if not uris:
        raise KeyProblem(f"{certificate} has no application URI in its subject alternative name", _AGAIN)
    return Identity(found, secret, uris[0])


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a file, DER or PEM. Raises `NotUsable`, `KeyProblem`."""
    data = _bytes(path)
    try:
        load = x509.load_pem_x509_certificate if data.startswith(_PEM) else x509.load_der_x509_certificate
        return load(data)
    except _UNREADABLE as error:
        raise KeyProblem(f"{path} is no certificate: {error}", "Name a certificate in DER or PEM.") from error


def _read_key(path: Path) -> rsa.RSAPrivateKey:
    data = _bytes(path)
    try:
        load = (
            serialization.load_pem_private_key
            if data.startswith(_PEM)
            else serialization.load_der_private_key
        )
        key = load(data, password=None)
    except (*_UNREADABLE, TypeError) as error:
        raise KeyProblem(
            f"{path} is no private key that can be read: {error}", "Name an RSA key without a passphrase."
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise KeyProblem(f"{path} is no RSA key, and the security policies of OPC UA want one", _AGAIN)
    return key


def read_trust(pinned: str, folder: str) -> Trust:
    """Whom the settings trust. Raises `NotUsable`, and `KeyProblem` for a file that cannot be read."""
    if pinned:
        return Trust(pinned, read_certificate(Path(pinned)))
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    except OSError as error:
        raise system_error(error) or storage_error(error, Path(folder)) from error
    certificates = tuple(read_certificate(path) for path in files if path.suffix.lower() in SUFFIXES)
    return Trust(folder, None, certificates, tuple(_revocations(files)))


def _revocations(files: Sequence[Path]) -> Iterator[x509.CertificateRevocationList]:
    for path in files:
        if path.suffix.lower() == ".crl":
            data = _bytes(path)
            try:
                yield (x509.load_pem_x509_crl if data.startswith(_PEM) else x509.load_der_x509_crl)(data)
            except _UNREADABLE as error:
                raise KeyProblem(f"{path} is no list of revoked certificates: {error}") from error


def chain_of(data: bytes | None) -> list[x509.Certificate]:
    """A server's certificate and those that it sends behind it. Raises `Unreachable`.

    What the field of a message has is DER after DER; each says its own length.
    """
    found, rest = [], data or b""
    while rest:
        length = int.from_bytes(rest[2:4], "big") + 4 if rest[:2] == b"\x30\x82" else len(rest)
        try:
            found.append(x509.load_der_x509_certificate(rest[:length]))
        except _UNREADABLE as error:
            said = f"the server shows a certificate that cannot be read: {str(error)[:MAX_REASON]}"
            raise Unreachable(said, "Look at the server's own certificate.") from error
        rest = rest[length:]
    if not found:
        raise Unreachable("the server shows no certificate", "Give it one.")
    return found


def judge(chain: Sequence[x509.Certificate], trust: Trust, host: str, now: datetime) -> None:
    """Raises `Unreachable` with the reason when a server's certificate is not trusted for that host."""
    server = chain[0]
    shown = f"the server {host} shows a certificate"
    step = (
        f"If the server itself names the fingerprint {fingerprint(server)}, trust it: fetch it with "
        "`reuna source certificate DIR --server URL`."
    )
    known = [trust.pinned] if trust.pinned else list(trust.certificates)
    if server not in known:
        why = _by_no_authority(chain, trust, host, now)
        if why:
            raise Unreachable(f"{shown} that is not trusted by {trust.where}: {why}", step)
    wrong = _time_wrong(server, now)
    if wrong:
        raise Unreachable(
            f"{shown} that cannot be used: {wrong}", "Renew it at the server, or correct the clock."
        )


def _by_no_authority(chain: Sequence[x509.Certificate], trust: Trust, host: str, now: datetime) -> str:
    """Why no authority of the folder vouches for the server's certificate, or ''."""
    if trust.pinned:
        return "it is another one"
    authorities = [each for each in trust.certificates if _is_authority(each)]
    if not authorities:
        return "it is not in the folder, and no authority is"
    policy = verification.PolicyBuilder().store(verification.Store(authorities)).time(now)
    authority = verification.ExtensionPolicy.permit_all().require_present(
        x509.BasicConstraints, verification.Criticality.AGNOSTIC, _must_be_authority
    )
    subject = _subject(host)
    named = verification.ExtensionPolicy.permit_all().require_present(
        x509.SubjectAlternativeName, verification.Criticality.AGNOSTIC, None
    )
    verifier = policy.extension_policies(ca_policy=authority, ee_policy=named).build_server_verifier(subject)
    try:
        verified = verifier.verify(chain[0], list(chain[1:]))
    except verification.VerificationError as error:
        return str(error)[:MAX_REASON]
    if _is_revoked(verified, trust.revoked):
        return "its authority has revoked it"
    return ""


def _must_be_authority(
    policy: verification.Policy, certificate: x509.Certificate, found: x509.BasicConstraints
) -> None:
    if not found.ca:
        raise ValueError("what signed it is no authority")


def _subject(host: str) -> verification.Subject:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return False


def _is_revoked(chain: Sequence[x509.Certificate], lists: Sequence[x509.CertificateRevocationList]) -> bool:
    """Whether an authority of the chain says so, in a list that it signed."""
    for below, above in pairwise(chain):
        for each in lists:
            known = each.issuer == above.subject and each.is_signature_valid(above.public_key())  # type: ignore[arg-type]  # of a chain that was verified
            if known and each.get_revoked_certificate_by_serial_number(below.serial_number):
                return True
    return False


def _time_wrong(certificate: x509.Certificate, now: datetime) -> str:
    """Both times, so that a wrong clock shows."""
    clock = f"this machine's clock says {_day(now)}"
    if now > certificate.not_valid_after_utc:
        return f"the certificate ended at {_day(certificate.not_valid_after_utc)}; {clock}"
    if now < certificate.not_valid_before_utc:
        return f"the certificate begins at {_day(certificate.not_valid_before_utc)}; {clock}"
    return ""


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z"


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-1 over the DER, as OPC UA's tools show it."""
    return certificate.fingerprint(hashes.SHA1()).hex(" ").upper()  # noqa: S303  # a name, no protection


def _pem_of(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise system_error(error) or storage_error(error, path) from error
