"""A fleet whose machines enrolled, as its cloud's register knows it: for runs begun at the cloud."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reuna.core.errors import SettingsError, Unreachable
from reuna.fleet.admit import Desk
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, PlaceFile

READY_S = 60.0
POLL_S = 0.5


def joined_fleet(settings: Mapping[str, Any], file: Path, now: float) -> Fleet:
    """The nodes that are of the fleet now, by the settings of its cloud.

    Raises `SettingsError` when no site of it has an edge.
    """
    rows = [row for row in Desk.of(settings, "fog").nodes(now) if row["state"] == "active"]
    fogs = sorted(row["name"] for row in rows if row["role"] == "fog")
    below = {
        fog: [row["name"] for row in rows if (row["role"], row["site"]) == ("edge", fog)] for fog in fogs
    }
    edges = {fog: tuple(sorted(names)) for fog, names in below.items() if names}
    if not edges:
        raise SettingsError(
            f"the cloud of {settings['fleet']} knows no edge", "See who is there: `reuna node list`."
        )
    place = PlaceFile("cloud", settings["name"], file.absolute())
    return Fleet(settings["fleet"], file.absolute().parent, (place,), edges)


async def heard(fleet: Fleet, operator: Operator, quorum: float) -> None:
    """Until all joined edges were heard of, or after a minute the fraction that a round needs.

    Raises `Unreachable`, which names those that were not.
    """
    edges = {edge for names in fleet.joined.values() for edge in names}
    deadline = time.monotonic() + READY_S
    while missing := edges - set(await asyncio.to_thread(operator.nodes)):
        if time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        elif len(edges) - len(missing) >= max(1, math.ceil(quorum * len(edges) - 1e-9)):
            return
        else:
            raise Unreachable(
                f"the cloud has not heard of {', '.join(sorted(missing))}",
                "Start them; a node without a signed policy stays silent: its log says so.",
            )
