"""One table for each kind of settings: help, documentation, parsing and checks all read it.

Values come from a file, then the environment, then flags; the later wins. An empty text of the
latter two takes back what has no default. All mistakes are reported together, each with where it
came from. Pure: the caller reads file and environment.

>>> table = (Option("listen.port", int, 8443, "TCP port of the freight server"),)
>>> parse(table, [Source("fog.toml", {"listen": {"port": 9000}})])["listen.port"]
9000
>>> parse(table, [Source("fog.toml", {"listen": {"prot": 9000}})])
Traceback (most recent call last):
    ...
reuna.core.errors.SettingsError: fog.toml: listen.prot is not a setting; did you mean listen.port?
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reuna.core.errors import SettingsError
from reuna.core.foreign import shown

REQUIRED = object()  #: default of an option that must be given
Check = Callable[[Any], str]
#: What is wrong with the file or folder that a given option names, or ''; the world as an argument.
Look = Callable[["Option", Mapping[str, Any]], str]
TEXT_ORIGINS = ("environment", "flags")  #: sources whose values are always text


@dataclass(frozen=True)
class Option:
    """``kind`` is str, int, float, bool, list or dict; ``check`` returns what is wrong, or ''.

    ``there``: for a path, what has to be there when the place starts: ``file``, ``folder``; ``pin`` is a
    file that a node without a trust store needs; ``later`` one that may come at any time.
    """

    name: str
    kind: type
    default: Any
    help: str
    unit: str = ""
    check: Check | None = None
    there: str = ""


@dataclass(frozen=True)
class Source:
    """Where values come from: its name for messages, and nested or dotted values."""

    origin: str
    values: Mapping[str, Any]


def between(low: float, high: float) -> Check:
    """A check that a number lies in ``low..high``."""
    return lambda value: "" if low <= value <= high else f"must be between {low:g} and {high:g}"


def one_of(*words: str) -> Check:
    """A check that a text is one of ``words``."""
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


TCP_PORT = between(1, 65_535)
PORT_OR_NONE = between(0, 65_535)  #: for a port that 0 switches off or leaves to the system


def address(text: str) -> str:
    """A check of ``host:port``, also behind a scheme as in ``tls://host:port``."""
    host, _, port = text.rpartition(":")
    good = host and port.isascii() and port.isdigit() and len(port) <= 5 and not TCP_PORT(int(port))
    return "" if good else "must be host:port, with a port between 1 and 65535"


def address_or_none(text: str) -> str:
    """A check of ``host:port``, or of no text at all."""
    return address(text) if text else ""


def environment(table: Sequence[Option], prefix: str, environ: Mapping[str, str]) -> Source:
    """Settings from variables like ``REUNA_FOG_LISTEN_PORT`` (prefix ``REUNA_FOG_``)."""
    names = {prefix + option.name.replace(".", "_").upper(): option.name for option in table}
    found = {names[key]: value for key, value in environ.items() if key in names}
    return Source("environment", found)


def flags(pairs: Sequence[str]) -> Source:
    """Settings from ``NAME=VALUE`` flags; values as in the environment. Raises `SettingsError`."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise SettingsError("\n".join(f"--set {pair}: expected NAME=VALUE" for pair in wrong))
    return Source("flags", dict(pair.split("=", 1) for pair in pairs))


def parse(
    table: Sequence[Option], sources: Iterable[Source], free: Sequence[str] = (), look: Look | None = None
) -> dict[str, Any]:
    """Every option's value by its dotted name. Raises `SettingsError` with all mistakes.

    Sections named in ``free`` take any keys; they come back under ``section.key``. ``look`` is asked
    about each path that is set.
    """
    known = {option.name: option for option in table}
    values = {option.name: option.default for option in table}
    mistakes: list[str] = []
    for source in sources:
        for name, value in _flat(source.values, known):
            if name in known:
                _take(known[name], value, source.origin, values, mistakes)
            elif name.split(".")[0] in free:
                values[name] = _guess(value) if source.origin in TEXT_ORIGINS else value
            else:
                mistakes.append(f"{source.origin}: {name} is not a setting{_near(name, known)}")
    for option in table:
        if values[option.name] is REQUIRED:
            mistakes.append(f"{option.name} is missing: {option.help}")
        elif look is not None and option.there and values[option.name]:
            wrong = look(option, values)
            mistakes += [f"{option.name} is {values[option.name]}, {wrong}"] if wrong else []
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return values


def _flat(
    values: Mapping[str, Any], known: Mapping[str, Option], path: str = ""
) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping) and not (name in known and known[name].kind is dict):
            yield from _flat(value, known, f"{name}.")
        else:
            yield name, value


def _take(option: Option, value: Any, origin: str, values: dict[str, Any], mistakes: list[str]) -> None:
    if value == "" and origin in TEXT_ORIGINS and option.default is None:
        values[option.name] = None
        return
    converted = _convert(option.kind, value, origin)
    if converted is None:
        mistakes.append(f"{origin}: {option.name} is {shown(value)}, expected {_words(option.kind)}")
        return
    wrong = option.check(converted) if option.check else ""
    if wrong:
        mistakes.append(f"{origin}: {option.name} is {shown(value)}, {wrong}")
        return
    values[option.name] = converted


def _convert(kind: type, value: Any, origin: str) -> Any:
    if isinstance(value, str) and origin in TEXT_ORIGINS and kind is not str:
        return _from_text(kind, value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < sys.float_info.max else None
    if isinstance(value, bool) and kind is not bool:
        return None
    return value if isinstance(value, kind) else None


def _from_text(kind: type, text: str) -> Any:
    if kind is bool:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower())
    if kind is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return kind(text)
    except (TypeError, ValueError):
        return None


def _guess(text: str) -> Any:
    """The plain value a text most likely means: a number, true or false, else the text."""
    for kind in (int, float, bool):
        value = _from_text(kind, text)
        if value is not None:
            return value
    return text


def _words(kind: type) -> str:
    words: dict[type, str] = {
        str: "text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        list: "a list",
        dict: "a table",
    }
    return words[kind]


def _near(name: str, known: Mapping[str, Option]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
