"""What a tracking server is told about a run. Pure records; nobody here knows which server.

>>> Measure(("site", "plant-1", "federated", "all"), 0.91, step=20, at_s=1795765247.0).name[1]
'plant-1'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measure:
    """One number. ``name`` in parts, any text each; ``step`` is the round; ``at_s`` since the epoch."""

    name: tuple[str, ...]
    value: float
    step: int
    at_s: float


@dataclass(frozen=True)
class Tracked:
    """A run, or what is known of it so far.

    ``experiment`` is what runs are grouped by; ``ended_s`` is None while it goes on; ``files`` are paths;
    ``version`` names this content once it is final: a run that is there with it needs nothing more.
    """

    run: str
    experiment: str
    began_s: float
    ended_s: float | None = None
    failed: bool = False
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    files: tuple[str, ...] = ()
    version: str = ""


@dataclass(frozen=True)
class Registered:
    """A release as one version of a registered model.

    ``model`` is the name that all its versions share; ``digest`` tells a version from every other; ``run`` is
    what the release itself knows of the run that trained it; ``files`` by name; ``text`` is for people.
    """

    model: str
    version: int
    digest: str
    run: Tracked
    files: Mapping[str, bytes]
    tags: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
