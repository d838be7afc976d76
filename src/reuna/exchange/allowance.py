"""One entry for many small messages: allowed ahead, up to so many and so many bytes, and settled after.

    intent   presence, at most 16 messages, 688 bytes     on the disk before the first leaves
    outcome  of that intent: 12 messages, 516 bytes       when its minute is over

Until it is settled all that was allowed counts as spent, so a crash never hides a message. Each
message asks the policy again; only what is written down is put together.
"""

from __future__ import annotations

import hashlib

import msgspec

from reuna.trust.ledger import Entry
from reuna.trust.requests import Request, State

MESSAGES = 16  #: allowed at once; a node says hello some 12 times a minute
SECONDS = 60.0  #: after which an allowance is settled


class Allowance:
    """An intent under which messages of one kind to one recipient may leave."""

    def __init__(self, number: int, request: Request, messages: int, policy: str) -> None:
        self.request = request  #: what was reserved: bytes of all of them
        self.policy = policy  #: digest of the policy that allowed it
        self.number = number
        self._most = messages
        self._bytes = 0
        self._payloads: list[str] = []  #: digests of those that left

    def fits(self, request: Request, policy: str) -> bool:
        """Whether one more may leave under it."""
        room = len(self._payloads) < self._most and self._bytes + request.bytes <= self.request.bytes
        return room and policy == self.policy and not self.is_over(request.now)

    def is_over(self, now: float) -> bool:
        """Whether its time has passed (or the clock was set back)."""
        return not 0 <= now - self.request.now < SECONDS

    def take(self, request: Request, payload: str) -> None:
        """One message leaves. ``payload``: digest of its bytes, hexadecimal."""
        self._bytes += request.bytes
        self._payloads.append(payload)

    def take_back(self, request: Request, payload: str) -> None:
        """The last message of those bytes did not leave; nothing happens when none was taken."""
        if self._payloads[-1:] == [payload]:
            self._payloads.pop()
            self._bytes -= request.bytes

    def outcome(self, now_ms: int) -> Entry:
        """What left under it; ``payload`` is the SHA-256 of the messages' digests, in order."""
        return Entry(
            time_ms=now_ms,
            kind="outcome",
            intent=self.number,
            payload_bytes=self._bytes,
            messages=len(self._payloads),
            payload=hashlib.sha256(bytes.fromhex("".join(self._payloads))).hexdigest(),
            reason="sent" if self._payloads else "stayed",
        )


def give_back(state: State, reserved: Request, left: int) -> State:
    """The state when ``left`` bytes have left under an allowance; what it took on an earlier day is gone."""
    if int(reserved.now // 86_400) != state.day:
        return state
    spent = state.bytes.get(reserved.kind, 0) - (reserved.bytes - left)
    return msgspec.structs.replace(state, bytes={**state.bytes, reserved.kind: max(0, spent)})
