"""What a node needs while nothing happens is what its machine has to spare for it: it gives back the rest."""

from __future__ import annotations

import time
from collections.abc import Callable

from reuna.adapters.processes import Libraries, give_back
from reuna.core.ports import Clock

EVERY_S = 2.0  #: between two looks
BUSY_S = 0.04  #: of computing since the look before: who works on rounds needs the libraries again at once


async def keep_small(
    clock: Clock, busy_s: float = BUSY_S, computed: Callable[[], float] = time.process_time
) -> None:
    """Give back what was freed, and while nothing happens what libraries needed to begin, until cancelled.

    Something happens where at least ``busy_s`` were computed between two looks. ``computed``: seconds of
    computing of this process so far.
    """
    libraries, before = Libraries(), computed()
    while True:
        await clock.sleep(EVERY_S)
        give_back()
        if computed() - before < busy_s:
            libraries.let_go()
        before = computed()
