"""Word of an alarm to people who do not look: an HTTPS request with JSON, or a mail.

Each takes what `reuna.cloud.monitor` says of an alarm. Of a node's data only names of signals are in it.
"""

from __future__ import annotations

import json
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from typing import Any, Protocol
from urllib.parse import urlsplit

import urllib3

from reuna.core.errors import SettingsError, Unreachable

TIMEOUT_S = 10.0


class Channel(Protocol):
    """One way to reach people; blocking. ``name`` stands for it in the alarm's record."""

    @property
    def name(self) -> str: ...
    def send(self, said: Mapping[str, Any]) -> None: ...


class Webhook:
    """``POST URL`` with the alarm as JSON; any 2xx is an arrival. The same alarm may come twice."""

    name = "webhook"

    def __init__(self, url: str, authority: str = "") -> None:
        self._url = url
        tls = ssl.create_default_context(cafile=authority or None)
        self._pool = urllib3.PoolManager(ssl_context=tls, timeout=urllib3.Timeout(TIMEOUT_S), retries=False)

    def send(self, said: Mapping[str, Any]) -> None:
        """Raises `Unreachable`."""
        try:
            answer = self._pool.request("POST", self._url, json=dict(said), redirect=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(f"{_host(self._url)}: {error}") from error
        if not 200 <= answer.status < 300:
            raise Unreachable(f"{_host(self._url)} answers {answer.status}")


class Mail:
    """A mail through ``smtp://HOST:PORT`` or ``smtps://``; without a sign-in, as inside of a plant."""

    name = "mail"

    def __init__(self, server: str, sender: str, to: Sequence[str]) -> None:
        self._server = urlsplit(server)
        self._sender = sender
        self._to = tuple(to)

    def send(self, said: Mapping[str, Any]) -> None:
        """Raises `Unreachable`."""
        message = EmailMessage()
        message["Subject"] = f"[{said['fleet']}] {said['sentence']}"[:200].replace("\n", " ")
        message["From"], message["To"] = self._sender, ", ".join(self._to)
        message.set_content(f"{said['sentence']}\n\nTo say that you have seen it: {said['next_step']}\n\n"
                            f"{json.dumps(said, indent=2)}\n")  # fmt: skip
        host, port = self._server.hostname or "", self._server.port
        try:
            if self._server.scheme == "smtps":
                with smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT_S) as server:
                    server.send_message(message)
            else:
                with smtplib.SMTP(host, port or 25, timeout=TIMEOUT_S) as server:
                    if server.has_extn("starttls"):
                        server.starttls(context=ssl.create_default_context())
                    server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise Unreachable(f"{_host(self._server.geturl())}: {error}") from error


def channels_of(settings: Mapping[str, Any]) -> list[Channel]:
    """Those that the cloud's settings name. Raises `SettingsError` for one that cannot be."""
    found: list[Channel] = []
    if url := settings["alarms.webhook"]:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise SettingsError(f"alarms.webhook is {url!r}, expected http(s)://HOST/PATH")
        found.append(Webhook(url, settings["alarms.authority"]))
    if server := settings["alarms.mail_server"]:
        if urlsplit(server).scheme not in ("smtp", "smtps") or not urlsplit(server).hostname:
            raise SettingsError(f"alarms.mail_server is {server!r}, expected smtp://HOST or smtps://HOST")
        if not settings["alarms.mail_to"]:
            raise SettingsError("alarms.mail_server has nobody to write to", "Name them in alarms.mail_to.")
        found.append(Mail(server, settings["alarms.mail_from"], settings["alarms.mail_to"]))
    return found


def _host(url: str) -> str:
    """Without a path, in which a secret may stand."""
    return f"{urlsplit(url).scheme}://{urlsplit(url).hostname}"
