"""An attempt to connect that is given up ends, wherever it was: a fleet that starts at once has slow servers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.nats_bus import GIVE_UP_S, NatsBus
from reuna.adapters.tls import client_context, server_context
from reuna.core.errors import BusDown

TRIES = 20


@pytest.mark.parametrize("handshake", [False, True], ids=["no handshake", "a handshake and no word"])
async def test_an_attempt_that_is_given_up_at_any_moment_ends_soon(tmp_path: Path, handshake: bool) -> None:
    """Planted: nats-py loses a cancellation now and then, and then dials for ever; its node never comes back."""
    authority = CertificateAuthority.create(tmp_path, "demo")
    hub, fog = authority.issue("cloud", "cloud", ["127.0.0.1"]), authority.issue("fog", "north")
    serving = server_context(hub.certificate, hub.key, hub.authority) if handshake else None
    over = asyncio.Event()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0, ssl=serving)
    url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    dialling = client_context(fog.certificate, fog.key, fog.authority, ("cloud", "cloud"))

    async def given_up(after_s: float) -> float:
        began = time.monotonic()
        with pytest.raises(BusDown):
            await NatsBus.connect(url, dialling, "north", timeout_s=after_s)
        return time.monotonic() - began - after_s

    async with server:
        async with asyncio.timeout(30):
            took = await asyncio.gather(*(given_up(0.005 * number) for number in range(1, TRIES + 1)))
        over.set()
    assert max(took) < 3 * GIVE_UP_S + 2.0
