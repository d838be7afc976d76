"""A fleet whose machines enrolled, as its cloud knows it: for runs begun at the cloud or from anywhere."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reuna.core.errors import NotSignedIn, SettingsError, Unreachable
from reuna.core.tree import with_edges
from reuna.fleet.client import Operator
from reuna.fleet.layout import Fleet, PlaceFile
from reuna.fleet.people import Account, address_of, signed_in

READY_S = 60.0
POLL_S = 0.5


def of_cloud(settings: Mapping[str, Any], file: Path) -> tuple[Fleet, Operator]:
    """The fleet of the cloud with these settings, on its own machine, and its operator.

    Raises `SettingsError` when no site of it has an edge, `Unreachable`.
    """
    place = PlaceFile("cloud", settings["name"], file.absolute())
    operator = Operator.of(Fleet(settings["fleet"], file.absolute().parent, (place,)))
    return _known_to(operator, file.absolute().parent, (place,)), operator


def at(address: str, session: Path) -> tuple[Fleet, Account]:
    """The fleet whose cloud somebody signed in to at this address, and their account.

    Raises `NotSignedIn`, `SettingsError`, `Unreachable`.
    """
    account = signed_in(session)
    if account.address != address_of(address):
        raise NotSignedIn(f"nobody is signed in at {address}", f"Sign in: `reuna login {address}`.")
    return _known_to(account, session.parent, ()), account


def _known_to(operator: Operator, folder: Path, places: tuple[PlaceFile, ...]) -> Fleet:
    name, fogs, over = operator.fleet()
    edges, above = with_edges(fogs, over)
    if not edges:
        raise SettingsError(
            f"the cloud of {name} knows no edge",
            "See who is there, on the cloud's machine: `reuna node list`.",
        )
    return Fleet(name, folder, places, edges, above)


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
