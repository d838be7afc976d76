"""Ports of fleets that begin side by side."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from reuna.fleet import ports
from reuna.fleet.ports import BLOCK, FIRSTS, HOST, free_ports

ASK = "from reuna.fleet.ports import free_ports; print(*free_ports(150), flush=True); input()"


def test_processes_that_ask_at_once_are_given_different_ports_though_nobody_listens_yet() -> None:
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    given = [line.split() for process in asking if process.stdout for line in [process.stdout.readline()]]
    for process in asking:
        process.communicate("\n", timeout=60)
    every = [port for found in given for port in found]
    assert [len(found) for found in given] == [150] * 3
    assert len(set(every)) == len(every)


def test_a_port_that_somebody_else_holds_is_not_given_out() -> None:
    free_ports(1)
    coming = next(iter(ports._next)) if ports._next else free_ports(1)[0] + 1
    with socket.socket() as other:
        other.bind((HOST, coming))
        assert coming not in free_ports(3)


def test_no_port_is_given_twice_and_none_that_the_kernel_gives_to_who_dials() -> None:
    found = free_ports(250)
    assert len(set(found)) == 250
    assert all(FIRSTS.start < port < FIRSTS.stop and port % BLOCK for port in found)


def test_when_every_block_is_claimed_ports_are_still_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_claim", lambda _first: False)
    monkeypatch.setattr(ports, "_mine", [])
    monkeypatch.setattr(ports, "_next", type(ports._next)())
    assert len(set(free_ports(5))) == 5
