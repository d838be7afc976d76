"""TCP ports for places on one machine.

Each process takes them out of blocks of its own, so that fleets which begin side by side do not take each
other's between the moment a port is found free and the one its place listens. A block is claimed by its
first port, which stays bound until the process ends; however it ends, the block is free again.
"""

from __future__ import annotations

import atexit
import random
import socket
import threading
from collections import deque
from contextlib import ExitStack, suppress

HOST = "127.0.0.1"
BLOCK = 100  #: ports; the first is the claim
FIRSTS = range(20_000, 32_000, BLOCK)  #: below what kernels give to who dials

_lock = threading.Lock()
_mine: list[int] = []  #: first ports of the blocks of this process
_next: deque[int] = deque()  #: what of them was not given out yet


def free_ports(count: int) -> list[int]:
    """TCP ports free on loopback right now, that no other process which asks here is given."""
    found: list[int] = []
    with _lock, ExitStack() as stack:
        while len(found) < count:
            if not _next:
                _refill()
            port, probe = _next.popleft(), stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind((HOST, port))
                found.append(port)
    return found


def _refill() -> None:
    """Claim another block; where none is left, go through the own ones again, or through those of others."""
    firsts = random.sample(FIRSTS, len(FIRSTS))
    claimed = next((first for first in firsts if _claim(first)), None)
    if claimed is not None:
        _mine.append(claimed)
    again = [claimed] if claimed is not None else _mine or firsts
    _next.extend(first + place for first in again for place in range(1, BLOCK))


def _claim(first: int) -> bool:
    claim = socket.socket()
    try:
        claim.bind((HOST, first))
    except OSError:
        claim.close()
        return False
    atexit.register(claim.close)  # which also keeps it
    return True
