"""Enrolment over HTTPS, the authority's side, in the form of EST (RFC 7030).

    GET  /.well-known/est/cacerts              the fleet's root, for whoever knows its fingerprint
    GET  /v1/invitation                        settings for the machine that holds a token
    POST /.well-known/est/simpleenroll         token and request -> first certificate
    POST /.well-known/est/simplereenroll       certificate and request -> next certificate
    POST /.well-known/est/site/simplereenroll  a fog's certificate and request -> its site's authority
    POST /v1/sites/below?name=N&under=M        the same for the site of a fog N under M, by a fog over both
    POST /v1/recover                           an ended certificate and a request of its key
    GET  /v1/revoked                           names that were revoked, for fogs

Tokens come as HTTP Basic authentication (RFC 7030, 3.2.3), certificates as TLS client
certificates; a client without one may only enrol or recover. Requests are base64 of PKCS #10,
answers base64 of certificates-only PKCS #7. Other EST servers can take this one's place for
`reuna.core.ports.CertificateSource`; tokens then come from them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
from aiohttp import BasicAuth, web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from reuna.adapters.tls import identity_of
from reuna.core.errors import NotAdmitted, PermissionDenied, PortInUse, ReunaError
from reuna.core.foreign import UNREADABLE
from reuna.core.records import Identity

log = logging.getLogger("reuna.enrolment")
MAX_BODY = 65_536  #: bytes of a request
TIMEOUT_S = 20.0  #: to read one
PKCS7 = "application/pkcs7-mime"
Chain = Sequence[x509.Certificate]
InForce = Callable[[Chain], Awaitable[None]]  #: waits until the place lets the holder in


class Enroller(Protocol):
    """Decides and certifies. Each call blocks for some milliseconds; raises `NotAdmitted`."""

    def roots(self) -> Chain: ...
    def invitation(self, secret: str) -> dict[str, object]: ...
    def enrol(self, secret: str, request: bytes) -> Chain: ...
    def renew(self, identity: Identity, certificate: bytes, request: bytes) -> Chain: ...
    def renew_site(self, identity: Identity, request: bytes) -> Chain: ...
    def certify_below(self, identity: Identity, name: str, under: str, request: bytes) -> Chain: ...
    def recover(self, certificate: bytes, request: bytes) -> Chain: ...
    def revoked(self, identity: Identity) -> list[str]: ...


class Recovery(msgspec.Struct):
    """Body of ``/v1/recover``: DER of the ended certificate and of a request by the same key."""

    certificate: bytes
    request: bytes


class EnrolServer:
    """A running server; `stop` ends it."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port

    async def stop(self) -> None:
        await self._runner.cleanup()


async def serve_enrolment(
    enroller: Enroller, host: str, port: int, tls: ssl.SSLContext, in_force: InForce
) -> EnrolServer:
    """Listen; ``tls`` must take clients without a certificate. Raises `PortInUse`.

    A first certificate is handed out once ``in_force`` returns for it, so that the machine is let in
    wherever it goes with it.
    """
    runner = web.AppRunner(enrolment_app(enroller, in_force), access_log=None, keepalive_timeout=5.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port, ssl_context=tls)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise PortInUse(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return EnrolServer(runner, runner.addresses[0][1])


def enrolment_app(enroller: Enroller, in_force: InForce) -> web.Application:
    """The routes over ``enroller``."""
    app = web.Application(middlewares=[_refusals], client_max_size=MAX_BODY)

    async def roots(_request: web.Request) -> web.Response:
        return _certificates(enroller.roots())

    async def invitation(request: web.Request) -> web.Response:
        secret = _secret(request)
        return web.json_response(await asyncio.to_thread(enroller.invitation, secret))

    async def enrol(request: web.Request) -> web.Response:
        secret, csr = _secret(request), await _request(request)
        chain = await asyncio.to_thread(enroller.enrol, secret, csr)
        await in_force(chain)
        return _certificates(chain)

    async def renew(request: web.Request) -> web.Response:
        (identity, der), csr = _client(request), await _request(request)
        return _certificates(await asyncio.to_thread(enroller.renew, identity, der, csr))

    async def renew_site(request: web.Request) -> web.Response:
        (identity, _), csr = _client(request), await _request(request)
        return _certificates(await asyncio.to_thread(enroller.renew_site, identity, csr))

    async def certify_below(request: web.Request) -> web.Response:
        (identity, _), csr = _client(request), await _request(request)
        name, under = request.query.get("name", ""), request.query.get("under", "")
        return _certificates(await asyncio.to_thread(enroller.certify_below, identity, name, under, csr))

    async def recover(request: web.Request) -> web.Response:
        body = _recovery(await _body(request))
        return _certificates(await asyncio.to_thread(enroller.recover, body.certificate, body.request))

    async def revoked(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(enroller.revoked, _client(request)[0]))

    app.router.add_get("/v1/revoked", revoked)
    app.router.add_get("/.well-known/est/cacerts", roots)
    app.router.add_get("/v1/invitation", invitation)
    app.router.add_post("/.well-known/est/simpleenroll", enrol)
    app.router.add_post("/.well-known/est/simplereenroll", renew)
    app.router.add_post("/.well-known/est/site/simplereenroll", renew_site)
    app.router.add_post("/v1/sites/below", certify_below)
    app.router.add_post("/v1/recover", recover)
    return app


def _certificates(chain: Chain) -> web.Response:
    data = pkcs7.serialize_certificates(list(chain), Encoding.DER)
    headers = {"Content-Type": f"{PKCS7}; smime-type=certs-only", "Content-Transfer-Encoding": "base64"}
    return web.Response(body=base64.encodebytes(data), headers=headers)


def _secret(request: web.Request) -> str:
    """The token's secret, the password of HTTP Basic authentication. Raises `NotAdmitted`."""
    try:
        return str(BasicAuth.decode(request.headers.get("Authorization", "")).password)
    except ValueError as error:
        raise NotAdmitted("malformed", "the request carries no token") from error


def _client(request: web.Request) -> tuple[Identity, bytes]:
    """Who asks, and its certificate (DER). Raises `PermissionDenied`."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    if tls is None or der is None:
        raise PermissionDenied("a renewal needs the certificate that it renews")
    return identity_of(tls.getpeercert()), der


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise NotAdmitted("malformed", "the request did not come to its end") from None


async def _request(request: web.Request) -> bytes:
    try:
        return base64.b64decode(await _body(request), validate=False)
    except binascii.Error as error:
        raise NotAdmitted("malformed", f"the request is not base64: {error}") from error


def _recovery(data: bytes) -> Recovery:
    try:
        return msgspec.msgpack.decode(data, type=Recovery)
    except UNREADABLE as error:
        raise NotAdmitted("malformed", f"the request cannot be read: {error}") from error


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is refused is logged here and told to the other side, with the same reason."""
    try:
        return await handler(request)
    except NotAdmitted as error:
        return _refused(request, error.reason, error, 403)
    except PermissionDenied as error:
        return _refused(request, "role", error, 403)
    except ReunaError as error:
        return _refused(request, "", error, 503)


def _refused(request: web.Request, reason: str, error: ReunaError, status: int) -> web.Response:
    log.warning("refused %s from %s: %s %s", request.path, request.remote, reason or error.code, error)
    body = {"reason": reason, "message": error.message, "next_step": error.next_step}
    return web.json_response(body, status=status)
