"""A place, or its egress, whose guards can be switched off: ``python -m … CONTROL MODULE ARGUMENTS``.

Only the drill and its test start it. Guards named in the file CONTROL are off, from that moment on
and until the file says otherwise; with an empty file the place is as it always is.
"""

from __future__ import annotations

import asyncio
import runpy
import sys
from pathlib import Path
from typing import Any

from drills.hostile_peers.guards import plant

EGRESS = ("-m", "reuna.exchange.process")


def starts_planted_children(control: str) -> None:
    """The egress of this place is planted too."""
    real = asyncio.create_subprocess_exec

    def planted(program: Any, *args: Any, **kwargs: Any) -> Any:
        if args[:2] == EGRESS:
            args = ("-m", __spec__.name, control, *args[1:])
        return real(program, *args, **kwargs)

    asyncio.create_subprocess_exec = planted  # type: ignore[assignment]


if __name__ == "__main__":
    control, module, *rest = sys.argv[1:]
    plant("egress" if module == EGRESS[1] else rest[0], Path(control))
    starts_planted_children(control)
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
