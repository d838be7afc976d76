"""A ledger is passed on while it grows: to a listening syslog server, a Unix socket, a file."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reuna.adapters.clock import ThreadOffload
from reuna.adapters.ledger_file import LedgerFile
from reuna.core.errors import Corrupted, Unreachable
from reuna.exchange.ledger_export import Exporter, keep_exporting
from reuna.fleet.ledger import export
from tests.unit.trust.books import NOW_MS, SIGNER, intent


class Hands:
    def now(self) -> float:
        return NOW_MS / 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[LedgerFile]:
    ledger = LedgerFile(tmp_path / "ledger", SIGNER, Hands(), segment_bytes=4000)
    yield ledger
    ledger.close()


def grown(made: LedgerFile, count: int) -> None:
    for _ in range(count):
        made.append(intent(made.state.seq))


def exporter(made: LedgerFile, to: str) -> Exporter:
    return Exporter(made._folder, to, made.state.owner)


class Server:
    """A syslog server over TCP with octet counting; what it was told, message by message."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"syslog+tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self.data = b""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                line, _ = self._listening.accept()
            except OSError:
                return
            with line:
                while data := line.recv(65_536):
                    self.data += data

    def numbers(self) -> list[int]:
        found, rest = [], self.data
        while rest:
            count, _, rest = rest.partition(b" ")
            said, rest = rest[: int(count)], rest[int(count) :]
            seq = re.search(rb'seq="(\d+)"', said)
            assert said.startswith(b"<1") and seq, said
            found.append(int(seq[1]))
        return found

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def test_a_server_is_told_each_record_once_also_after_a_restart(made: LedgerFile, server: Server) -> None:
    grown(made, 30)
    to = exporter(made, server.url)
    assert to.run() == made.state.seq
    assert to.run() == 0
    grown(made, 60)
    assert to.run() > 0
    grown(made, 5)
    assert exporter(made, server.url).run() == 5
    assert server.numbers() == list(range(made.state.seq))


def test_a_unix_socket_is_told(made: LedgerFile, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "log"))
        grown(made, 2)
        assert exporter(made, f"syslog+unix://{tmp_path}/log").run() == 3
        assert [b'seq="%d"' % number in listening.recv(9000) for number in range(3)] == [True] * 3


def test_a_file_goes_on_after_its_last_whole_line_and_by_the_command_too(
    made: LedgerFile, tmp_path: Path
) -> None:
    file = tmp_path / "out.jsonl"
    grown(made, 40)
    exporter(made, f"file:{file}").run()
    with file.open("ab") as cut:
        cut.write(b'{"seq": 41, "dig')
    grown(made, 3)
    assert exporter(made, f"file:{file}").run() == 3
    grown(made, 2)
    assert export(made._folder, str(file)) == 2
    assert [json.loads(line)["seq"] for line in file.read_text().splitlines()] == list(range(made.state.seq))


def test_another_ledger_than_before_is_not_passed_on(made: LedgerFile, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    grown(made, 5)
    exporter(made, str(file)).run()
    lines = file.read_text().splitlines()
    last = json.loads(lines[-1])
    file.write_text(json.dumps({**last, "digest": "0" * 64}) + "\n")
    with pytest.raises(Corrupted, match="another one"):
        exporter(made, str(file)).run()
    file.write_text(json.dumps({**last, "seq": 9}) + "\n")
    with pytest.raises(Corrupted, match="ends before"):
        exporter(made, str(file)).run()


def test_a_server_that_is_away_is_told_later_and_nobody_else_waits(
    made: LedgerFile, tmp_path: Path, server: Server
) -> None:
    grown(made, 3)
    gone = socket.create_server(("127.0.0.1", 0))
    away = f"syslog+tcp://127.0.0.1:{gone.getsockname()[1]}"
    gone.close()
    with pytest.raises(Unreachable):
        exporter(made, away).run()

    async def until(done: Callable[[], Any]) -> None:
        targets = (away, server.url)
        work = keep_exporting(made._folder, made.state.owner, lambda: targets, Hands(), ThreadOffload())
        task = asyncio.create_task(work)
        async with asyncio.timeout(10):
            while not done():
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(until(lambda: len(server.numbers()) == 4))
