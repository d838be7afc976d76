"""A policy tried on what was asked before: what would it have refused?

The record is JSON lines, each a `reuna.trust.requests.Request`, in the order in which they were asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date

import msgspec

from reuna.core.errors import SettingsError
from reuna.trust.decide import decide
from reuna.trust.policy import Policy, Validity
from reuna.trust.requests import Allow, Request, State, Verdict, spend

MAX_LINE = 64 * 1024  #: bytes
_decode = msgspec.json.Decoder(Request).decode


class Rehearsed(msgspec.Struct, frozen=True):
    """One request of the record, its line, and what the policy says to it."""

    line: int
    request: Request
    verdict: Verdict


def requests(lines: Iterable[bytes], name: str) -> Iterator[tuple[int, Request]]:
    """Line number and request of each line that is not empty. Raises `SettingsError`."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(line) > MAX_LINE:
                raise ValueError(f"it is longer than {MAX_LINE} bytes")
            yield number, _decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise SettingsError(
                f"{name} line {number} is no request: {error}",
                "docs/reference/policy.md has the fields of a line.",
            ) from error


def rehearse(policy: Policy, asked: Iterable[tuple[int, Request]]) -> Iterator[Rehearsed]:
    """The verdicts, each request that is allowed counting against the quotas of the next.

    The policy is taken to be in force on every day, so that a new one can be tried on last month.
    """
    policy = msgspec.structs.replace(policy, valid=Validity(date.min, date.max))
    state = State(valid=True)
    for line, request in asked:
        verdict = decide(policy, state, request)
        if isinstance(verdict, Allow):
            state = spend(state, request)
        yield Rehearsed(line, request, verdict)
