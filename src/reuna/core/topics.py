"""MQTT topics and filters with ``+`` and ``#``: MQTT 3.1.1, section 4.7.

>>> matches("plant/+/oil", "plant/press/oil"), matches("plant/#", "plant"), matches("#", "$SYS/load")
(True, True, False)
>>> least(["plant/+/oil", "plant/press/oil", "other"])
['other', 'plant/+/oil']
"""

from __future__ import annotations

from collections.abc import Iterable

LONGEST = 65_535  #: bytes of a topic


def wrong_filter(text: str) -> str:
    """What is wrong with a filter, or ''."""
    levels = text.split("/")
    if not 0 < len(text.encode(errors="replace")) <= LONGEST or "\0" in text:
        return f"must have 1 to {LONGEST} bytes"
    if any(("+" in level or "#" in level) and level not in {"+", "#"} for level in levels):
        return "has + or # beside other characters; each stands alone between slashes"
    return "has # before its end" if "#" in levels[:-1] else ""


def matches(pattern: str, topic: str) -> bool:
    """Whether a filter takes a topic."""
    if topic.startswith("$") and pattern[:1] in {"+", "#"}:
        return False
    return covers(pattern, topic)


def covers(wide: str, narrow: str) -> bool:
    """Whether one filter takes all that the other takes; a topic is a filter that takes itself."""
    levels, others = wide.split("/"), narrow.split("/")
    for place, level in enumerate(levels):
        if level == "#":
            return True
        if place >= len(others) or others[place] == "#" or (level not in {"+", others[place]}):
            return False
    return len(levels) == len(others) or others[len(levels) :] == ["#"] == [levels[-1]]


def least(filters: Iterable[str]) -> list[str]:
    """The filters without those that others cover: a broker may send what two of them take twice."""
    every = sorted(set(filters))
    return [each for each in every if not any(other != each and _takes(other, each) for other in every)]


def _takes(wide: str, narrow: str) -> bool:
    return covers(wide, narrow) and not (narrow.startswith("$") and wide[:1] in {"+", "#"})
