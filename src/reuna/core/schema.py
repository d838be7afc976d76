"""A table of settings as JSON Schema, for editors that complete and check a TOML file. Pure.

Draft 7, because that is what editors' TOML tools read. It says less than `reuna.core.settings.parse`:
not that ``20.0`` is no whole number, that a minimum lies below a maximum, or what the project's own
code expects.

>>> from reuna.core.settings import between
>>> table = (Option("listen.port", int, 8443, "TCP port", check=between(1, 65_535)),)
>>> schema(table, "fog.toml")["properties"]["listen"]["properties"]["port"]["maximum"]
65535
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reuna.core.settings import REQUIRED, Between, OneOf, Option

DRAFT = "http://json-schema.org/draft-07/schema#"
TYPES: Mapping[type, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}
PLAIN = ["boolean", "number", "object", "string"]  #: an object is one more part of the name


def schema(
    table: Sequence[Option], title: str, free: Sequence[str] = (), not_free: str = "(?!)"
) -> dict[str, Any]:
    """What a file of that table may hold.

    Sections named in ``free`` take any plain value under any key but those that ``not_free`` finds.
    """
    root: dict[str, Any] = {"$schema": DRAFT, "title": title, **_section()}
    for option in table:
        *sections, key = option.name.split(".")
        place = root
        for section in sections:
            place = place["properties"].setdefault(section, _section())
        place["properties"][key] = _value(option)
        if option.default is REQUIRED:
            _need(root, [*sections, key])
    for section in free:
        root["properties"][section] = {
            "type": "object",
            "description": "the project's own: any plain value, for its code",
            "additionalProperties": {"type": PLAIN},
            "propertyNames": {"not": {"pattern": not_free}},
        }
    return root


def _section() -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {}}


def _need(place: dict[str, Any], path: list[str]) -> None:
    """Have every section on the way to a required setting required too."""
    for name in path:
        place["required"] = sorted({*place.get("required", ()), name})
        place = place["properties"][name]


def _value(option: Option) -> dict[str, Any]:
    said: dict[str, Any] = {"type": TYPES[option.kind], "description": _described(option)}
    if option.default is not REQUIRED and option.default is not None and not _endless(option.default):
        said["default"] = option.default
    if isinstance(option.check, OneOf):
        said["enum"] = list(option.check.allowed)
    if isinstance(option.check, Between):
        said |= {"minimum": option.check.low, "maximum": option.check.high}
    if option.each:
        entry = {**_section(), "properties": {key.name: _value(key) for key in option.each}}
        said["additionalProperties"] = entry
    return said


def _endless(value: Any) -> bool:
    """JSON has no infinity."""
    return isinstance(value, float) and math.isinf(value)


def _described(option: Option) -> str:
    return f"{option.help} ({option.unit})" if option.unit else option.help
