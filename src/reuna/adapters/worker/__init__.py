"""The training process: the project's code, resident during a run, in a sandbox.

Parent and worker speak length-prefixed msgpack over an inherited socket pair; models pass as
files. The worker confines itself (`reuna.adapters.sandbox`) before it imports the project, and its
first message says which level it reached. BLAS runs with one thread, so that the same seed gives the
same bits. The worker ends when its parent is gone. What the project prints goes to the node's log.

    desk = Desk(project, data, lent, made)        # it reads the first three, it writes the last
    worker = await Worker.start(desk, log)
    worker.level.number                           # whoever started it judges whether that is enough
    await worker.open("detector.model", settings)
    result = await worker.fit(lent / "base", settings, seed, made / "new")
"""

from __future__ import annotations

from reuna.adapters.worker.messages import Answer, Desk, FitResult
from reuna.adapters.worker.parent import Worker

__all__ = ("Answer", "Desk", "FitResult", "Worker")
