"""``python -m reuna.adapters.sandbox.probe``: confine this process and print the level as JSON.

As an edge does it: the agent leaves the network, and its worker is confined from there on.
"""

from __future__ import annotations

import os
import sys
import tempfile

import msgspec

from reuna.adapters.sandbox import NotReached, Room, SandboxLimits, confine, leave_network_whole


def main() -> int:
    """Entry of the probe: a child is confined, so that this process can clear up after it."""
    agent = ""
    try:
        leave_network_whole()
    except NotReached as error:
        agent = str(error)
    with tempfile.TemporaryDirectory(prefix="reuna-probe-") as folder:
        child = os.fork()
        if child == 0:
            level = msgspec.structs.replace(confine(Room((), folder), SandboxLimits()), agent=agent)
            sys.stdout.buffer.write(msgspec.json.encode(level) + b"\n")
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
