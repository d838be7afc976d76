"""A fleet's alarms at an MQTT broker, each on a topic of its own as long as it goes on.

    TOPIC/NUMBER               retained: the alarm as JSON; empty once it is over
    TOPIC/NUMBER/acknowledge   {"by": "anna", "note": "..."}, where the settings take it

>>> board_of({"fleet": "demo", "alarms.mqtt_host": "broker.plant"}).topic
'reuna/demo/alarms'
>>> read_word(b'{"by": "anna", "note": "valve was changed"}')
Word(by='anna', note='valve was changed')
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from reuna.core.errors import BadMessage, SettingsError
from reuna.core.foreign import UNREADABLE
from reuna.core.mqtt_settings import Broker, broker_of, broker_wrong

PREFIX = "alarms.mqtt_"  #: before a key of the cloud's settings
ACKNOWLEDGE = "acknowledge"
MAX_WORD, MAX_BY, MAX_NOTE = 4096, 64, 2000  #: bytes of a word, characters of who says it and of what
_NUMBER = re.compile(r"[1-9]\d{0,9}")


@dataclass(frozen=True)
class BoardSettings:
    """``acknowledge``: whether what clients of the broker say there counts."""

    broker: Broker
    topic: str
    acknowledge: bool = False


class Word(msgspec.Struct, frozen=True):
    """Somebody at the broker says that they have seen an alarm. ``by`` is what they call themselves."""

    by: str
    note: str = ""


def board_of(settings: Mapping[str, Any]) -> BoardSettings | None:
    """The board that the cloud's settings name, if any. Raises `SettingsError` for one that cannot be."""
    said = {key.removeprefix(PREFIX): settings[key] for key in settings if key.startswith(PREFIX)}
    if not said.get("host"):
        return None
    if wrong := next(broker_wrong("alarms.mqtt", said), ""):
        raise SettingsError(wrong.replace("alarms.mqtt.", PREFIX))
    topic = said.get("topic") or f"reuna/{settings['fleet']}/alarms"
    if any(sign in topic for sign in "+#\0") or topic.startswith("$") or topic.endswith("/"):
        raise SettingsError(f"{PREFIX}topic is {topic!r}: no + or #, no $ at its beginning, no / at its end")
    broker = broker_of(said)
    if said.get("acknowledge") and not (broker.tls and (broker.user or broker.certificate)):
        raise SettingsError(
            f"{PREFIX}acknowledge takes words of a broker that anybody may be or speak to",
            "Sign in there by TLS, with mqtt_user or mqtt_certificate, or leave it off.",
        )
    return BoardSettings(broker, topic, bool(said.get("acknowledge")))


def number_of(topic: str, under: str) -> tuple[str, bool] | None:
    """The alarm that a topic is about, and whether it is where one is acknowledged."""
    number, _, rest = topic.removeprefix(f"{under}/").partition("/")
    if not topic.startswith(f"{under}/") or not _NUMBER.fullmatch(number) or rest not in ("", ACKNOWLEDGE):
        return None
    return number, bool(rest)


def read_word(payload: bytes) -> Word:
    """Raises `BadMessage`."""
    if len(payload) > MAX_WORD:
        raise BadMessage(f"it has {len(payload)} bytes, at most {MAX_WORD} are read")
    try:
        word = msgspec.json.decode(payload, type=Word)
    except UNREADABLE as error:
        raise BadMessage(f"it is no {{by, note}}: {error}") from error
    if not (0 < len(word.by) <= MAX_BY and word.by.isprintable()):
        raise BadMessage(f"`by` must have 1 to {MAX_BY} printable characters")
    return Word(word.by, word.note[:MAX_NOTE])
