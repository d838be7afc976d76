"""Answers to a real web server: they arrive, wait, or are refused for good."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.clock import ThreadOffload
from reuna.adapters.webhook_sink import WebhookSink
from reuna.core.errors import KeyProblem, Unreachable
from reuna.core.outcomes import Outcome
from reuna.core.sink_settings import WebhookTarget
from reuna.core.sinks import told

ANSWER = told("edge-1", Outcome("p", 1, "d" * 64, 1, 3, "answered", 1.0, (0.25, 0.75)))


class Web(BaseHTTPRequestHandler):
    """Keeps what it is sent; answers as the path says."""

    got: list[Any] = []  # noqa: RUF012  # of this test alone

    def do_POST(self) -> None:
        self.got.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(int(self.path.partition("?")[0].rsplit("/", 1)[1]))
        self.send_header("Location", "/204")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(running: HTTPServer) -> Iterator[int]:
    running.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.fixture
def server() -> Iterator[str]:
    Web.got.clear()
    with served(HTTPServer(("127.0.0.1", 0), Web)) as port:
        yield f"http://127.0.0.1:{port}"


async def put(url: str, **more: str) -> bool:
    sink = WebhookSink("alarms", WebhookTarget(url, **more), ThreadOffload())
    try:
        return await sink.send(sink.encode([ANSWER]))
    finally:
        await sink.close()


async def test_a_delivery_is_one_request_with_json(server: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\nsecond line")
    assert await put(f"{server}/200", token_file=str(tmp_path / "token"))
    ((headers, body),) = Web.got
    said = json.loads(body)
    assert (said["format"], headers["Content-Type"]) == ("reuna/answers/v1", "application/json")
    assert headers["Authorization"] == "Bearer s3cret"
    assert said["answers"] == [
        {
            "id": "edge-1/p/1-3",
            "node": "edge-1",
            "project": "p",
            "version": 1,
            "release": "d" * 64,
            "first_ns": 1,
            "last_ns": 3,
            "state": "answered",
            "answer": 1.0,
            "confidence": 0.75,
            "output": [0.25, 0.75],
            "place": "edge",
        }
    ]


@pytest.mark.parametrize("status", [302, 401, 404, 500, 503])
async def test_what_may_be_taken_later_is_to_be_tried_again(server: str, status: int) -> None:
    with pytest.raises(Unreachable, match=f"answers {status}"):
        await put(f"{server}/{status}?key=secret")
    assert len(Web.got) == 1, "a redirection is not followed"


async def test_what_is_never_taken_is_refused(server: str) -> None:
    assert not await put(f"{server}/422")


async def test_by_https_only_a_server_of_the_authority_gets_anything(tmp_path: Path) -> None:
    own, other = (CertificateAuthority.create(tmp_path / name, "plant") for name in ("own", "other"))
    pair = own.issue("gateway", "alarms", ["127.0.0.1"])
    running = HTTPServer(("127.0.0.1", 0), Web)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    running.socket = context.wrap_socket(running.socket, server_side=True)
    with served(running) as port:
        url = f"https://127.0.0.1:{port}/200"
        Web.got.clear()
        for authority in ("", str(other.issue("edge", "e").authority)):
            with pytest.raises(Unreachable, match="certificate verify failed"):
                await put(url, authority=authority)
        assert Web.got == []
        assert await put(url, authority=str(pair.authority))
    assert len(Web.got) == 1


async def test_a_server_that_is_not_there_is_named_without_the_query() -> None:
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1/in: ") as told_so:
        await put("http://127.0.0.1:1/in?key=secret")
    assert "secret" not in told_so.value.message


@pytest.mark.parametrize("text", [None, "böse", "a\rb: c"])
async def test_a_token_that_cannot_be_read_or_sent_is_said(
    server: str, tmp_path: Path, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "token").write_bytes(text.encode("utf-8"))
    if text == "a\rb: c":
        assert await put(f"{server}/200", token_file=str(tmp_path / "token")), "its first line alone"
        return
    with pytest.raises(Unreachable, match="token"):
        await put(f"{server}/200", token_file=str(tmp_path / "token"))


async def test_a_file_of_an_authority_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyProblem, match=r"sink alarms: /no/ca\.pem cannot be used"):
        await put("https://alarms.plant/", authority="/no/ca.pem")
