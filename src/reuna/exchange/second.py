"""The way of windows to the fog: the site's policy decides, the ledger has it, they are sent, once.

The question is asked once and waited for so long as the edge says: it has an answer of its own. What the
policy lets leave later stays here.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from reuna.core.errors import BadMessage, Refused, Unreachable
from reuna.core.ports import Clock, Offload
from reuna.core.second import Doubtful, Opinions
from reuna.exchange.flows import FlowControl
from reuna.exchange.payloads import windows
from reuna.wire import decode, encode


class Asked(Protocol):
    """Who is asked (`reuna.adapters.https_client.HttpsFreight`)."""

    async def advise(self, data: bytes) -> bytes:
        """Encoded `Opinions`. Raises `Refused`, `Unreachable`."""


class SecondOpinions:
    """``parent``: identity of the fog."""

    def __init__(self, parent: str, flows: FlowControl, fog: Asked, clock: Clock, offload: Offload) -> None:
        self._parent = parent
        self._flows = flows
        self._fog = fog
        self._clock = clock
        self._offload = offload

    async def advise(self, asked: Doubtful) -> Opinions:
        """See `reuna.exchange.link.Fog.advise`."""
        data = encode(asked)
        leaving = windows(asked, self._parent, data, self._clock.now())
        passage = await self._offload(lambda: self._flows.leave(leaving))
        try:
            found = decode(Opinions, await asyncio.wait_for(self._fog.advise(data), asked.within_s))
            if len(found.windows) != len(asked.windows):
                said = f"{len(found.windows)} opinions of {len(asked.windows)} windows"
                raise BadMessage(f"the fog has {said}")
        except TimeoutError as error:
            self._flows.arrived(passage, "no answer in time")
            raise Refused("late", f"the fog said nothing for {asked.within_s:g} s") from error
        except Refused as refusal:
            self._flows.arrived(passage, f"refused: {refusal.reason}")
            raise
        except (Unreachable, BadMessage):
            self._flows.arrived(passage, "no answer")
            raise
        self._flows.arrived(passage, "answered")
        return found
