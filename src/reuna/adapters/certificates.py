"""The fleet's own small certificate authority, for demos and first projects.

    authority = CertificateAuthority.create(Path("pki"), fleet="demo")
    pair = authority.issue("fog", "north", hosts=["127.0.0.1"])
    context = client_context(pair.certificate, pair.key, pair.authority)

Keys are ECDSA P-256, readable by their owner only. An identity is one URI in the subject
alternative name, ``spiffe://<fleet>/<role>/<name>``; hosts are DNS names or addresses beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reuna.adapters.tls import KeyPair, parse_identity
from reuna.core.errors import Corrupted, PermissionDenied, SettingsError
from reuna.core.records import Identity
from reuna.core.subjects import is_name

ONE_YEAR = timedelta(days=365)
_AUTHORITY_LIFE = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)


class CertificateAuthority:
    """Issues the certificates of one fleet; its folder holds the root's key."""

    def __init__(
        self,
        folder: Path,
        fleet: str,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
    ) -> None:
        self.folder = folder
        self.fleet = fleet
        self._certificate = certificate
        self._key = key

    @property
    def certificate(self) -> Path:
        """The root certificate, which every peer trusts."""
        return self.folder / "authority.crt"

    @classmethod
    def create(cls, folder: Path, fleet: str) -> CertificateAuthority:
        """Make a root key and certificate in ``folder``, which must hold none yet."""
        if (folder / "authority.key").exists():
            raise SettingsError(
                f"{folder} already holds an authority", "Use another folder, or load this one."
            )
        _check_name("fleet", fleet)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _root(fleet, key)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(folder / "authority.key", _key_pem(key))
        _write(folder / "authority.crt", _pem(certificate), 0o644)
        return cls(folder, fleet, certificate, key)

    @classmethod
    def load(cls, folder: Path) -> CertificateAuthority:
        """The authority made earlier in ``folder``. Raises `Corrupted` when it cannot be read."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / "authority.crt").read_bytes())
            key = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise Corrupted(
                f"no readable authority in {folder}: {error}",
                "Restore the folder from its copy, or make a new authority and new certificates.",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Corrupted(f"the authority's key in {folder} is of another kind than ours")
        return cls(folder, _organisation(certificate), certificate, key)

    def issue(
        self, role: str, name: str, hosts: Sequence[str] = (), lifetime: timedelta = ONE_YEAR
    ) -> KeyPair:
        """A new key and certificate for ``spiffe://<fleet>/<role>/<name>``.

        With ``hosts`` it may also serve, under those DNS names and addresses. An earlier pair of
        the same identity is replaced on disk; its certificate stays valid until it ends.
        """
        _check_name("role", role)
        _check_name("name", name)
        identity = Identity(self.fleet, role, name)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(identity, key.public_key(), hosts, lifetime)
        pair = self.pair(role, name)
        _write(pair.key, _key_pem(key))
        _write(pair.certificate, _pem(certificate), 0o644)
        return pair

    def pair(self, role: str, name: str) -> KeyPair:
        """Where an issued pair lies."""
        stem = self.folder / f"{role}-{name}"
        return KeyPair(stem.with_suffix(".crt"), stem.with_suffix(".key"), self.certificate)

    def _sign(
        self,
        identity: Identity,
        public: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        lifetime: timedelta,
    ) -> x509.Certificate:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.UniformResourceIdentifier(identity.uri), *map(_host, hosts)]
        subject = _subject(identity.fleet, f"{identity.role} {identity.name}")
        builder = _builder(subject, self._certificate.subject, public, lifetime)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())


def identity_in(certificate: x509.Certificate) -> Identity:
    """Who a certificate is for. Raises `PermissionDenied` unless it names exactly one identity."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise PermissionDenied("the certificate names no identity") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise PermissionDenied(f"the certificate names {len(uris)} identities instead of one")
    return parse_identity(uris[0])


def _root(fleet: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = _subject(fleet, f"{fleet} authority")
    builder = _builder(subject, subject, key.public_key(), _AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(public).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + lifetime)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(fleet: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _organisation(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _check_name(what: str, name: str) -> None:
    if not is_name(name):
        raise SettingsError(
            f"{what} {name!r} cannot stand in a certificate",
            "Use lower-case letters, digits and hyphens, at most 63.",
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write beside and rename, so that no reader sees half a key and no other user any of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
