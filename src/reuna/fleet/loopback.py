"""Where a browser comes back to from the identity provider's pages: a port of this machine (RFC 8252)."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from reuna.core.errors import NotSignedIn

HOST = "127.0.0.1"
PATH = "/signed-in"
LOOK_S = 0.5  #: a connection that says nothing is left after so long
_PAGE = b"<!doctype html><meta charset=utf-8><title>Reuna</title><p>Done. You can close this page.</p>"


class Loopback:
    """Listens until the block ends."""

    def __init__(self) -> None:
        self._answers: list[dict[str, str]] = []
        self._server = HTTPServer((HOST, 0), _handler(self._answers))
        self._server.timeout = LOOK_S
        self.address = f"http://{HOST}:{self._server.server_port}{PATH}"

    def wait(self, patience_s: float) -> dict[str, str]:
        """What the browser was sent back with. Raises `NotSignedIn` when it did not come."""
        end = time.monotonic() + patience_s
        while not self._answers:
            if time.monotonic() > end:
                raise NotSignedIn(f"nobody came back from the identity provider in {patience_s:.0f} s")
            self._server.handle_request()
        return self._answers[0]

    def __enter__(self) -> Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()


def _handler(answers: list[dict[str, str]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = LOOK_S

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            known = asked.path == PATH
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", "default-src 'none'")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            if known:
                self.wfile.write(_PAGE)
                answers.append(dict(parse_qsl(asked.query)))

        def log_message(self, format: str, *args: Any) -> None:
            """Not a word: the address holds the code."""

    return Handler
