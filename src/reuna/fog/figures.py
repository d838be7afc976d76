"""What a gateway tells of itself at its `/metrics`; numbers that are there already."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from reuna.core.figures import Figure
from reuna.exchange.intake import Intake
from reuna.fog.train import Combiner


async def collect(combiner: Combiner, intake: Intake, names: Collection[str], spool: Path) -> list[Figure]:
    """Rounds, edges, contributions that were refused, and the spool in its folder."""
    reasons: Counter[str] = Counter()
    for times in intake.refused.values():
        reasons.update(times)
    return [
        *combiner.rounds.worked.figures(),
        Figure("reuna_edges", len(names)),
        Figure("reuna_edges_present", len(combiner.present())),
        Figure("reuna_spool_bytes", await asyncio.to_thread(_size, spool)),
        *(Figure("reuna_refused_total", count, (reason,)) for reason, count in sorted(reasons.items())),
    ]


def _size(folder: Path) -> int:
    """Bytes of all files; what goes meanwhile is not counted."""
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(at) / name).stat().st_size
            except OSError:
                continue
    return total
