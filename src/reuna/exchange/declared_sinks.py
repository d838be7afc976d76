"""The sinks that a site declared, as agent and egress of a node both read them. Loads little."""

from __future__ import annotations

from pathlib import Path

from reuna.adapters.toml_file import read_toml
from reuna.core.settings import locating, parse
from reuna.core.sink_settings import SINKS, SinkSettings, sinks_of


def declared(file: str) -> tuple[SinkSettings, ...]:
    """The sinks that a node's file says, none without a file. Raises `SettingsError`."""
    if not file:
        return ()
    source = read_toml(Path(file))
    values = parse(SINKS, [source])
    with locating(source.places):
        return sinks_of(values)
