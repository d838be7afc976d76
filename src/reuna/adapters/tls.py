"""TLS contexts and the identity in a peer's certificate, with the standard library alone.

Both ends show a certificate of the fleet's own authority; nothing below TLS 1.3 is spoken.
Issuing certificates is in `reuna.adapters.certificates`, which a device does not need.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reuna.core.errors import PermissionDenied
from reuna.core.records import Identity
from reuna.core.subjects import is_name


@dataclass(frozen=True)
class KeyPair:
    """Where an identity's certificate, private key and authority's certificate lie (PEM)."""

    certificate: Path
    key: Path
    authority: Path


def server_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """For a listener: refuses a peer without a certificate of ``authority``."""
    return _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, authority)


def client_context(certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    """For a dialler: the server must be of ``authority`` and carry the host's name or address."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, authority)


def _context(protocol: int, certificate: Path, key: Path, authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context


def identity_of(peercert: Mapping[str, Any] | None) -> Identity:
    """Who the peer is, from what ``SSLObject.getpeercert()`` returned.

    Raises `PermissionDenied` unless there is exactly one URI of the form
    ``spiffe://<fleet>/<role>/<name>``.
    """
    names = (peercert or {}).get("subjectAltName", ())
    uris = [value for kind, value in names if kind == "URI"]
    if len(uris) != 1:
        raise PermissionDenied(f"the peer's certificate names {len(uris)} identities instead of one")
    return parse_identity(uris[0])


def parse_identity(uri: str) -> Identity:
    """The identity a ``spiffe://`` URI spells; raises `PermissionDenied` for any other text."""
    parts = urlsplit(uri)
    path = parts.path.split("/")
    found = [parts.netloc, *path[1:]]
    if parts.scheme != "spiffe" or len(found) != 3 or not all(map(is_name, found)):
        raise PermissionDenied(f"{uri!r} is not an identity of the form spiffe://fleet/role/name")
    identity = Identity(*found)
    if identity.uri != uri:
        raise PermissionDenied(f"{uri!r} is not an identity of the form spiffe://fleet/role/name")
    return identity
