"""One table for each kind of settings: help, documentation, parsing and checks all read it.

Values come from a file, then the environment, then flags; the later wins. An empty text of the
latter two takes back what has no default. All mistakes are reported together, each with where it
came from: of a file the line and column. Pure: the caller reads file and environment.

>>> table = (Option("listen.port", int, 8443, "TCP port of the freight server"),)
>>> parse(table, [Source("fog.toml", {"listen": {"port": 9000}})])["listen.port"]
9000
>>> parse(table, [Source("fog.toml", {"listen": {"prot": 9000}})])
Traceback (most recent call last):
    ...
reuna.core.errors.SettingsError: fog.toml: listen.prot is not a setting; did you mean listen.port?
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from reuna.core.errors import ReunaError, SettingsError
from reuna.core.foreign import shown

REQUIRED = object()  #: default of an option that must be given
Check = Callable[[Any], str]
#: What is wrong with the file or folder that a given option names, or ''; the world as an argument.
Look = Callable[["Option", Mapping[str, Any]], str]
#: What is wrong with the values as a whole, one line each that begins with a setting's name.
Judge = Callable[[Mapping[str, Any]], Iterable[str]]
TEXT_ORIGINS = ("environment", "flags")  #: sources whose values are always text


@dataclass(frozen=True)
class Option:
    """``kind`` is str, int, float, bool, list or dict; ``check`` returns what is wrong, or ''.

    ``each``: a dict holds tables, and these are the keys that each may have; none of them is needed.
    ``check`` then looks at each table.
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
    each: tuple[Option, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where values come from: its name for messages, and nested or dotted values.

    ``places``: of a file, ``FILE:LINE:COLUMN`` of each key by its dotted name.
    """

    origin: str
    values: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)

    def place(self, name: str) -> str:
        """Where a value of that name stands, as exactly as is known."""
        return self.places.get(name, self.origin)


@dataclass(frozen=True)
class Between:
    """A check that a number lies in ``low..high``."""

    low: float
    high: float

    def __call__(self, value: Any) -> str:
        """What is wrong, or ''."""
        within = self.low <= value <= self.high
        return "" if within else f"must be between {_figure(self.low)} and {_figure(self.high)}"


@dataclass(frozen=True)
class OneOf:
    """A check that a value is one of those."""

    allowed: tuple[Any, ...]

    def __call__(self, value: Any) -> str:
        """What is wrong, or ''."""
        if value in self.allowed:
            return ""
        close = _nearest(value, self.allowed) if isinstance(value, str) else ""
        return f"must be one of {', '.join(map(str, self.allowed))}{close}"


def _figure(number: float) -> str:
    """A limit as one would write it: all its digits up to a million."""
    return f"{number:.0f}" if abs(number) < 1e15 and number == int(number) else f"{number:g}"


def between(low: float, high: float) -> Between:
    """A check that a number lies in ``low..high``."""
    return Between(low, high)


def one_of(*allowed: str | int) -> OneOf:
    """A check that a value is one of ``allowed``."""
    return OneOf(allowed)


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


#: Of an edge and a fog.
METRICS = Option(
    "metrics.listen",
    str,
    "",
    "host:port where Prometheus reads this node's counts, as 127.0.0.1:9464; empty: nowhere",
    check=address_or_none,
)
TRACES = Option(
    "traces.on", bool, False, "whether this node tells the cloud how long its part of each round took"
)


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
    table: Sequence[Option],
    sources: Iterable[Source],
    free: Sequence[str] = (),
    look: Look | None = None,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Every option's value by its dotted name. Raises `SettingsError` with all mistakes.

    Sections named in ``free`` take any keys; they come back under ``section.key``. ``look`` is asked
    about each path that is set, ``judge`` about what is left when every value of itself is looked at.
    """
    sources = list(sources)
    known = {option.name: option for option in table}
    values = {option.name: option.default for option in table}
    mistakes: list[str] = []
    for source in sources:
        for name, value in _flat(source.values, known):
            if name in known:
                _take(known[name], value, source, values, mistakes)
            elif name.partition(".")[0] in free and "." in name:
                values[name] = _guess(value) if source.origin in TEXT_ORIGINS else value
            elif wrong := _unknown(name, value, known, free):
                mistakes.append(f"{source.place(name)}: {wrong}")
    where, given = places_of(sources), {name for each in sources for name, _ in _flat(each.values, known)}
    for option in table:
        if values[option.name] is REQUIRED:
            mistakes += [] if option.name in given else [_missing(option, where)]
        elif look is not None and option.there and values[option.name]:
            wrong = look(option, values)
            mistakes += [located(f"{option.name} is {values[option.name]}, {wrong}", where)] if wrong else []
    mistakes += [located(line, where) for line in (judge(values) if judge else ())]
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return values


def places_of(sources: Iterable[Source]) -> dict[str, str]:
    """Where each setting's value comes from: the last source that says it."""
    found: dict[str, str] = {}
    for source in sources:
        found.update(source.places or dict.fromkeys(source.values, source.origin))
    return found


def located(message: str, places: Mapping[str, str]) -> str:
    """The message with its place before each line that begins with the name of a setting.

    >>> located("train.rate is -1", {"train.rate": "reuna.toml:9:1"})
    'reuna.toml:9:1: train.rate is -1'
    """
    lines = [(line, places.get(line.partition(" ")[0])) for line in message.splitlines()]
    return "\n".join(f"{place}: {line}" if place else line for line, place in lines)


@contextmanager
def locating(places: Mapping[str, str]) -> Iterator[None]:
    """An error that names a setting also says where that stands."""
    try:
        yield
    except ReunaError as error:
        error.message = located(error.message, places)
        error.args = (error.message,)
        raise


def _flat(
    values: Mapping[str, Any], known: Mapping[str, Option], path: str = ""
) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping) and value and not (name in known and known[name].kind is dict):
            yield from _flat(value, known, f"{name}.")
        else:
            yield name, value


