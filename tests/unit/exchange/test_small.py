"""What a node freed goes back to its machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from reuna.exchange import small

GROWS = """
from reuna.adapters.processes import give_back, uss_mib
import os
before = uss_mib(os.getpid())
held = [b"x" * 100_000 for _ in range(400)]  # below what is mapped apart
last = b"x" * 100_000
del held
freed = uss_mib(os.getpid()) - before
if {gives}:
    give_back()
print(freed > 30, uss_mib(os.getpid()) - before > 30)
"""


class Clock:
    def __init__(self, times: int) -> None:
        self.left = times

    def now(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        assert seconds == small.EVERY_S
        self.left -= 1
        if self.left < 0:
            raise asyncio.CancelledError


async def test_a_node_gives_back_again_and_again_and_lets_go_while_it_rests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(small, "give_back", lambda: done.append("gives back"))
    monkeypatch.setattr(small.Libraries, "let_go", lambda _libraries: done.append("lets go"))
    works = 2 * small.BUSY_S
    computed = iter([0.0, 0.001, 0.002, works, works, works + 0.001, works + 0.001])
    with pytest.raises(asyncio.CancelledError):
        await small.keep_small(Clock(3), computed=lambda: next(computed))
    assert done == ["gives back", "lets go", "gives back", "gives back", "lets go"], "works before the second"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_what_was_freed_is_the_machines_again() -> None:
    def told(gives: bool) -> list[str]:
        command = [sys.executable, "-c", GROWS.format(gives=gives)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    assert told(gives=False) == ["True", "True"], "without being asked, glibc keeps it"
    assert told(gives=True) == ["True", "False"]
