"""The audit trail of commands on a place's own machine: each is written down before its effect.

    trail = Trail.of_place(settings)
    with trail.doing("node.revoke", "press-1", reason="stolen"):
        register.revoke(...)                  # an error of ours adds a line: failed, with its code

A cloud or a fog has it in its state folder, where the cloud's API writes too; a trust folder has its
own, for its keys are often on a machine that is no place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reuna.adapters.audit import AuditTrail
from reuna.cloud.files import AUDIT
from reuna.core.errors import ReunaError

LONGEST = 200  #: characters of what was typed that stand in a line


class Trail:
    """The trail in a folder, for whoever types on this machine."""

    def __init__(self, folder: Path) -> None:
        self._trail = AuditTrail(folder / AUDIT)

    @classmethod
    def of_place(cls, settings: Mapping[str, Any]) -> Trail:
        """That of a cloud or a fog."""
        return cls(Path(settings["folder"]))

    @contextmanager
    def doing(self, what: str, target: str, **more: str) -> Iterator[None]:
        """Around the work: what is done, and whether it failed. Raises `DiskFull`, `Corrupted`."""
        self.note(what, target, "allowed", **more)
        try:
            yield
        except ReunaError as error:
            self.note(what, target, f"failed {error.code}")
            raise

    def note(self, what: str, target: str, verdict: str, **more: str) -> None:
        """One line."""
        said = {name: word[:LONGEST] for name, word in more.items()}
        self._trail.append(time.time(), _who(), "machine", what, verdict, target=target[:LONGEST], **said)

    def read(self, after: int = 0) -> list[dict[str, Any]]:
        """Lines from number ``after`` on, checked. Raises `Corrupted` that names the first wrong one."""
        return list(self._trail.read(after))


def _who() -> str:
    return os.environ.get("SUDO_USER") or str(os.getuid())
