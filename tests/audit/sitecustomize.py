"""Loading a pickle fails wherever tests run: this folder is first on PYTHONPATH of every process they start.

Python imports a module of this name when it starts. Unpickling runs whatever the bytes say, so it
must not happen in any process of ours; `tests/shape/test_pickles.py` looks for it in the source.
"""

from __future__ import annotations

import sys
from typing import Any

#: What was unpickled in this process, for those who swallow the error.
FOUND: list[str] = []


def refuse_pickles(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: no class is looked up for a pickle."""
    if event == "pickle.find_class":
        FOUND.append(".".join(map(str, arguments)))
        raise RuntimeError(f"a pickle is being loaded: it names {FOUND[-1]}")


sys.addaudithook(refuse_pickles)
