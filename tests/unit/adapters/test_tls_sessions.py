"""A dialler goes on with its session: fewer bytes after a cut, from any address, and no right that has ended."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from reuna.adapters import tls
from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.tls import client_context, identity_of, reload_context, server_context
from reuna.core.errors import PermissionDenied


class Server:
    """Notes of each connection whether it was resumed, and what its certificate says when asked."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._pair = authority.pair("fog", "fog-1")
        self.seen: list[tuple[bool, str]] = []

    async def start(self, port: int = 0) -> None:
        context = server_context(self._pair.certificate, self._pair.key, self._pair.authority)
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=context)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = writer.get_extra_info("ssl_object")
        try:
            said = identity_of(line.getpeercert()).uri
        except PermissionDenied as error:
            said = error.message
        self.seen.append((line.session_reused, said))
        writer.write(b"hello")
        await reader.read()
        writer.close()


@pytest_asyncio.fixture
async def server(authority: CertificateAuthority) -> AsyncIterator[Server]:
    made = Server(authority)
    await made.start()
    yield made
    made.server.close()


def dialler(authority: CertificateAuthority, parent: tuple[str, str] = ("fog", "fog-1")) -> ssl.SSLContext:
    pair = authority.pair("edge", "edge-1")
    return client_context(pair.certificate, pair.key, pair.authority, parent)


async def dial(server: Server, context: ssl.SSLContext, address: str = "127.0.0.1") -> Any:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=context, local_addr=(address, 0)
    )
    assert await reader.readexactly(5) == b"hello"
    writer.close()
    await writer.wait_closed()
    return server.seen[-1]


ME = "spiffe://test-fleet/edge/edge-1"


async def test_the_next_connection_goes_on_with_the_session_also_from_another_address(
    server: Server, authority: CertificateAuthority
) -> None:
    context = dialler(authority)
    assert await dial(server, context) == (False, ME)
    assert await dial(server, context, "127.0.0.2") == (True, ME)
    assert await dial(server, context, "127.0.0.3") == (True, ME), "each brings the ticket of the next"
    assert await dial(server, dialler(authority)) == (False, ME), "another dialler has none"


async def test_a_renewed_certificate_is_shown_at_once(
    server: Server, authority: CertificateAuthority
) -> None:
    context, pair = dialler(authority), authority.pair("edge", "edge-1")
    await dial(server, context)
    reload_context(context, pair.certificate, pair.key, pair.authority)
    assert (await dial(server, context))[0] is False


async def test_a_server_that_knows_the_session_no_more_gets_the_whole_handshake(
    server: Server, authority: CertificateAuthority
) -> None:
    context = dialler(authority)
    await dial(server, context)
    server.server.close()
    await server.start(server.port)
    assert await dial(server, context) == (False, ME)


async def test_a_certificate_that_ended_since_is_nobodys_in_a_resumed_session(
    server: Server, authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = dialler(authority)
    await dial(server, context)
    ends = time.time() + 100 * 365 * 86_400

    class Later:
        time = staticmethod(lambda: ends)

    monkeypatch.setattr(tls, "time", Later)
    assert await dial(server, context) == (True, "the peer's certificate has ended")


async def test_a_server_of_another_name_is_refused_whatever_the_session(
    server: Server, authority: CertificateAuthority
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="expected fog fog-2"):
        await dial(server, dialler(authority, ("fog", "fog-2")))
