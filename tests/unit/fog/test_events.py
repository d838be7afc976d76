"""An edge's events go up when they are its own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from reuna.core.records import Event
from reuna.fog.gateway import _pass_event, _report
from reuna.trust.enrolment import Node
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
    await _pass_event(up, operator.eq, "event.edge-2", encode(own))
    await _pass_event(up, operator.eq, "event.edge-2", encode(forged))
    assert up.emitted == [own]
    assert "refused an event of edge-1 on event.edge-2" in caplog.text


class Shut(Up):
    """An egress whose policy comes late."""

    closed = True

    async def emit(self, event: Event) -> bool:
        return not self.closed and await super().emit(event)


async def test_nodes_taken_in_before_there_was_a_policy_are_told_of_afterwards() -> None:
    node = Node("press-1", "edge", "mill-3", "1", "k" * 64, 0.0, 1e9)
    up, clock = Shut(), Ticks(3)
    register: Any = SimpleNamespace(nodes=lambda: [node], alarms=list)
    clock.after = lambda left: setattr(up, "closed", left > 1)
    with pytest.raises(EOFError):
        await _report(register, up, "mill-3", "b", clock)  # type: ignore[arg-type]
    assert [event.fields["name"] for event in up.emitted] == ["press-1"], "once"


class Ticks:
    """A clock that ends after some naps."""

    def __init__(self, naps: int) -> None:
        self.left = naps
        self.after: Callable[[int], None] = lambda _left: None

    def now(self) -> float:
        return 0.0

    async def sleep(self, _seconds: float) -> None:
        self.left -= 1
        self.after(self.left)
        if not self.left:
            raise EOFError
