"""TLS contexts and the identity in a peer's certificate, with the standard library alone.

Both ends show a certificate that chains to the fleet's root; nothing below TLS 1.3 is spoken. What
either end refuses in a handshake it logs with its reason. Issuing certificates is in
`reuna.adapters.certificates`.
"""

from __future__ import annotations

import logging
import ssl
import time
from asyncio import sslproto
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reuna.core.errors import PermissionDenied
from reuna.core.records import Identity
from reuna.core.subjects import is_name

log = logging.getLogger("reuna.tls")
Flaw = Callable[[bytes], str]
READ = 65_536  #: bytes that asyncio takes from a line at a time
LOOKS = 8  #: reads after a handshake in which a session's ticket may come
PATIENCE = 4  #: pieces that a refused peer may still send before it is cut
OF_A_SITE = ("gateway", "edge", "fog")  #: roles that a site's own authority may certify


@dataclass(frozen=True)
class KeyPair:
    """Where an identity's certificate, private key and authority's certificate lie (PEM).

    Certificate (with the chain below the root) and key may be one file, see `one_file`.
    """

    certificate: Path
    key: Path
    authority: Path


def server_context(
    certificate: Path, key: Path, authority: Path, client: bool = True, flaw: Flaw | None = None
) -> ssl.SSLContext:
    """For a listener: refuses a peer without a certificate of ``authority``.

    With ``client`` False a peer may come without one (to enrol); a bad one is still refused.
    ``flaw`` says of a peer's certificate (DER) what makes it nobody's, see `identity_of`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, authority)
    context.verify_mode = ssl.CERT_REQUIRED if client else ssl.CERT_OPTIONAL
    context.options |= ssl.OP_NO_TICKET  # sessions stay here: a ticket is a number, and no 1.3 kB of them
    context.num_tickets = 1 if client else 0
    context.sslobject_class = _judging(flaw)
    return context


def client_context(
    certificate: Path, key: Path, authority: Path, parent: tuple[str, str] | None = None
) -> ssl.SSLContext:
    """For a dialler: the server must be of ``authority`` and carry the host's name or address.

    With ``parent``, the role and name it must have, its identity is checked as well: another node
    of the fleet that can be reached under the parent's address is refused.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, authority)
    context.sslobject_class, context.sslsocket_class = _resuming(parent)
    return context


def foreign_context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """For a dialler to a server that is not of the fleet, TLS 1.2 at least; paths, '' for none.

    The server must have a certificate for its name, of ``authority`` or else of one that this machine knows.
    Raises `OSError` (also `ssl.SSLError`), with the file at fault as its ``filename``.
    """
    file = authority
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if certificate:
            file = certificate
            context.load_cert_chain(certificate, key)
    except OSError as error:
        error.filename = file
        raise
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def read_in_pieces() -> None:
    """asyncio reads `READ` bytes of a line with TLS at a time, in this process, instead of 256 KiB.

    It keeps as much for each line for ever, and asks the system for as much anew for each record of 16 KiB.
    """
    sslproto.SSLProtocol.max_size = READ


def reload_context(context: ssl.SSLContext, certificate: Path, key: Path, authority: Path) -> None:
    """Show a renewed certificate on new connections of an existing context.

    Raises `OSError` (also `ssl.SSLError`) and then changes nothing when the files do not fit.
    """
    _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, authority)
    context.load_cert_chain(certificate, key)
    if issubclass(context.sslobject_class, _Resumes):  # a session shows the certificate it began with
        context.sslobject_class.kept.session = None


