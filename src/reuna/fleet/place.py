"""A place as a process: ``python -m reuna.fleet.place [--debug] KIND --settings FILE [--set NAME=VALUE]…``.

What ``reuna cloud``, ``reuna fog`` and ``reuna edge`` become once their arguments are read, and what a fleet
on one machine starts: the command line's own libraries take 15 MiB that no place needs.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reuna.adapters.logs import say_what_happens
from reuna.adapters.processes import ONE_THREAD, loading, no_core_files, one_heap
from reuna.adapters.tls import read_in_pieces
from reuna.adapters.toml_file import read_toml
from reuna.core.errors import ReunaError
from reuna.core.settings import Look, Option, environment, flags, parse
from reuna.fleet.ending import in_order, until_done

log = logging.getLogger("reuna")
DEBUG = "--debug"


class Kind(NamedTuple):
    """Where a kind of place has its table of settings, its ``run``, and how its environment begins."""

    table: tuple[str, str]
    run: str
    prefix: str


KINDS = {
    "cloud": Kind(("reuna.cloud.settings", "CLOUD"), "reuna.cloud.coordinator", "REUNA_CLOUD_"),
    "fog": Kind(("reuna.fog.settings", "FOG"), "reuna.fog.gateway", "REUNA_FOG_"),
    "edge": Kind(("reuna.edge.settings", "EDGE"), "reuna.edge.agent", "REUNA_EDGE_"),
}


def command(kind: str, file: Path, sets: Sequence[str] = (), debug: bool = False) -> list[str]:
    """What starts a place; the folder that it is started in has no say in what is imported."""
    words = [kind, "--settings", str(file), *(word for each in sets for word in ("--set", each))]
    return [sys.executable, "-P", "-m", "reuna.fleet.place", *([DEBUG] if debug else []), *words]


def serve(kind: str, file: Path, sets: Sequence[str] = ()) -> None:
    """Run a place until it is told to end; on SIGHUP it gets its settings read again."""
    one_heap()
    read_in_pieces()
    os.environ.update(ONE_THREAD)  # here and in all that it starts, before numpy is loaded
    place = KINDS[kind]
    with loading():
        run: Callable[..., Any] = importlib.import_module(place.run).run
        table: tuple[Option, ...] = getattr(importlib.import_module(place.table[0]), place.table[1])
    _serve(run, table, lambda: read_settings(table, place.prefix, file, list(sets), there))


def read_settings(
    table: tuple[Option, ...], prefix: str, file: Path, sets: list[str] | None, look: Look | None = None
) -> dict[str, Any]:
    """A place's settings from its file, the environment and flags. Raises `SettingsError`.

    A place that starts also looks whether the files they name are `there`.
    """
    said = [read_toml(file), environment(table, prefix, os.environ), flags(sets or [])]
    return parse(table, said, look=look)


def there(option: Option, values: Mapping[str, Any]) -> str:
    """What is wrong with the file or folder that a setting names, for a place that starts now."""
    path = Path(values[option.name])
    if option.there == "later":
        return ""
    if option.there == "pin" and (Path(values["folder"]) / "trust" / "state").is_file():
        return ""  # read once, when the node was new
    if not path.exists():
        return "which is not there"
    if path.is_dir() != (option.there == "folder"):
        return "which is no folder" if option.there == "folder" else "which is no file"
    return "" if os.access(path, os.R_OK) else "which this user may not read"


def _serve(run: Callable[..., Any], table: tuple[Option, ...], read: Callable[[], dict[str, Any]]) -> None:
    """Run a place; on SIGHUP it gets its settings read again. A mistake in them changes nothing."""
    no_core_files()
    settings = read()
    say_what_happens(settings["name"])
    waiting_for(table, settings)
    changes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def reread() -> None:
        try:
            changes.put_nowait(read())
        except ReunaError as error:
            log.error("settings stay as they were: %s", error)

    until_done(run(settings, changes), reread)


def waiting_for(table: tuple[Option, ...], settings: Mapping[str, Any]) -> None:
    """Say which files a place goes without until they come."""
    for option in table:
        if option.there == "later" and not Path(settings[option.name]).exists():
            log.warning("waits for %s, %s: it is not there yet", option.name, settings[option.name])


def main(words: Sequence[str]) -> None:
    """Entry of the process; ``words`` are those that `command` makes, which is who starts it."""
    if words[:1] == [DEBUG]:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
        words = words[1:]
    kind, _, file, *sets = words
    in_order(lambda: serve(kind, Path(file), sets[1::2]))


if __name__ == "__main__":
    main(sys.argv[1:])
