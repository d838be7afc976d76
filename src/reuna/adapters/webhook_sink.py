"""The sink ``webhook``: each delivery is a ``POST`` with JSON; any answer of 200 to 299 is an arrival.

{"format": "reuna/answers/v1", "answers": [...]}
{"format": "reuna/alarms/v1", "alarms": [...]}
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
import urllib3

from reuna.adapters.tls import foreign_context
from reuna.core.errors import KeyProblem, Unreachable
from reuna.core.notices import NodeAlarm
from reuna.core.ports import Offload
from reuna.core.sink_settings import WebhookTarget
from reuna.core.sinks import Said

log = logging.getLogger("reuna.sinks")
FORMAT, FORMAT_OF_ALARMS = "reuna/answers/v1", "reuna/alarms/v1"
TIMEOUT_S = 10.0
NEVER = (400, 413, 415, 422)  #: it takes none like these; all else may be taken later


class WebhookSink:
    """The `Sink` port on a server. Raises `KeyProblem` for its files."""

    def __init__(self, name: str, target: WebhookTarget, offload: Offload) -> None:
        self._name = name
        self._target = target
        self._offload = offload
        try:
            context = foreign_context(target.authority, target.certificate, target.key)
        except OSError as error:
            raise _unusable(name, error.filename, error) from error
        self._pool = urllib3.PoolManager(
            ssl_context=context, timeout=urllib3.Timeout(TIMEOUT_S), retries=False, maxsize=1
        )

    def encode(self, said: Said) -> tuple[bytes, ...]:
        """See `Sink.encode`."""
        if isinstance(said[0], NodeAlarm):
            return (msgspec.json.encode({"format": FORMAT_OF_ALARMS, "alarms": said}),)
        return (msgspec.json.encode({"format": FORMAT, "answers": said}),)

    async def send(self, messages: Sequence[bytes]) -> bool:
        """See `Sink.send`. Raises `Unreachable`."""
        return await self._offload(lambda: all(map(self._post, messages)))

    async def close(self) -> None:
        """See `Sink.close`."""
        self._pool.clear()

    def _post(self, body: bytes) -> bool:
        where = self._target.address
        headers = {"content-type": "application/json", **self._signed_in()}
        try:
            answer = self._pool.request(
                "POST", self._target.url, body=body, headers=headers, redirect=False, preload_content=False
            )
            answer.close()  # whatever it has to say
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # also a token that is none
            raise Unreachable(f"{where}: {error}") from error
        if answer.status in NEVER:
            log.warning("sink %s: %s answers %d; this is dropped", self._name, where, answer.status)
            return False
        if not 200 <= answer.status < 300:
            raise Unreachable(f"{where} answers {answer.status}")
        return True

    def _signed_in(self) -> dict[str, str]:
        """Read each time, so that a new token needs no restart."""
        file = self._target.token_file
        if not file:
            return {}
        try:
            lines = Path(file).read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Unreachable(f"sink {self._name}: {file} cannot be read: {error}") from error
        return {"authorization": f"Bearer {lines[0] if lines else ''}"}


def _unusable(name: str, file: str, error: Exception) -> KeyProblem:
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return KeyProblem(f"sink {name}: {file} cannot be used: {what}", "Correct its name in the settings.")
