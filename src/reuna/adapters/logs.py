"""The log of a process of a place: lines for people, on standard error."""

from __future__ import annotations

import logging
import sys


def say_what_happens(name: str) -> None:
    """From now on the log goes to standard error, each line with ``name``, whose process this is."""
    # No line shows these, and a node writes lines in each round ("Optimization" in Python's Logging HOWTO).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(name)s %(message)s"
    )
