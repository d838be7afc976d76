"""What a node needs while nothing happens is what its machine has to spare for it: it gives back the rest."""

from __future__ import annotations

from reuna.adapters.processes import Libraries, give_back
from reuna.core.ports import Clock

EVERY_S = 2.0  #: a round in between takes what it needs anew, in a millisecond


async def keep_small(clock: Clock) -> None:
    """Give back what was freed, and what libraries needed to begin, now and then, until cancelled."""
    libraries = Libraries()
    while True:
        await clock.sleep(EVERY_S)
        give_back()
        libraries.let_go()
