"""Where a browser comes back to: one page, on this machine only, and nobody can hold it up."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from urllib.parse import urlsplit

import pytest

from reuna.core.errors import NotSignedIn
from reuna.fleet.loopback import Loopback


def get(loopback: Loopback, path: str) -> tuple[int, str]:
    where = urlsplit(loopback.address)
    with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)) as line:
        line.request("GET", path)
        answer = line.getresponse()
        return answer.status, answer.read().decode()


def test_it_waits_for_its_own_page_whatever_else_is_asked_for() -> None:
    found: list[tuple[int, str]] = []

    def browse(loopback: Loopback) -> None:
        for path in ("/favicon.ico", "/signed-in?code=c%20d&state=s"):
            found.append(get(loopback, path))

    with Loopback() as loopback:
        assert urlsplit(loopback.address).hostname == "127.0.0.1"
        browser = threading.Thread(target=browse, args=(loopback,))
        browser.start()
        assert loopback.wait(20.0) == {"code": "c d", "state": "s"}
        browser.join()
    assert [status for status, _ in found] == [404, 200]
    assert "close this page" in found[1][1]


def test_a_line_that_says_nothing_does_not_hold_it_up() -> None:
    with Loopback() as loopback:
        where = urlsplit(loopback.address)
        with socket.create_connection((where.hostname, where.port)):
            browser = threading.Thread(target=get, args=(loopback, "/signed-in?error=access_denied"))
            browser.start()
            assert loopback.wait(20.0) == {"error": "access_denied"}
            browser.join()


def test_it_does_not_wait_for_ever() -> None:
    with Loopback() as loopback, pytest.raises(NotSignedIn, match="nobody came back"):
        loopback.wait(0.01)
