"""Every key that may stand in a ``policy.toml``: the parser, its complaints and the reference read this.

A section is a table of the file; ``*`` stands for a name that the site chooses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

from reuna.core.sinks import wrong_address
from reuna.core.subjects import is_name
from reuna.trust.policy import ANY, FORMAT, KINDS, PROTECTIONS

Check = Callable[[Any], str]
WORDS = {
    "text": "text",
    "whole": "a whole number",
    "number": "a number",
    "date": "a date, as 2026-11-01",
    "texts": "a list of texts",
    "bytes": 'bytes, as 1000 or "50 MiB"',
    "windows": 'a list, as ["Mon-Fri 22:00-05:00"]',
    "table": "a table",
    "tables": "a list of tables",
    "names": "a table of names",
}
MAX_NUMBER = 2**53


@dataclass(frozen=True)
class Key:
    """``kind`` is one of `WORDS`; ``check`` returns what is wrong, or ''; ``only``: kinds of flow."""

    name: str
    kind: str
    help: str
    required: bool = False
    check: Check | None = None
    only: tuple[str, ...] = ()


def _at_least(low: int) -> Check:
    return lambda value: "" if low <= value <= MAX_NUMBER else f"must be a whole number from {low} on"


def _above_zero(value: float) -> str:
    return "" if value > 0 and math.isfinite(value) else "must be more than 0 and finite"


def _below_one(value: float) -> str:
    return "" if 0 < value < 1 else "must be between 0 and 1"


def _one_of(*words: str) -> Check:
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


def _each(good: Callable[[str], bool], what: str, fewest: int = 0) -> Check:
    def check(values: list[str]) -> str:
        wrong = [value for value in values if not good(value)]
        if wrong:
            return f"has {wrong[0]!r:.80}, which is no {what}"
        if len(set(values)) != len(values):
            return f"names a {what} twice"
        return "" if len(values) >= fewest else f"must name at least {fewest} {what}"

    return check


def _text(pattern: str, what: str) -> Check:
    matcher = re.compile(pattern)
    return lambda value: "" if matcher.fullmatch(value) else f"must be {what}"


def is_word(value: str) -> bool:
    """A name that a site chooses for a person, a recipient, a dataset, a metric or a purpose."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _./:%-]{0,63}", value) is not None


def is_identity(value: str) -> bool:
    """``spiffe://fleet/role/name``, or with the site before the fleet: ``spiffe://site.fleet/…``."""
    parts = value.removeprefix("spiffe://").split("/")
    if not value.startswith("spiffe://") or len(parts) != 3:
        return False
    host = parts[0].split(".")
    return len(host) <= 2 and all(map(is_name, (*host, *parts[1:])))


def _any_or_word(value: str) -> bool:
    return value == ANY or is_word(value)


def _is_target(value: str) -> bool:
    return re.fullmatch(r"(syslog(\+tcp|\+udp|\+unix)?://|file:/)[!-~]{1,200}", value) is not None


def _name(value: str) -> str:
    return "" if is_name(value) else "must be a name of a-z, 0-9 and -, at most 63"


def _ordinary_day(value: date) -> str:
    return "" if 1970 <= value.year <= 9000 else "must be a date from 1970 on"


DIGEST = _text(r"[0-9a-f]{64}", "a digest: 64 digits of 0-9 and a-f")
UPDATES = ("model_update",)
NUMBERS = ("model_update", "metric", "statistic")

