"""A client of a broker, by its settings. ``what`` stands in complaints: ``source line``, ``sink alarms``."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuna.adapters.clock import unless_cancelled
from reuna.adapters.tls import foreign_context
from reuna.core.errors import ExtraMissing, KeyProblem
from reuna.core.mqtt_settings import Broker

if TYPE_CHECKING:
    from aiomqtt import Client

KEEPALIVE_S, ANSWER_S = 15, 10  #: a broker that says nothing for 1.5 times as long is away
LEAVE_S = 1.0  #: how long taking leave of a broker may take


def failure_of(what: str) -> type[Exception]:
    """What aiomqtt raises. Raises `ExtraMissing` without it."""
    try:
        from aiomqtt import MqttError
    except ImportError:
        raise ExtraMissing(f"{what}: aiomqtt is not installed", "Run `pip install 'reuna[mqtt]'`.") from None
    return MqttError


def client_of(what: str, broker: Broker, **more: Any) -> Client:
    """A client that is not connected yet. Raises `KeyProblem` for the broker's files."""
    from aiomqtt import Client

    return Client(
        broker.host,
        broker.port,
        username=broker.user or None,
        password=_password(what, broker) if broker.password_file else None,
        identifier=broker.client_id or None,
        keepalive=KEEPALIVE_S,
        timeout=ANSWER_S,
        logger=_silent(),
        tls_context=_context(what, broker) if broker.tls else None,
        **{"clean_session": not broker.session, **more},
    )


@asynccontextmanager
async def connected(client: Client, failure: type[Exception]) -> AsyncIterator[None]:
    """Connected; a broker that does not take leave in time changes nothing of how it ended."""
    await client.__aenter__()
    try:
        unless_cancelled()
        yield
    finally:
        client.timeout = LEAVE_S
        with suppress(failure):
            await client.__aexit__(None, None, None)


async def while_connected(work: Coroutine[Any, Any, None], ending: asyncio.Task[None]) -> None:
    """Carry out work over a connection; ``ending`` is over when that is. Raises `ConnectionError` then."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ConnectionResetError("the connection ended")
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _silent() -> logging.Logger:
    """What goes wrong is told once and in our words."""
    log = logging.getLogger("reuna.mqtt")
    log.setLevel(logging.CRITICAL)
    return log


def _password(what: str, broker: Broker) -> str:
    try:
        lines = Path(broker.password_file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(what, broker.password_file, error) from error
    return lines[0] if lines else ""


def _context(what: str, broker: Broker) -> ssl.SSLContext:
    try:
        return foreign_context(broker.authority, broker.certificate, broker.key)
    except OSError as error:
        raise _unusable(what, error.filename, error) from error


def _unusable(what: str, file: str, error: Exception) -> KeyProblem:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return KeyProblem(f"{what}: {file} cannot be used: {said}", "Correct its name in the settings.")
