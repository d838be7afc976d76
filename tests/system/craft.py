"""Certificates as they should not be, made by hand: every guard of the handshake gets its fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID, ObjectIdentifier

from reuna.adapters.certificates import CertificateAuthority, key_pem, new_key, site_constraints

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
GOOD = "spiffe://north.demo/edge/plant-1"


@dataclass
class Signer:
    """Somebody who signs: its certificate, its key, what it sends along below the root."""

    certificate: x509.Certificate
    key: Any
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def of(cls, authority: CertificateAuthority) -> Signer:
        found = x509.load_pem_x509_certificate((authority.folder / "authority.crt").read_bytes())
        key = serialization.load_pem_private_key((authority.folder / "authority.key").read_bytes(), None)
        return cls(found, key, (found,) if authority.site_name else ())


@dataclass
class Wish:
    """What a certificate shall say; as it stands, a good one of edge plant-1 of site north."""

    uris: Sequence[str] = (GOOD,)
    hosts: Sequence[str] = ()
    begins: datetime = field(default_factory=lambda: NOW - HOUR)
    ends: datetime = field(default_factory=lambda: NOW + HOUR)
    usages: Sequence[ObjectIdentifier] | None = (Usage.CLIENT_AUTH,)
    ca: bool = False
    path_length: int | None = None
    signs: bool = True  # keyUsage digitalSignature
    names: bool = True  # has subject alternative names
    aki: bool = True
    extra: x509.ExtensionType | None = None
    algorithm: Any = field(default_factory=hashes.SHA256)
    key: Any = field(default_factory=new_key)


def make(signer: Signer | None, wish: Wish) -> tuple[x509.Certificate, Any]:
    """A certificate by ``signer``, or by its own key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "crafted")])
    issuer = signer.certificate.subject if signer else subject
    by = signer.key if signer else wish.key
    public = wish.key.public_key()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(wish.begins).not_valid_after(wish.ends)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    if wish.aki:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), False
        )
    names = [*map(x509.UniformResourceIdentifier, wish.uris), *map(host_name, wish.hosts)]
    if wish.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    builder = builder.add_extension(x509.BasicConstraints(wish.ca, wish.path_length), True)
    if wish.usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(wish.usages), False)
    builder = builder.add_extension(usage(wish), True)
    if wish.extra is not None:
        builder = builder.add_extension(wish.extra, True)
    return builder.sign(by, wish.algorithm), wish.key


def host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def usage(wish: Wish) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=wish.signs,
        key_cert_sign=wish.ca,
        crl_sign=wish.ca,
        content_commitment=not wish.signs and not wish.ca,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def sub_authority(signer: Signer, site: str | None, hosts: Sequence[str] = (), **wish: Any) -> Signer:
    """An authority below ``signer``, held to a site or to nothing."""
    extra = site_constraints(f"{site}.demo", hosts) if site else None
    wanted = Wish(uris=(), names=False, ca=True, usages=None, extra=extra, signs=False, **wish)
    certificate, key = make(signer, wanted)
    return Signer(certificate, key, (certificate, *signer.chain))


def save(folder: Path, certificate: bytes, key: Any, chain: Sequence[x509.Certificate]) -> Path:
    """One file with key and chain, as a node has it."""
    folder.mkdir(exist_ok=True)
    file = folder / "crafted.pem"
    pem = serialization.Encoding.PEM
    private = (
        key_pem(key)
        if isinstance(key, ec.EllipticCurvePrivateKey)
        else key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    file.write_bytes(private + certificate + b"".join(c.public_bytes(pem) for c in chain))
    return file


def flipped(certificate: x509.Certificate, at: int) -> bytes:
    """The certificate's PEM with one bit of its DER changed."""
    import ssl

    der = bytearray(certificate.public_bytes(serialization.Encoding.DER))
    der[at] ^= 1
    return ssl.DER_cert_to_PEM_cert(bytes(der)).encode()
