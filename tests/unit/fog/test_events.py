"""An edge's events go up when they are its own."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.core.records import Event
from reuna.fog.gateway import _pass_event
from reuna.wire import encode


class Up:
    def __init__(self) -> None:
        self.emitted: list[Event] = []

    async def emit(self, event: Event) -> bool:
        self.emitted.append(event)
        return True


async def test_an_event_in_anothers_name_stays_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    up: Any = Up()
    own, forged = (Event(node, "b", 1, 0.0, "sat out") for node in ("edge-2", "edge-1"))
    await _pass_event(up, "event.edge-2", encode(own))
    await _pass_event(up, "event.edge-2", encode(forged))
    assert up.emitted == [own]
    assert "refused an event of edge-1 on event.edge-2" in caplog.text