def _missing(option: Option, where: Mapping[str, str]) -> str:
    missing = f"{option.name} is missing: {option.help}"
    section = where.get(option.name.rpartition(".")[0], "")
    return f"{section}: {missing}" if section else missing


def _unknown(name: str, value: Any, known: Mapping[str, Option], free: Sequence[str]) -> str:
    """What is wrong with a name that is no setting: nothing, when it is a section without any."""
    if name in free or any(each.startswith(f"{name}.") for each in known):
        return "" if value == {} else f"{name} is {shown(value)}, expected a section [{name}]"
    return f"{name} is not a setting{_near(name, known)}"


def _take(option: Option, value: Any, source: Source, values: dict[str, Any], mistakes: list[str]) -> None:
    if value == "" and source.origin in TEXT_ORIGINS and option.default is None:
        values[option.name] = None
        return
    converted = _convert(option.kind, value, source.origin)
    place = source.place(option.name)
    if converted is None:
        mistakes.append(f"{place}: {option.name} is {shown(value)}, expected {_expected(option, value)}")
        return
    if option.each:
        found = [line for name in converted for line in _table(option, name, converted[name], source)]
    else:
        wrong = option.check(converted) if option.check else ""
        found = [f"{place}: {option.name} is {shown(value)}, {wrong}"] if wrong else []
    mistakes += found
    if not found:
        values[option.name] = converted


def _table(option: Option, name: str, table: Any, source: Source) -> Iterator[str]:
    """What is wrong with one of the tables of an option with ``each``, every key at its place."""
    path, keys = f"{option.name}.{name}", {key.name: key for key in option.each}
    if not isinstance(table, Mapping):
        yield f"{source.place(path)}: {path} is {shown(table)}, expected a table with {', '.join(keys)}"
        return
    found = [
        line for key, value in table.items() for line in _entry(f"{path}.{key}", keys, key, value, source)
    ]
    yield from found
    wrong = option.check(table) if option.check and not found else ""
    if wrong:
        yield f"{source.place(path)}: {path} {wrong}"


def _entry(path: str, keys: Mapping[str, Option], key: str, value: Any, source: Source) -> Iterator[str]:
    """What is wrong with one key of such a table."""
    if key not in keys:
        close = _nearest(key, keys) or f"; there are {', '.join(keys)}"
        yield f"{source.place(path)}: {path} is not a setting{close}"
        return
    kept: dict[str, Any] = {}
    mistakes: list[str] = []
    _take(replace(keys[key], name=path), value, source, kept, mistakes)
    yield from mistakes


def _expected(option: Option, value: Any) -> str:
    """What would be right; and how the value is written right, when quotes are all that is wrong."""
    kind, words = option.kind, _words(option.kind)
    if isinstance(value, str) and kind is not str and _from_text(kind, value) is not None:
        return f"{words}; write it without quotes"
    if isinstance(option.check, OneOf):
        return f"one of {', '.join(map(str, option.check.allowed))}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{words}; write it in quotes" if kind is str and is_number else words


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
    """The setting that was meant: by its whole name, else by its last part in another section."""
    import difflib  # nobody who makes no mistake needs it

    last = {each.rpartition(".")[2]: each for each in known}
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    close = close or [last[each] for each in (name.rpartition(".")[2],) if each in last]
    return f"; did you mean {close[0]}?" if close else ""


def _nearest(word: str, words: Iterable[Any]) -> str:
    import difflib

    close = difflib.get_close_matches(word, [str(each) for each in words], n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
