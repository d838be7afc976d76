"""Where labels come from that are known later, as ``sources.toml`` says it.

[labels.laboratory]
project = "pumps"
folder = "/data/laboratory"
time = "sampled"
label = "fault"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.settings import Option, between
from reuna.core.sources import MAX_NAME

NEEDED = ("project", "folder", "time", "label")


def _sound(table: Mapping[str, Any]) -> str:
    missing = next((name for name in NEEDED if not table.get(name)), "")
    return f"has no {missing}" if missing else ""


LABELS = Option(
    "labels",
    dict,
    {},
    "labels that are known later, each folder under a name of its own",
    check=_sound,
    each=(
        Option("project", str, "", "whose answers they are held against"),
        Option("folder", str, "", "folder with their CSV and Parquet files"),
        Option("time", str, "", "column of the moment, or of the first one: as that of a source"),
        Option("until", str, "", "column of the last moment; empty: a label is of one moment"),
        Option("label", str, "", "column of the label, a number: the class, or what was measured"),
        Option(
            "within_s",
            float,
            0.0,
            "how much older than its moment the answer may be; 0: as long as from one window to the next",
            "s",
            between(0, 31_536_000),
        ),
        Option("every_s", float, 10.0, "how often the folder is looked at", "s", between(0.1, 86_400)),
    ),
)


@dataclass(frozen=True)
class LabelSettings:
    """One folder of labels."""

    name: str
    project: str
    folder: str
    time: str
    label: str
    until: str = ""
    within_s: float = 0.0
    every_s: float = 10.0


def labels_of(values: Mapping[str, Any]) -> tuple[LabelSettings, ...]:
    """The folders that checked settings say."""
    return tuple(LabelSettings(name, **table) for name, table in values["labels"].items())


def odd(labels: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with names, line by line."""
    for name in labels:
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            yield f"labels: a name has 1 to {MAX_NAME} printable characters"
