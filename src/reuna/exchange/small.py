"""What a node needs while nothing happens is what its machine has to spare for it: it gives back the rest."""

from __future__ import annotations

from reuna.adapters.processes import give_back
from reuna.core.ports import Clock

EVERY_S = 2.0  #: a round in between takes what it needs anew, in a millisecond


async def keep_small(clock: Clock) -> None:
    """Give back what was freed, now and then, until cancelled."""
    while True:
        await clock.sleep(EVERY_S)
        give_back()
