"""Opening a connection to an OPC UA server: security, user, clocks.

Loaded only when a source is read: the library takes 0.4 s and 29 MB. Requests that could change something
at a server do not leave: `ReadOnly` stands before every one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import CertProperties
from asyncua.observer import Observer
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from reuna.adapters.files import storage_error, system_error
from reuna.adapters.opcua.certificates import (
    Identity,
    Trust,
    chain_of,
    judge,
    own_identity,
    read_trust,
)
from reuna.adapters.opcua.refusals import NO_POLICY, Lost, in_our_words
from reuna.adapters.opcua.session import Session, ns_at, value_of
from reuna.core.errors import KeyProblem, Unreachable
from reuna.core.opcua_settings import OpcUaSettings
from reuna.core.ports import Clock, Offload
from reuna.core.sources import NS, ns_of

__all__ = ["READS", "Lost", "ReadOnly", "opened", "server_certificates"]

URI = "urn:reuna:client"  #: of a client without a certificate
ANSWER_S = 4.0  #: for one request
LEAST_SESSION_S = 60.0  #: how long a server keeps a session whose line is down
POLICIES: dict[str, type[security_policies.SecurityPolicy]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
#: Requests that may leave. None of them changes a value, calls a method or adds a node.
READS = frozenset(
    f"{name}Request"
    for name in (
        "GetEndpoints", "CreateSession", "ActivateSession", "CloseSession", "Read", "HistoryRead",
        "TranslateBrowsePathsToNodeIds", "CreateSubscription", "DeleteSubscriptions", "CreateMonitoredItems",
        "Publish",
    )
)  # fmt: skip

log = logging.getLogger(__name__)
if not logging.getLogger().isEnabledFor(logging.DEBUG):
    # What the library logs of lost connections, with traces, is said here in one line.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class ReadOnly(Observer):  # type: ignore[misc]  # it has no types
    """Stands before every request that the library sends, and lets none pass that is not of `READS`."""

    def observe_request(self, request: Any) -> AbstractContextManager[None]:
        name = type(request).__name__
        if name not in READS:
            raise PermissionError(f"a source only reads: {name} does not leave")
        return nullcontext()


@asynccontextmanager
async def opened(
    settings: OpcUaSettings, clock: Clock, offload: Offload, strict: bool, gate: ReadOnly | None = None
) -> AsyncIterator[Session]:
    """A connection with an active session. ``gate``: what stands before its requests.

    Raises `Lost` when the server cannot be reached; `Unreachable`, `KeyProblem` or `NotUsable` for what
    somebody has to correct first, when ``strict`` for a clock that is too far away, too.
    """
    client = Client(
        settings.url, timeout=min(ANSWER_S, settings.silence_s), watchdog_intervall=settings.silence_s / 2
    )
    client.uaclient.observer = gate or ReadOnly()
    client.name = client.description = "Reuna"
    client.application_uri = URI
    client.session_timeout = int(1000 * max(LEAST_SESSION_S, 4 * settings.silence_s))
    session = Session(client, settings, clock, patience_s=settings.silence_s)

    async def ended(error: Exception) -> None:
        session.lost("the connection ended")

    client.connection_lost_callback = ended
    try:
        with in_our_words(settings):
            identity = await _secured(client, settings, clock, offload)
            if settings.user:
                client.set_user(settings.user)
                client.set_password(await offload(lambda: _password(Path(settings.password_file))))
        with in_our_words(settings, identity):
            await client.connect()
            session.offset_ns = await _offset(session, strict)
        yield session
    finally:
        try:
            with contextlib.suppress(Exception):
                await client.disconnect()
        finally:
            client.disconnect_socket()


async def server_certificates(url: str) -> list[Certificate]:
    """Each certificate that a server shows. Raises `Lost`, `Unreachable`."""
    client = Client(url, timeout=ANSWER_S)
    client.uaclient.observer = ReadOnly()
    with in_our_words(OpcUaSettings("", url, (), security="none")):
        found = await client.connect_and_get_server_endpoints()
    ders = dict.fromkeys(each.ServerCertificate for each in found if each.ServerCertificate)
    return list(dict.fromkeys(chain_of(der)[0] for der in ders))


async def _secured(
    client: Client, settings: OpcUaSettings, clock: Clock, offload: Offload
) -> Identity | None:
    """Set the policy, once the server's certificate is found good. Raises as `opened`."""
    if settings.security == "none":
        return None
    now = datetime.fromtimestamp(clock.now(), UTC)
    identity = await offload(lambda: own_identity(Path(settings.certificate), Path(settings.key), now))
    trust = await offload(lambda: read_trust(settings.server_certificate, settings.trust))
    chain = await _shown(client, settings, trust)
    judge(chain, trust, settings.host, now)
    client.application_uri = identity.uri
    await client.set_security(
        POLICIES[settings.security],
        CertProperties(identity.der, "der"),
        CertProperties(identity.key_pem, "pem"),
        server_certificate=CertProperties(chain[0].public_bytes(Encoding.DER), "der"),
        mode=ua.MessageSecurityMode[settings.mode],
    )
    return identity