def _context(protocol: int, certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context


class _LoggedObject(ssl.SSLObject):
    """A server's side of a handshake that says why it refused, here and to the other side.

    asyncio aborts a connection whose handshake failed before it has sent the alert, so the peer
    would hear nothing. Told that more is to be read it sends what waits; the peer then leaves, or
    is aborted when it goes on talking or at the end of the handshake's time.
    """

    _failures = 0

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failures += 1
            if self._failures == 1:
                log.warning("refused a connection: %s", _said(error))
            if self._failures > PATIENCE:
                raise
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the alert is to be sent") from error


def _judging(flaw: Flaw | None) -> type[_LoggedObject]:
    """A class whose peers' certificates say nothing but their flaw, when they have one."""

    class Judged(_LoggedObject):
        def getpeercert(self, binary_form: bool = False) -> Any:
            found, der = super().getpeercert(binary_form), super().getpeercert(True)
            if binary_form or not der:
                return found
            said = flaw(der) if flaw is not None else ""
            if not said and self.session_reused and _has_ended(found):
                said = "has ended"  # no handshake has looked at it again
            return {"flaw": said} if said else found

    return Judged


def _said(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return error.reason or str(error)


def _has_ended(peercert: Any) -> bool:
    return ends_s(peercert["notAfter"]) < time.time()


class _Kept:
    """The newest session of a dialler, to go on with on its next connection, from whatever address."""

    def __init__(self) -> None:
        self.session: ssl.SSLSession | None = None


class _Resumes:
    """A dialler's side of a handshake that goes on with the session of the connection before.

    Certificates are in neither direction then: they are those of the session. A server that does not know it
    any more asks for the whole handshake by itself. Each handshake ends with a look at who the server is.
    To be mixed into `ssl.SSLObject` or `ssl.SSLSocket`.
    """

    kept: _Kept
    parent: tuple[str, str] | None
    session: ssl.SSLSession | None
    _began = False
    _looks = LOOKS

    def do_handshake(self, *args: Any, **more: Any) -> None:
        self._begin()
        super().do_handshake(*args, **more)  # type: ignore[misc]  # of the class it is mixed into
        if self.parent is not None:
            _expect(self.getpeercert(), *self.parent)  # type: ignore[attr-defined]  # as above

    def read(self, *args: Any, **more: Any) -> Any:
        found = super().read(*args, **more)  # type: ignore[misc]  # of the class it is mixed into
        self._look()
        return found

    def _begin(self) -> None:
        """Before the handshake's first word."""
        if not self._began:
            self._began = True
            if self.kept.session is not None:
                self.session = self.kept.session

    def _look(self) -> None:
        """After a read: the session's ticket comes behind the handshake."""
        if self._looks:
            self._looks -= 1
            session = self.session
            if session is not None and session.has_ticket:
                self.kept.session, self._looks = session, 0


def _resuming(expected: tuple[str, str] | None) -> tuple[type[ssl.SSLObject], type[ssl.SSLSocket]]:
    """Classes that share a session and expect the same server."""
    one = _Kept()

    class Memory(_Resumes, ssl.SSLObject):
        kept, parent = one, expected

    class Socket(_Resumes, ssl.SSLSocket):
        kept, parent = one, expected

    return Memory, Socket


def _expect(peercert: Mapping[str, Any] | None, role: str, name: str) -> None:
    """Raises `ssl.SSLCertVerificationError`, which the stacks above handle as any other."""
    try:
        found = identity_of(peercert)
    except PermissionDenied as error:
        raise ssl.SSLCertVerificationError(1, error.message) from error
    if (found.role, found.name) != (role, name):
        said = f"the server is {found.uri}, expected {role} {name}"
        log.warning("certificate verify failed: %s", said)
        raise ssl.SSLCertVerificationError(1, f"certificate verify failed: {said}")


@lru_cache(maxsize=4096)
def ends_s(not_after: str) -> int:
    """When a certificate ends that says ``notAfter`` in such words, seconds since the epoch."""
    return ssl.cert_time_to_seconds(not_after)


def identity_of(peercert: Mapping[str, Any] | None) -> Identity:
    """Who the peer is, from what ``SSLObject.getpeercert()`` returned.

    Raises `PermissionDenied` unless there is exactly one URI of the form
    ``spiffe://<fleet>/<role>/<name>`` or, for what a site certifies, with the site's host.
    """
    peercert = peercert or {}
    if "flaw" in peercert:
        raise PermissionDenied(f"the peer's certificate {peercert['flaw']}")
    names = peercert.get("subjectAltName", ())
    uris = [value for kind, value in names if kind == "URI"]
    if len(uris) != 1:
        raise PermissionDenied(f"the peer's certificate names {len(uris)} identities instead of one")
    return parse_identity(uris[0])


@lru_cache(maxsize=4096)  # who asks is looked up on every request
def parse_identity(uri: str) -> Identity:
    """The identity a ``spiffe://`` URI spells; raises `PermissionDenied` for any other text.

    A site's host stands before `OF_A_SITE` roles only: what a site's authority certifies under
    another role is nobody.
    """
    wrong = PermissionDenied(f"{uri!r:.300} is not an identity of the form spiffe://fleet/role/name")
    try:
        parts = urlsplit(uri)
    except ValueError as error:  # half an IPv6 address
        raise wrong from error
    path = parts.path.split("/")
    site, _, fleet = parts.netloc.rpartition(".")
    found = [fleet, *path[1:], *([site] if site else [])]
    if parts.scheme != "spiffe" or len(path) != 3 or not all(map(is_name, found)):
        raise wrong
    identity = Identity(*found)
    if identity.uri != uri or (site and identity.role not in OF_A_SITE):
        raise wrong
    return identity
