"""The fleet's own certificate authority, and a site's below it.

    authority = CertificateAuthority.create(Path("pki"), fleet="demo")
    pair = authority.issue("fog", "north", hosts=["127.0.0.1"])
    site = authority.site(Path("north/issuer"), "north", hosts=["127.0.0.1"])
    edge = site.issue("edge", "plant-1")        # works with the cloud out of reach

Keys are ECDSA P-256, readable by their owner only. An identity is one URI in the subject
alternative name, `reuna.core.records.Identity`; hosts are DNS names or addresses beside it. A
site's authority is an intermediate of path length 0 whose name constraints (RFC 5280, 4.2.1.10)
hold it to URIs of the host ``<site>.<fleet>`` and to the site's own hosts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reuna.adapters.tls import OF_A_SITE, KeyPair, parse_identity
from reuna.core.errors import Corrupted, NotAdmitted, PermissionDenied, SettingsError
from reuna.core.records import Identity
from reuna.core.subjects import is_name
from reuna.trust.enrolment import CLOCK_SKEW

Certificate = x509.Certificate
ONE_YEAR = timedelta(days=365)
_AUTHORITY_LIFE = timedelta(days=3650)
_CURVES = (ec.SECP256R1, ec.SECP384R1)
#: What reading a certificate or request of others may raise, of whatever kind it is.
_UNREADABLE = (
    ValueError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateAuthority:
    """Issues the certificates of one fleet, or of one site; its folder holds the key.

    ``site`` is the name of the site that it is held to, empty for the fleet's root.
    """

    def __init__(
        self,
        folder: Path,
        fleet: str,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        site: str = "",
    ) -> None:
        self.folder = folder
        self.fleet = fleet
        self.site_name = site
        self._certificate = certificate
        self._key = key

    @property
    def certificate(self) -> Path:
        """The root certificate, which every peer trusts."""
        return self.folder / ("root.crt" if self.site_name else "authority.crt")

    def root(self) -> x509.Certificate:
        """The root certificate itself."""
        return x509.load_pem_x509_certificate(self.certificate.read_bytes())

    @classmethod
    def create(cls, folder: Path, fleet: str) -> CertificateAuthority:
        """Make a root key and certificate in ``folder``, which must hold none yet."""
        if (folder / "authority.key").exists():
            raise SettingsError(
                f"{folder} already holds an authority", "Use another folder, or load this one."
            )
        _check_name("fleet", fleet)
        key = new_key()
        certificate = _root(fleet, key)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / "authority.key", key_pem(key))
        write_private(folder / "authority.crt", _pem(certificate), 0o644)
        return cls(folder, fleet, certificate, key)

    @classmethod
    def load(cls, folder: Path) -> CertificateAuthority:
        """The authority made earlier in ``folder``. Raises `Corrupted` when it cannot be read."""
        try:
            certificate = x509.load_pem_x509_certificates((folder / "authority.crt").read_bytes())[0]
            key = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), password=None)
        except (OSError, ValueError, IndexError) as error:
            raise Corrupted(
                f"no readable authority in {folder}: {error}",
                "Restore the folder from its copy, or make a new authority and new certificates.",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Corrupted(f"the authority's key in {folder} is of another kind than ours")
        return cls(folder, _organisation(certificate), certificate, key, _site_of(certificate))

    def site(
        self, folder: Path, name: str, hosts: Sequence[str] = (), lifetime: timedelta = ONE_YEAR
    ) -> CertificateAuthority:
        """Make the authority of a site in ``folder``, with its key; for fleets of one machine."""
        key = new_key()
        certificate = self.certify_site(key.public_key(), name, hosts, lifetime)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / "authority.key", key_pem(key))
        write_private(folder / "authority.crt", _pem(certificate), 0o644)
        write_private(folder / "root.crt", self.certificate.read_bytes(), 0o644)
        return CertificateAuthority(folder, self.fleet, certificate, key, name)

    def issue(
        self,
        role: str,
        name: str,
        hosts: Sequence[str] = (),
        lifetime: timedelta = ONE_YEAR,
        site: str = "",
    ) -> KeyPair:
        """A new key and certificate for a role and name; for fleets of one machine.

        With ``hosts`` it may also serve, under those DNS names and addresses. An earlier pair of
        the same identity is replaced on disk; its certificate stays valid until it ends.
        """
        key = new_key()
        identity = Identity(self.fleet, role, name, site or self.site_name)
        certificate = self.certify(key.public_key(), identity, hosts, lifetime)
        pair = self.pair(role, name)
        write_private(pair.key, key_pem(key) + to_pem(self.chain(certificate)))
        return pair

    def pair(self, role: str, name: str) -> KeyPair:
        """Where an issued key lies, with its chain: one file, so that both change at once."""
        file = self.folder / f"{role}-{name}.pem"
        return KeyPair(file, file, self.certificate)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this authority signed a certificate, whatever the time."""
        return issued_by(certificate, self._certificate)

    def chain(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """A certificate issued here and what stands between it and the root."""
        return (certificate, self._certificate) if self.site_name else (certificate,)

    def certify(
        self,
        public: ec.EllipticCurvePublicKey,
        identity: Identity,
        hosts: Sequence[str] = (),
        lifetime: timedelta = ONE_YEAR,
        now: datetime | None = None,
    ) -> x509.Certificate:
        """A certificate for somebody's key. Raises `SettingsError`, `PermissionDenied`.

        What this authority is not allowed to certify its peers would refuse; it is refused here.
        """
        _check_name("role", identity.role)
        _check_name("name", identity.name)
        if identity.fleet != self.fleet:
            raise PermissionDenied(f"this authority certifies {self.fleet}, not {identity.fleet}")
        if self.site_name and (identity.site, identity.role in OF_A_SITE) != (self.site_name, True):
            raise PermissionDenied(f"the authority of site {self.site_name} may not certify {identity.uri}")
        if self.site_name and identity.role == "gateway" and identity.name != self.site_name:
            raise PermissionDenied(f"the authority of site {self.site_name} may not certify {identity.uri}")
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        names = [x509.UniformResourceIdentifier(identity.uri), *map(_host, hosts)]
        subject = _subject(self.fleet, f"{identity.role} {identity.name}")
        builder = _builder(subject, self._certificate.subject, public, lifetime, now)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        return self._sign(builder)

    def certify_site(
        self,
        public: ec.EllipticCurvePublicKey,
        name: str,
        hosts: Sequence[str] = (),
        lifetime: timedelta = ONE_YEAR,
        now: datetime | None = None,
    ) -> x509.Certificate:
        """The constrained certificate of a site's own authority. Raises `PermissionDenied`."""
        if self.site_name:
            raise PermissionDenied("a site's authority certifies no other authority")
        _check_name("site", name)
        subject = _subject(self.fleet, f"{name} authority")
        builder = _builder(subject, self._certificate.subject, public, lifetime, now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        bounds = site_constraints(f"{name}.{self.fleet}", hosts)
        return self._sign(builder.add_extension(bounds, critical=True))

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())


def site_constraints(domain: str, hosts: Sequence[str]) -> x509.NameConstraints:
    """Names below a site's authority: URIs and mail of its domain, its own hosts, no others."""
    names = [_host(host) for host in hosts]
    addresses = [name.value for name in names if isinstance(name, x509.IPAddress)]
    permitted: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(domain),
        x509.RFC822Name(domain),
        x509.DNSName(domain),
        *(name for name in names if isinstance(name, x509.DNSName)),
        *(x509.IPAddress(ip_network(str(address))) for address in addresses),
    ]
    every = [x509.IPAddress(ip_network(text)) for text in ("0.0.0.0/0", "::/0")]
    return x509.NameConstraints(permitted, None if addresses else every)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh key of the kind that is certified."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey, hosts: Sequence[str] = ()) -> bytes:
    """A certificate request (PKCS #10, DER). Its subject is empty: the authority knows the name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read_request(data: bytes) -> tuple[ec.EllipticCurvePublicKey, tuple[str, ...]]:
    """Key and wanted hosts of a request that its key signed. Raises `NotAdmitted`."""
    try:
        found = x509.load_der_x509_csr(data)
        valid, key = found.is_signature_valid, found.public_key()
        names = _alternative_names(found.extensions)
    except _UNREADABLE as error:
        raise NotAdmitted("malformed", f"not a certificate request: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise NotAdmitted("key", "only ECDSA keys on P-256 or P-384 are certified")
    if not valid:
        raise NotAdmitted("key", "the request is not signed by the key that it names")
    dns = names.get_values_for_type(x509.DNSName) if names else []
    addresses = names.get_values_for_type(x509.IPAddress) if names else []
    return key, (*dns, *map(str, addresses))


def key_digest(public: object) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo, DER), hexadecimal."""
    data = public.public_bytes(  # type: ignore[attr-defined]  # every key of ours has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(data).hexdigest()


def root_digest(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate (DER), hexadecimal: what a token names a fleet by."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def ordered(found: Sequence[bytes], key: ec.EllipticCurvePublicKey) -> list[x509.Certificate]:
    """Certificates (DER) from the one for ``key`` upwards, the root left out. Raises `NotAdmitted`."""
    loose = [from_der(der) for der in found]
    chain = [leaf for leaf in loose if leaf.public_key() == key][:1]
    if not chain:
        raise NotAdmitted("certificate", "the authority sent no certificate for this node's key")
    while above := [c for c in loose if c not in chain and issued_by(chain[-1], c)]:
        chain.append(above[0])
    return [certificate for certificate in chain if certificate.subject != certificate.issuer]


def from_der(data: bytes) -> Certificate:
    """One certificate. Raises `NotAdmitted` for bytes that are none."""
    try:
        return x509.load_der_x509_certificate(data)
    except _UNREADABLE as error:
        raise NotAdmitted("malformed", f"not a certificate: {error}") from error


def to_der(certificate: Certificate) -> bytes:
    """One certificate as DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def to_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """A chain as PEM, the leaf first."""
    return b"".join(map(_pem, chain))


def read_chain(pem: bytes) -> list[x509.Certificate]:
    """Certificates of a file of PEM blocks, others passed over. Raises `Corrupted`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE as error:
        raise Corrupted(f"no readable certificate: {error}") from error


def read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The private key in a file of PEM blocks. Raises `Corrupted`."""
    try:
        start = pem.index(b"-----BEGIN PRIVATE KEY")
        key = serialization.load_pem_private_key(pem[start:], password=None)
    except ValueError as error:
        raise Corrupted(f"no readable private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Corrupted("the private key is of another kind than ours")
    return key


def validity(pem: bytes) -> tuple[float, float]:
    """When the first certificate of a file begins and ends, seconds since the epoch."""
    found = read_chain(pem)[0]
    return found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()


def flaw(der: bytes) -> str:
    """What tells a node's certificate from those that our authorities make; empty when nothing does.

    TLS lets these pass: it takes an authority's certificate for anybody's, and a missing purpose
    for every purpose (RFC 5280, 4.2.1.12).
    """
    try:
        found = x509.load_der_x509_certificate(der)
        bounds = found.extensions.get_extension_for_class(x509.BasicConstraints).value
        usages = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        key = found.public_key()
    except x509.ExtensionNotFound:
        return "does not say what it is for"
    except _UNREADABLE as error:
        return f"cannot be read: {error}"
    if bounds.ca:
        return "is an authority's and no node's"
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        return "is not for clients"
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        return "has a key of a kind that is not certified"
    return ""


def hosts_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """DNS names and addresses that a certificate serves under."""
    names = _alternative_names(certificate.extensions)
    if names is None:
        return ()
    return (
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    )


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer`` itself signed a certificate, whatever the time."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (TypeError, *_UNREADABLE):
        return False
    return True


def holds_at(certificate: x509.Certificate, now: float) -> bool:
    """Whether a time (seconds since the epoch) lies in a certificate's validity."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return first.timestamp() <= now <= last.timestamp()


def site_of_authority(certificate: x509.Certificate) -> str:
    """The site whose authority a certificate is; empty when it is none's."""
    try:
        bounds = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        return _site_of(certificate) if bounds.ca else ""
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return ""


def sign_with(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """A signature (ECDSA with SHA-256, DER) of a certified key."""
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def is_signed_by(certificate: x509.Certificate, message: bytes, signature: bytes) -> bool:
    """Whether a certificate's key made a signature of `sign_with`."""
    try:
        public = certificate.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey):
            return False
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except _UNREADABLE:
        return False
    return True


def identity_in(certificate: x509.Certificate) -> Identity:
    """Who a certificate is for. Raises `PermissionDenied` unless it names exactly one identity."""
    try:
        names = _alternative_names(certificate.extensions)
    except _UNREADABLE as error:
        raise PermissionDenied(f"the certificate cannot be read: {error}") from error
    if names is None:
        raise PermissionDenied("the certificate names no identity")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise PermissionDenied(f"the certificate names {len(uris)} identities instead of one")
    return parse_identity(uris[0])


def _root(fleet: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    subject = _subject(fleet, f"{fleet} authority")
    builder = _builder(subject, subject, key.public_key(), _AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    lifetime: timedelta,
    now: datetime | None = None,
) -> x509.CertificateBuilder:
    now = now or datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(public).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(seconds=CLOCK_SKEW)).not_valid_after(now + lifetime)
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


def _alternative_names(extensions: x509.Extensions) -> x509.SubjectAlternativeName | None:
    try:
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def _site_of(certificate: x509.Certificate) -> str:
    """The site that an authority's name constraints hold it to; empty for a root."""
    try:
        bounds = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ""
    uris = [name.value for name in bounds.permitted_subtrees or () if _is_uri(name)]
    return str(uris[0]).partition(".")[0] if uris else ""


def _is_uri(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.UniformResourceIdentifier)


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


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as PEM (PKCS #8), not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def write_private(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write beside and rename, so that no reader sees half a key and no other user any of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