async def _shown(client: Client, settings: OpcUaSettings, trust: Trust) -> list[Certificate]:
    """The certificate that the server shows, with its chain.

    Of a server that shows none without security the pinned one is taken: no other can then open the channel.
    """
    try:
        endpoints = await client.connect_and_get_server_endpoints()
    except ua.UaStatusCodeError as error:
        if error.code not in NO_POLICY:
            raise
        if trust.pinned is None:
            raise Unreachable(
                f"{settings.url} does not show its certificate without security",
                "Copy it from the server, and name it as `server_certificate`.",
            ) from error
        if settings.user and settings.mode == "Sign":
            raise Unreachable(
                f"{settings.url} does not say whether it takes a password unencrypted",
                'Say mode = "SignAndEncrypt".',
            ) from error
        return [trust.pinned]
    return chain_of(_endpoint(endpoints, settings).ServerCertificate)


def _endpoint(found: Sequence[ua.EndpointDescription], settings: OpcUaSettings) -> ua.EndpointDescription:
    """The endpoint of the policy and mode that the settings name. Raises `Unreachable`: what there is."""
    uri, mode = POLICIES[settings.security].URI, ua.MessageSecurityMode[settings.mode]
    for each in found:
        if each.SecurityPolicyUri == uri and each.SecurityMode == mode:
            _check_token(each, settings)
            return each
    offered = sorted(
        {f"{each.SecurityPolicyUri.rpartition('#')[2]} {each.SecurityMode.name}" for each in found}
    )
    there = ", ".join(offered) or "nothing"
    raise Unreachable(
        f"{settings.url} does not offer {settings.security} {settings.mode}, but {there}",
        "Set `security` and `mode` to what it offers, or enable the policy at the server.",
    )


def _check_token(endpoint: ua.EndpointDescription, settings: OpcUaSettings) -> None:
    """A password leaves only encrypted, and only where the server takes one. Raises `Unreachable`."""
    if not settings.user:
        return
    tokens = [each for each in endpoint.UserIdentityTokens if each.TokenType == ua.UserTokenType.UserName]
    if not tokens:
        raise Unreachable(f"{settings.url} takes no user names", "Take `user` out of the settings.")
    policy = tokens[0].SecurityPolicyUri or endpoint.SecurityPolicyUri
    if policy == security_policies.SecurityPolicyNone.URI and settings.mode == "Sign":
        raise Unreachable(
            f"{settings.url} would take the password unencrypted", 'Say mode = "SignAndEncrypt".'
        )


def _password(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise system_error(error) or storage_error(error, path) from error
    except UnicodeDecodeError as error:
        raise KeyProblem(f"{path} is not UTF-8", "Write the password in its first line.") from error
    if not lines or not lines[0]:
        raise KeyProblem(f"{path} has no password in its first line", "Write it there.")
    return lines[0]


async def _offset(session: Session, strict: bool) -> int:
    """How far the server's clock is ahead, ns. Raises `Unreachable` when it is too far and ``strict``."""
    settings, clock = session.settings, session.clock
    before = clock.now()
    (found,) = await session.client.uaclient.read_attributes(
        [ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)], ua.AttributeIds.Value
    )
    now_ns = ns_of((before + clock.now()) / 2)
    moment = value_of(found)
    if settings.timestamps == "arrival" or not isinstance(moment, datetime):
        return 0
    ahead_ns = (ns_at(moment) or now_ns) - now_ns
    if settings.clock_s and abs(ahead_ns) > ns_of(settings.clock_s):
        way = "ahead of" if ahead_ns > 0 else "behind"
        said = f"the clock of {settings.url} is {abs(ahead_ns) / NS:.0f} s {way} this machine's"
        if strict:
            raise Unreachable(
                said,
                'Set both by one time server (NTP); or raise `clock_s`, or say timestamps = "arrival".',
            )
        log.warning("source %s: %s; readings have the server's times", settings.name, said)
    return ahead_ns
