"""What a node needs while nothing happens is what its machine has to spare for it: it gives back the rest."""

from __future__ import annotations

from time import process_time

from reuna.adapters.processes import Libraries, give_back
from reuna.core.ports import Clock

EVERY_S = 2.0  #: a round in between takes what it needs anew, in a millisecond
BUSY_S = 0.2  #: who computed longer in that time needs its libraries


async def keep_small(clock: Clock) -> None:
    """Give back what was freed, and when idle what libraries needed to begin, until cancelled."""
    libraries, computed = Libraries(), float("inf")
    while True:
        await clock.sleep(EVERY_S)
        give_back()
        if process_time() - computed < BUSY_S:
            libraries.let_go()
        computed = process_time()
