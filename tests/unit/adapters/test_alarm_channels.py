"""Word of an alarm arrives at a real web server and a real mail server, or it is said that it did not."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from reuna.adapters.alarm_channels import Mail, Webhook, channels_of
from reuna.cloud.settings import CLOUD
from reuna.core.errors import SettingsError, Unreachable
from reuna.fleet.ports import free_ports

SAID = {"fleet": "demo", "id": "1", "sentence": "the process moved", "next_step": "reuna watch acknowledge 1"}
DEFAULTS = {option.name: option.default for option in CLOUD}


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[misc]  # of an IPv4 server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Web(BaseHTTPRequestHandler):
    """Keeps what it is sent; answers as the path says."""

    got: list[Any] = []  # noqa: RUF012  # of this test alone

    def do_POST(self) -> None:
        self.got.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(int(self.path.rsplit("/", 1)[1]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Post(socketserver.StreamRequestHandler):
    """A mail server by RFC 5321 that takes one mail; written apart from the client."""

    got: list[str] = []  # noqa: RUF012  # of this test alone

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in iter(self.rfile.readline, b""):
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                self.got.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
            if line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 fine\r\n")


def test_a_webhook_is_sent_the_alarm_as_json() -> None:
    with running(HTTPServer(("127.0.0.1", 0), Web)) as port:
        Webhook(f"http://127.0.0.1:{port}/204").send(SAID)
    kind, body = Web.got[-1]
    assert (kind, json.loads(body)) == ("application/json", SAID)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_what_a_webhook_does_not_take_has_not_arrived(status: int) -> None:
    with (
        running(HTTPServer(("127.0.0.1", 0), Web)) as port,
        pytest.raises(Unreachable, match=f"answers {status}"),
    ):
        Webhook(f"http://127.0.0.1:{port}/secret/{status}").send(SAID)


def test_a_mail_says_what_and_what_to_do() -> None:
    with running(socketserver.TCPServer(("127.0.0.1", 0), Post)) as port:
        Mail(f"smtp://127.0.0.1:{port}", "reuna@plant", ["anna@plant", "kai@plant"]).send(SAID)
    mail = Post.got[-1]
    assert "Subject: [demo] the process moved" in mail
    assert "To: anna@plant, kai@plant" in mail
    assert "reuna watch acknowledge 1" in mail


def test_where_nobody_listens_that_is_said_without_the_secret_in_the_path() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unreachable) as webhook:
        Webhook(f"http://127.0.0.1:{port}/a-secret").send(SAID)
    assert webhook.value.message.startswith("http://127.0.0.1: ")
    with pytest.raises(Unreachable, match=r"smtp://127\.0\.0\.1"):
        Mail(f"smtp://127.0.0.1:{port}", "reuna@plant", ["anna@plant"]).send(SAID)


def test_settings_name_the_channels() -> None:
    both = {
        "alarms.webhook": "https://hooks/x",
        "alarms.mail_server": "smtp://mail",
        "alarms.mail_to": ["anna@plant"],
    }
    assert [each.name for each in channels_of(DEFAULTS | both)] == ["webhook", "mail"]
    assert channels_of(DEFAULTS) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"alarms.webhook": "hooks/x"}, "alarms.webhook"),
        ({"alarms.webhook": "file:///etc/passwd"}, "alarms.webhook"),
        ({"alarms.mail_server": "mail"}, "alarms.mail_server"),
        ({"alarms.mail_server": "smtp://mail"}, "nobody to write to"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_message(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        channels_of(DEFAULTS | wrong)
