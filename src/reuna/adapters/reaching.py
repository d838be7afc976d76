"""Reaching the other side of a source, step by step: its name, its port, its certificate, and ours."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from reuna.adapters.tls import foreign_context
from reuna.core.findings import DOUBTFUL, FINE, WRONG, Finding, certificate
from reuna.core.ports import Clock
from reuna.core.source_kinds import Peer

PATIENCE_S = 5.0


async def reach(source: str, peer: Peer, clock: Clock) -> list[Finding]:
    """What is found on the way to a peer, up to the first step that is wrong."""
    found: list[Finding] = []
    async for finding in _steps(source, peer, clock):
        found.append(finding)
        if finding.level == WRONG:
            break
    return found


async def _steps(source: str, peer: Peer, clock: Clock) -> AsyncIterator[Finding]:
    yield await _name(source, peer)
    yield await _port(source, peer)
    if peer.readable:
        what = "the password travels where anyone on the way can read it"
        yield Finding(source, "password", DOUBTFUL, what, "Use TLS: say `authority`, or tls = true.")
    if peer.certificate:
        yield _ours(source, peer, clock)
    if peer.tls:
        yield await _theirs(source, peer, clock)


async def _name(source: str, peer: Peer) -> Finding:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE_S):
            found = await loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        step = "Correct `host`, or ask who runs the plant's DNS; an address works too."
        return Finding(source, "name", WRONG, f"{peer.host} has no address: {_said(error)}", step)
    addresses = dict.fromkeys(str(each[4][0]) for each in found)
    return Finding(source, "name", FINE, f"{peer.host} is {', '.join(addresses)}")


async def _port(source: str, peer: Peer) -> Finding:
    where = f"port {peer.port} of {peer.host}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(peer.host, peer.port)
    except OSError as error:
        step = "See that it runs and listens there, and that no firewall stands between."
        return Finding(source, "port", WRONG, f"{where} does not open: {_said(error)}", step)
    await _closed(writer)
    return Finding(source, "port", FINE, f"{where} opens")


def _ours(source: str, peer: Peer, clock: Clock) -> Finding:
    try:
        shown = x509.load_pem_x509_certificates(Path(peer.certificate).read_bytes())[0]
    except (OSError, ValueError, IndexError) as error:
        step = "Correct `certificate`: a PEM file."
        return Finding(source, "certificate", WRONG, f"{peer.certificate} cannot be read: {error}", step)
    return certificate(source, "ours", shown.not_valid_after_utc.timestamp() - clock.now())


async def _theirs(source: str, peer: Peer, clock: Clock) -> Finding:
    try:
        context = foreign_context(peer.authority, peer.certificate, peer.key)
        async with asyncio.timeout(PATIENCE_S):
            _, writer = await asyncio.open_connection(
                peer.host, peer.port, ssl=context, server_hostname=peer.host
            )
    except ssl.SSLCertVerificationError as error:
        what = f"the certificate of {peer.host} is not accepted: {error.verify_message}"
        step = "Say the right `authority`, correct `host`, or renew the certificate there."
        return Finding(source, "certificate", WRONG, what, step)
    except OSError as error:
        file = f"{error.filename}: " if error.filename else ""
        step = "Correct the files that the settings name; see that TLS is spoken at that port."
        return Finding(source, "certificate", WRONG, f"no TLS: {file}{_said(error)}", step)
    shown = writer.get_extra_info("peercert")
    await _closed(writer)
    ends = ssl.cert_time_to_seconds(shown["notAfter"])
    return certificate(source, f"that of {peer.host}", ends - clock.now())


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await writer.wait_closed()


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {PATIENCE_S:.0f} s"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
