"""On which data a run trained: what its nodes told of it, never a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reuna.core.fingerprint import COUNTS, WHAT
from reuna.loop.train import read_members


def data_windows(timeline: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By node: the samples of the last round that it took part in, and the newest fingerprint it told."""
    found: dict[str, dict[str, Any]] = {}
    for event in timeline:
        fields = event["fields"]
        if event["what"] == "round":
            for node, samples in read_members(str(fields["members"])).items():
                found.setdefault(node, {})["samples"] = samples
        elif event["what"] == WHAT:
            told = {name: fields[name] for name in ("fingerprint", "setup", *COUNTS) if name in fields}
            found.setdefault(event["node"], {}).update(told)
    return [{"node": node, **found[node]} for node in sorted(found)]
