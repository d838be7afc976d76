"""A real MQTT broker for tests: Debian's mosquitto in a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from paho.mqtt import publish

NAMES = ("mosquitto", "/usr/sbin/mosquitto")


def program() -> str:
    """Where it is; the test is skipped where it is not."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no mosquitto here: apt-get install mosquitto")
    return found


class Mosquitto:
    """A broker; ``lines`` of its settings. It can be stopped and started again on the same port."""

    def __init__(self, folder: Path, lines: Sequence[str] = ("allow_anonymous true",)) -> None:
        self._program = program()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._settings = folder / "mosquitto.conf"
        user = "root" if os.getuid() == 0 else ""
        listener = [f"listener {self.port} 127.0.0.1", *([f"user {user}"] if user else [])]
        self._settings.write_text("\n".join([*listener, "log_type all", "log_dest stderr", *lines, ""]))
        self._changed = threading.Condition()
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Run, and wait until it listens."""
        before = len(self.log)
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._settings)], stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self.wait(" running", before)

    def stop(self) -> None:
        """End it, by its own signal; one that comes as it begins is forgotten by it."""
        if self._process is not None:
            for _ in range(40):
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.5)
                    break
            assert self._process.returncode is not None, self.log[-20:]
            self._reader.join(20)
            assert self._process.stderr is not None
            self._process.stderr.close()
            self._process = None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._changed:
                self.log.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self.log.append("ended")
            self._changed.notify_all()

    def wait(self, words: str, after: int = 0) -> int:
        """Until a line behind the first ``after`` has those words; the number of lines up to it."""

        def found() -> int:
            return next((n for n in range(after, len(self.log)) if words in self.log[n]), -1) + 1

        with self._changed:
            assert self._changed.wait_for(found, 20), self.log[-20:]
            return found()

    async def until(self, words: str, after: int = 0) -> int:
        """`wait`, beside other tasks."""
        return await asyncio.to_thread(self.wait, words, after)

    def publish(self, topic: str, payload: str | bytes, retain: bool = False, **more) -> None:
        """Say something; it returns when the broker has it."""
        publish.single(topic, payload, 1, retain, "127.0.0.1", self.port, **more)
