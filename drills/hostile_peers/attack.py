"""What an attack is, and what came of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drills.hostile_peers.world import Round, World

#: Does it, beside an honest round; whether the attacker got what it wanted.
Do = Callable[["World", "Round"], Awaitable[bool]]


@dataclass(frozen=True)
class Attack:
    """One attack. ``seen`` is a log of the fleet and what stands in it once it was refused.

    ``guards`` are those that stand in its way (`drills.hostile_peers.guards`), ``paused`` the nodes
    that have not answered yet while it goes on.
    """

    name: str
    by: str
    story: str
    guards: tuple[str, ...]
    seen: tuple[str, str]
    do: Do
    paused: tuple[str, ...] = ("edge-2",)
    deadline_s: float = 60.0
    quorum: float = 1.0
    closes: bool = False  #: the round closes without the paused nodes, before the attack


@dataclass(frozen=True)
class Outcome:
    """``refused``: it got nothing; ``seen``: the line that the operator reads; the round's model."""

    refused: bool
    seen: str
    model: str
