"""Atheris over one target: ``python -m fuzz.child TARGET CORPUS LIBFUZZER-OPTIONS``.

Only what is imported below ``instrument_imports`` guides it, so nothing of ours is imported before.
"""

from __future__ import annotations

import resource
import sys
import warnings

import atheris

OURS = ["fuzz", "reuna", "tuf", "securesystemslib", "tomllib", "csv", "zipfile", "http", "email", "urllib"]

SPACE = 4 << 30  #: bytes of addresses, as a worker has: a reader asked for more has to say so itself


def main(target: str, arguments: list[str]) -> None:
    """Runs until time is over or an input is found on which the check fails; ends the process."""
    with atheris.instrument_imports(include=OURS):
        from fuzz.kit import harness

        found = harness(target)
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    warnings.simplefilter("error")  # as in the tests
    atheris.Setup([target, *arguments], found.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
