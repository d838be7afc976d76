"""Which nodes hold which releases, as they say themselves, one line each."""

from __future__ import annotations

from typing import Any

from reuna.fleet.holdings import Asks, look


def reports(cloud: Asks) -> list[dict[str, Any]]:
    """A line for each release that a node says it holds and has verified; ``at``: when it was judged.

    Raises `Unreachable`, and what the cloud refuses with.
    """
    said = look(cloud.releases(), {}).said
    return [
        {
            "node": node,
            "at": each.at,
            "project": each.project,
            "version": each.version,
            "digest": each.digest,
        }
        for node, told in sorted(said.items())
        for each in told.held
        if not each.refused
    ]
