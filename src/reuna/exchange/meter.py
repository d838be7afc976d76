"""Counts what leaves: payload bytes by link and kind, from the first day.

The real meter appends one JSON line for each payload before it is sent, so a killed egress
forgets nothing; `total` adds the lines up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from reuna.core.records import Flow


class Meter(Protocol):
    def count(self, link: str, kind: str, payload_bytes: int) -> None:
        """Note ``payload_bytes`` of ``kind`` about to be sent over ``link``."""


class MemoryMeter:
    """Keeps the counts in memory."""

    def __init__(self) -> None:
        self.lines: list[Flow] = []

    def count(self, link: str, kind: str, payload_bytes: int) -> None:
        self.lines.append(Flow(link, kind, payload_bytes, 1))


class FileMeter:
    """Appends one line a payload to a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def count(self, link: str, kind: str, payload_bytes: int) -> None:
        self._file.write(json.dumps([link, kind, payload_bytes]) + "\n")

    def close(self) -> None:
        self._file.close()


def read_flows(path: Path) -> list[Flow]:
    """All whole lines of a meter's file; a line cut by a kill is left out."""
    flows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            link, kind, size = json.loads(line)
        except ValueError:
            continue
        flows.append(Flow(link, kind, size, 1))
    return flows


def total(flows: Iterable[Flow]) -> list[Flow]:
    """One flow for each link and kind, sorted."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for flow in flows:
        size, messages = sums.get((flow.link, flow.kind), (0, 0))
        sums[flow.link, flow.kind] = (size + flow.payload_bytes, messages + flow.messages)
    return [Flow(link, kind, *counts) for (link, kind), counts in sorted(sums.items())]
