"""What a release must hold on a machine before it is kept there: rules that a node judges by itself.

    [operate]
    trial_s = 600            # a new release is on trial so long
    min_windows = 20         # and until it has answered so many windows
    max_safe = 0.5           # share of windows that only got the safe answer
    max_latency_ms = 1000    # of 99 windows in 100
    max_restarts = 3         # of its worker, during the trial
    min_agreement = 0.9      # as a shadow: share of windows answered as by the release that is live
    watch_s = 3600           # once confirmed it must go on to hold the first three over so long; 0: not
    back_every_s = 86400     # at most one way back in so long

The rules travel among the settings of a run, so they are in the lineage of its release: each release is
judged by its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from reuna.core.errors import SettingsError
from reuna.core.foreign import UNREADABLE, shown
from reuna.core.records import Setting
from reuna.core.settings import Option, between

KEY = "operate"  #: of the rules among the settings


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """See the module's text. ``max_safe`` and ``min_agreement``: shares from 0 to 1."""

    trial_s: float = 600.0
    min_windows: int = 20
    max_safe: float = 0.5
    max_latency_ms: float = 1000.0
    max_restarts: int = 3
    min_agreement: float = 0.0
    watch_s: float = 3600.0
    back_every_s: float = 86400.0


OPTIONS = (
    Option(
        "operate.trial_s", float, Health().trial_s, "how long a release is on trial", "s", between(0, 1e7)
    ),
    Option(
        "operate.min_windows",
        int,
        Health().min_windows,
        "windows that it must answer before it is judged",
        check=between(1, 1_000_000),
    ),
    Option(
        "operate.max_safe",
        float,
        Health().max_safe,
        "share of windows that may get only the safe answer",
        check=between(0, 1),
    ),
    Option(
        "operate.max_latency_ms",
        float,
        Health().max_latency_ms,
        "time within which 99 windows in 100 are answered",
        "ms",
        between(0.001, 1e7),
    ),
    Option(
        "operate.max_restarts",
        int,
        Health().max_restarts,
        "how often its worker may end by itself",
        check=between(0, 1000),
    ),
    Option(
        "operate.min_agreement",
        float,
        Health().min_agreement,
        "as a shadow: share of windows answered as by the release that is live",
        check=between(0, 1),
    ),
    Option(
        "operate.watch_s",
        float,
        Health().watch_s,
        "time over which a confirmed release must go on to hold its rules; 0: it is not watched",
        "s",
        between(0, 1e7),
    ),
    Option(
        "operate.back_every_s",
        float,
        Health().back_every_s,
        "at most one confirmed release is left for the one before in so long",
        "s",
        between(0, 1e9),
    ),
)


def health_of(values: Mapping[str, Any]) -> Health:
    """The rules that the checked values of `reuna.toml` say."""
    return Health(*(values[f"{KEY}.{name}"] for name in Health.__struct_fields__))


def as_settings(rules: Health) -> dict[str, Setting]:
    """The rules as they stand among a run's settings; nothing when none were declared."""
    return {} if rules == Health() else {KEY: msgspec.json.encode(rules).decode()}


def health(settings: Mapping[str, Setting]) -> Health:
    """The rules among a run's settings. Raises `SettingsError` for a text that is none of ours."""
    text = settings.get(KEY)
    if text is None:
        return Health()
    try:
        return msgspec.json.decode(str(text), type=Health)
    except (*UNREADABLE, UnicodeEncodeError) as error:
        raise SettingsError(f"the rules of health cannot be read: {shown(str(error))}") from error
