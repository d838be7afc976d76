"""Which node is which type of machine, as a project's `reuna.toml` says it.

    [machines]
    "pump-small" = ["plant-1", "plant-2/*"]
    "pump-large" = ["plant-3"]

A pattern is the name of a node or of a site, with ``*`` and ``?`` as in a shell. A node is of every type
that has a pattern for it; of none when no pattern does.

>>> groups({"small": ("pump-?",), "large": ("hall-2",)}, {"hall-1": ["pump-1"], "hall-2": ["pump-2"]})
{'small': ['pump-1', 'pump-2'], 'large': ['pump-2']}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from reuna.core.foreign import shown

Machines = Mapping[str, tuple[str, ...]]  #: type -> patterns


def mistake(table: Mapping[str, Any]) -> str:
    """What is wrong with the table ``[machines]``, or ''."""
    for name, patterns in table.items():
        good = isinstance(patterns, list) and patterns and all(isinstance(p, str) and p for p in patterns)
        if not name.strip() or not good:
            return f"{shown(name)} has {shown(patterns)}, expected a list of names of nodes or sites"
    return ""


def machines(table: Mapping[str, Any]) -> Machines:
    """The table, once `mistake` found nothing."""
    return {name: tuple(patterns) for name, patterns in table.items()}


def groups(found: Machines, sites: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Type -> its nodes, sorted. ``sites``: site -> its nodes."""
    return {
        name: sorted(
            node
            for site, nodes in sites.items()
            for node in nodes
            if any(fnmatchcase(node, each) or fnmatchcase(site, each) for each in patterns)
        )
        for name, patterns in found.items()
    }
