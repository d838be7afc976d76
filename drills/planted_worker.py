"""A worker with layers of its sandbox switched off: ``python planted_worker.py LAYERS FD START``.

Only the drill and its tests start it, to show that an attempt escapes where its layers are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator

from reuna.adapters import sandbox
from reuna.adapters.worker import __main__ as program

ALL = sandbox.steps


def plant(off: Collection[str]) -> None:
    """Leave out some steps of the sandbox."""

    def fewer(
        room: sandbox.Room, limits: sandbox.SandboxLimits, keep: Collection[int]
    ) -> Iterator[sandbox.Step]:
        return (step for step in ALL(room, limits, keep) if step[0] not in off)

    sandbox.steps = fewer


if __name__ == "__main__":
    plant(sys.argv[1].split(","))
    sys.exit(program.main(sys.argv[2:]))
