"""A place, or its egress, whose guards can be switched off: ``python -m … CONTROL MODULE ARGUMENTS``.

Only the drill and its test start it. Guards named in the file CONTROL are off, from that moment on
and until the file says otherwise; with an empty file the place is as it always is.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from drills.hostile_peers.guards import plant
from reuna.exchange import child

if __name__ == "__main__":
    control, module, *rest = sys.argv[1:]
    plant("egress" if module == child.EGRESS[1] else rest[0], Path(control))
    child.EGRESS = ("-m", __spec__.name, control, *child.EGRESS[1:])  # planted too
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
