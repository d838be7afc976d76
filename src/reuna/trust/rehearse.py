"""A policy tried on what was asked before: what would it have refused?

What was asked stands in a ledger, in its export as JSON lines, or in lines that are each a
`reuna.trust.requests.Request`, in the order in which they were asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from itertools import chain
from typing import Any, TypeVar

import msgspec

from reuna.core.errors import SettingsError
from reuna.trust.decide import decide
from reuna.trust.ledger import Entry, settled
from reuna.trust.policy import KINDS, Policy, Validity
from reuna.trust.requests import Allow, Request, State, Verdict, spend

MAX_LINE = 64 * 1024  #: bytes
T = TypeVar("T")
_decode = msgspec.json.Decoder(Request).decode


class Rehearsed(msgspec.Struct, frozen=True):
    """One request, its line or its record in the ledger, and what the policy says to it."""

    line: int
    request: Request
    verdict: Verdict


def request_of(entry: Entry) -> Request:
    """What an intent or a refusal was asked as; of numbers nobody wrote down, as nobody states them."""
    return Request(
        kind=entry.flow,
        to=entry.to,
        bytes=entry.payload_bytes,
        now=entry.time_ms / 1000,
        run=entry.run,
        round=entry.round,
        cohort=entry.cohort,
        organisations=entry.organisations,
        samples=entry.samples,
        local_steps=entry.steps,
        params=entry.params,
        dtype="float32" if entry.flow == "model_update" else "",
        norm=entry.norm,
        schema=entry.schema,
        metrics=entry.metrics,
        values=entry.values,
        epsilon=entry.epsilon or None,
        epsilon_unit=entry.unit,
        code=entry.code,
        sandbox=entry.level or 0,
    )


def recorded(records: Iterable[tuple[int, Entry]]) -> Iterator[tuple[int, Request]]:
    """Number and request of each record of a ledger that let something leave, or refused it."""
    numbered = list(dict(records).items())  # after a crash an export has some twice
    for (number, _), entry in zip(numbered, settled(numbered), strict=True):
        if entry.kind in ("intent", "refused") and entry.flow in KINDS:
            yield number, request_of(entry)


def asked(lines: Iterable[bytes], name: str) -> tuple[str, Iterator[tuple[int, Request]]]:
    """What the lines are, ``record`` of an export or ``line``, and the requests in them by number.

    Raises `SettingsError`, also while they are read.
    """
    filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(filled, None)
    if first is None:
        return "line", iter(())
    every = chain([first], filled)
    if b'"seq"' in first[1]:
        return "record", recorded(_read(number, line, name, _exported) for number, line in every)
    return "line", ((number, _read(number, line, name, _decode)) for number, line in every)


def _exported(line: bytes) -> tuple[int, Entry]:
    """A record as `reuna ledger export` writes it. Raises `msgspec.DecodeError`."""
    fields = msgspec.json.decode(line, type=dict[str, Any])
    known = {name: value for name, value in fields.items() if name in Entry.__struct_fields__}
    known.pop("statement", None)  # bytes, of what was never asked
    return msgspec.convert(fields.get("seq"), int), msgspec.convert(known, Entry)


def _read(number: int, line: bytes, name: str, decode: Callable[[bytes], T]) -> T:
    try:
        if len(line) > MAX_LINE:
            raise ValueError(f"it is longer than {MAX_LINE} bytes")
        return decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"{name} line {number} is no request and no record of a ledger: {error}",
            "Name a ledger's folder, its export, or lines as docs/reference/policy.md has them.",
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