SECTIONS: dict[str, tuple[Key, ...]] = {
    "": (
        Key("format", "text", f'always "{FORMAT}"', True, _one_of(FORMAT)),
        Key("site", "text", "name of the site", True, _name),
        Key(
            "serial", "whole", "goes up by one with every change; a lower one is refused", True, _at_least(1)
        ),
        Key("valid", "table", "the days on which the policy holds", True),
        Key("signers", "table", "who must sign this policy and the next", True),
        Key(
            "recipients",
            "names",
            "a name for each node or sink that may receive, and its identity or address",
        ),
        Key(
            "sources",
            "names",
            "what pushed code may read, by dataset: `data`, or what the node's setting `dataset` says; "
            "what is not here is not read",
        ),
        Key("flows", "tables", "what may leave; what matches no rule is refused"),
        Key("code", "table", "which pushed code may run"),
        Key("limits", "table", "bounds over everything that leaves"),
        Key(
            "kill_switch",
            "text",
            "a file; while it exists nothing leaves and nothing new is trained; what was under way is kept",
            False,
            _text("/.+", "a full path"),
        ),
        Key("ledger", "table", "the record of all that left"),
    ),
    "valid": (
        Key("from", "date", "first day, from its start, UTC", True, _ordinary_day),
        Key("until", "date", "last day, to its end, UTC", True, _ordinary_day),
    ),
    "signers": (
        Key("threshold", "whole", "how many of the keys must sign", True, _at_least(1)),
        Key("keys", "names", "a name for each signer, and its public key of 64 digits", True),
    ),
    "signers.keys.*": (Key("*", "text", "the public key, as `reuna policy key` prints it", True, DIGEST),),
    "recipients.*": (
        Key(
            "*",
            "text",
            "the identity in its certificate: `spiffe://fleet/role/name`, at a site "
            "`spiffe://site.fleet/role/name`; of a sink its address, as `reuna sink show` prints it",
            True,
            lambda value: (
                ""
                if is_identity(value) or not wrong_address(value)
                else "must be spiffe://fleet/role/name, spiffe://site.fleet/role/name or a sink's address"
            ),
        ),
    ),
    "sources.*": (
        Key(
            "columns",
            "texts",
            'columns that may be read; `["*"]`: the whole folder. With a list code sees a copy of the '
            "tables with these alone, at sandbox level 3 and no lower",
            True,
            _each(_any_or_word, "column", 1),
        ),
        Key(
            "purpose",
            "texts",
            "what for: `training`, `evaluation`, `inference`; without it for all",
            False,
            _each(is_word, "purpose", 1),
        ),
        Key(
            "row_unit",
            "text",
            "what one row is about, as `asset-day`; for the reader, nothing is judged by it",
            False,
            _text(".{1,64}", "short"),
        ),
    ),
    "flows": (
        Key("kind", "text", f"one of {', '.join(KINDS)}", True, _one_of(*KINDS)),
        Key("to", "texts", "names of recipients; empty: nobody", True, _each(is_word, "recipient")),
        Key(
            "protection",
            "text",
            "the least that is acceptable: clear, split or secagg; a stronger one is too. Nothing is "
            "split or masked yet, so only `clear` lets anything leave",
            False,
            _one_of(*PROTECTIONS),
            NUMBERS,
        ),
        Key(
            "min_cohort",
            "whole",
            "nodes in the sum, of those on the fleet's signed roster; without one, more than 1 is refused",
            False,
            _at_least(0),
            NUMBERS,
        ),
        Key(
            "min_organisations",
            "whole",
            "organisations in the sum, by the fleet's signed roster",
            False,
            _at_least(0),
            NUMBERS,
        ),
        Key(
            "min_samples",
            "whole",
            "local rows behind it, as the code that trained says; of a sum those of all its members",
            False,
            _at_least(0),
            NUMBERS,
        ),
        Key(
            "min_local_steps",
            "whole",
            "steps of training behind it, so that no single batch shows: the epochs that the cloud's "
            "signed plan asks for; nobody counts what the code does",
            False,
            _at_least(0),
            UPDATES,
        ),
        Key("tensors", "table", "what a model update may consist of", False, None, UPDATES),
        Key(
            "dp",
            "table",
            "differential privacy: required, and how much of it may be spent; no training states its ε "
            "yet, so a rule with this refuses",
            False,
            None,
            ("model_update", "statistic"),
        ),
        Key(
            "max_rounds_per_day",
            "whole",
            "rounds of this kind begun on one day, UTC",
            False,
            _at_least(0),
            (*NUMBERS, "prediction", "window"),
        ),
        Key(
            "names",
            "texts",
            'metrics that may leave, or signals of a window; `["*"]`: any',
            False,
            _each(_any_or_word, "name"),
            ("metric", "window"),
        ),
        Key(
            "max_values_per_round",
            "whole",
            "numbers of one round",
            False,
            _at_least(0),
            ("metric", "statistic", "prediction", "window"),
        ),
        Key(
            "min_cell",
            "whole",
            "rows behind the smallest count or mean: counts of fewer stay; no metric states it yet, so more "
            "than 0 refuses metrics",
            False,
            _at_least(0),
            ("metric", "statistic"),
        ),
    ),
    "flows.tensors": (
        Key(
            "schema",
            "text",
            "SHA-256 of the tensors' names and shapes: of the header of the model that the plan names",
            False,
            DIGEST,
        ),
        Key(
            "dtypes",
            "texts",
            "number types; what leaves is `float32` on the plan's grid",
            False,
            _each(is_word, "number type"),
        ),
        Key("max_params", "whole", "numbers in the update", False, _at_least(0)),
        Key(
            "max_norm",
            "number",
            "its length (L2), as the egress measures it; of a fog's sum the length of the mean update",
            False,
            _above_zero,
        ),
    ),
    "flows.dp": (
        Key("unit", "text", "what ε protects, as `asset-day`", True, _text(".{1,64}", "short")),
        Key("max_epsilon_total", "number", "ε of this unit that the site ever spends", True, _above_zero),
        Key("max_epsilon_round", "number", "ε of one update", True, _above_zero),
        Key("delta", "number", "largest δ", True, _below_one),
        Key(
            "on_exhausted",
            "text",
            "`block` (without it): refused for good; `pause`: kept for the next policy",
            False,
            _one_of("block", "pause"),
        ),
    ),
    "code": (
        Key("allow", "tables", "bundles that may run"),
        Key(
            "new_code",
            "text",
            "`ask`: an unknown bundle waits for the officers; `deny` (without it): refused",
            False,
            _one_of("ask", "deny"),
        ),
        Key(
            "min_sandbox_level", "whole", "least sandbox level in which pushed code runs", False, _at_least(0)
        ),
    ),
    "code.allow": (
        Key("digest", "text", "digest of the bundle", True, DIGEST),
        Key("approved_by", "texts", "names of signers", True, _each(is_word, "signer", 1)),
        Key("until", "date", "last day, to its end, UTC", True, _ordinary_day),
    ),
    "limits": (
        Key("bytes_per_day", "bytes", "of all kinds together, by day, UTC", False, _at_least(0)),
        Key(
            "windows",
            "windows",
            "times of the week, UTC; without it any time, empty never. Outside of them nothing is "
            "trained either; what was under way is kept",
        ),
    ),
    "ledger": (
        Key(
            "heads_to",
            "texts",
            "where its records go: `syslog://host`, `syslog+tcp://host`, `syslog+unix:///path`, `file:/path`",
            False,
            _each(_is_target, "target"),
        ),
    ),
}
