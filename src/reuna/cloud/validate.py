"""What the edges measured of a model, as the cloud hands it on.

The measuring is done at the edges, each on its own data; `reuna.loop.validate` makes of the numbers
one row per site and names the worst.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reuna.core.records import Contribution


def scores(rows: Iterable[Contribution]) -> dict[str, Any]:
    """Metrics of each edge by name, sorted; the reason of one that was absent."""
    members = sorted((member for row in rows for member in row.members), key=lambda member: member.node)
    return {m.node: {"absent": m.absent} if m.absent else dict(m.metrics) for m in members}
