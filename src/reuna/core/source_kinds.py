"""What a kind of source adds to ``sources.toml``: its own keys, what must be there, and its record.

The keys of all kinds stand in one table; which of them a kind has, and with which tags, is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.settings import TCP_PORT, Option, between
from reuna.core.sources import Scaling

COMMON_TAG = ("unit", "scale", "offset")  #: keys that a tag of every kind has
AS_IT_IS = Scaling()


def _port(port: int) -> str:
    return TCP_PORT(port) if port else ""


HOST = Option("host", str, "", "name or address of the device or broker")
PORT = Option("port", int, 0, "its TCP port; 0: the usual one of the kind", check=_port)
SPEED = Option(
    "speed",
    float,
    1.0,
    "replay, and opcua with a simulated machine behind it: how many times faster than life",
    check=between(0.001, 1e6),
)


@dataclass(frozen=True)
class Peer:
    """Where the other side of a source is.

    With ``tls`` it must show a certificate of ``authority``, '' for one that this machine knows, and is shown
    ours (files, PEM). ``readable``: a password would travel where anyone can read it.
    """

    host: str
    port: int
    readable: bool = False
    tls: bool = False
    authority: str = ""
    certificate: str = ""
    key: str = ""


def nothing(settings: Any) -> None:
    """What a kind has not."""


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    ``options`` and ``tag`` are the keys that it has beside ``kind`` and ``tags``, and beside `COMMON_TAG`;
    ``needed`` must be given, which is looked at before all else. ``wrong`` tells what only the whole can,
    ``made`` gives the record, ``peer`` tells of a record where its other side is, ``period_s`` how often each
    tag gives a reading, where that is declared.
    """

    name: str
    options: tuple[Option, ...]
    tag: tuple[Option, ...]
    needed: tuple[str, ...]
    made: Callable[[str, Mapping[str, Any]], Any]
    wrong: Callable[[str, Mapping[str, Any]], Iterable[str]]
    peer: Callable[[Any], Peer | None] = nothing
    period_s: Callable[[Any], float | None] = nothing

    def mistakes(self, name: str, table: Mapping[str, Any]) -> Iterator[str]:
        """What is wrong with a source of this kind, one line each."""
        yield from strays(name, table, self.name, {option.name for option in self.options})
        yield from tag_strays(name, table, {option.name for option in self.tag})
        yield from self.wrong(name, table)


def strays(name: str, table: Mapping[str, Any], kind: str, known: set[str]) -> Iterator[str]:
    """Keys of other kinds, a line each."""
    for key in table:
        if key not in known | {"kind", "tags"}:
            yield f"sources.{name}.{key} is not for a source of kind {kind}"


def tag_strays(name: str, table: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    """Keys of its tags that are of other kinds, a line each."""
    for tag, said in table["tags"].items():
        for key in said:
            if key not in known | set(COMMON_TAG):
                yield f"sources.{name}.tags.{tag}.{key} is not for a source of kind {table['kind']}"


def scaling_of(said: Mapping[str, Any]) -> Scaling:
    """Scale and offset of a tag."""
    return Scaling(float(said.get("scale", 1.0)), float(said.get("offset", 0.0)))


def merged(*tables: Iterable[Option]) -> tuple[Option, ...]:
    """Options of several kinds: each name once, as the first says it."""
    found: dict[str, Option] = {}
    for table in tables:
        for option in table:
            found.setdefault(option.name, option)
    return tuple(found.values())
