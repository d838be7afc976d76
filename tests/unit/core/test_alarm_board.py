"""Where alarms stand at a broker, and whose words there count."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.cloud.settings import CLOUD
from reuna.core.alarm_board import MAX_NOTE, board_of, number_of, read_word
from reuna.core.errors import BadMessage, SettingsError

DEFAULTS = {option.name: option.default for option in CLOUD} | {"fleet": "demo"}
HOST = {"alarms.mqtt_host": "broker.plant"}


def test_without_a_host_there_is_no_board() -> None:
    assert board_of(DEFAULTS) is None


def test_a_board_is_named_for_its_fleet_and_takes_no_words_unless_said() -> None:
    board = board_of(DEFAULTS | HOST)
    assert board is not None
    assert (board.topic, board.broker.port, board.acknowledge) == ("reuna/demo/alarms", 1883, False)


def test_words_count_where_the_broker_proves_itself_and_we_sign_in() -> None:
    sure = {"alarms.mqtt_acknowledge": True, "alarms.mqtt_tls": True, "alarms.mqtt_user": "reuna"}
    board = board_of(DEFAULTS | HOST | sure)
    assert board is not None
    assert (board.acknowledge, board.broker.port) == (True, 8883)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"alarms.mqtt_acknowledge": True}, "that anybody may be"),
        ({"alarms.mqtt_acknowledge": True, "alarms.mqtt_tls": True}, "that anybody may be"),
        ({"alarms.mqtt_acknowledge": True, "alarms.mqtt_user": "reuna"}, "that anybody may be"),
        ({"alarms.mqtt_certificate": "a.pem"}, "certificate and key go together"),
        ({"alarms.mqtt_password_file": "a"}, "alarms.mqtt_password_file is set"),
        ({"alarms.mqtt_topic": "plant/#"}, "alarms.mqtt_topic is 'plant/#'"),
        ({"alarms.mqtt_topic": "$SYS/a"}, "alarms.mqtt_topic"),
        ({"alarms.mqtt_topic": "plant/"}, "alarms.mqtt_topic"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_message(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as found:
        board_of(DEFAULTS | HOST | wrong)
    assert said in found.value.message


@pytest.mark.parametrize(
    ("topic", "found"),
    [
        ("a/b/12", ("12", False)),
        ("a/b/12/acknowledge", ("12", True)),
        ("a/b/0", None),
        ("a/b/12/other", None),
        ("a/b/12/acknowledge/x", None),
        ("a/b/press", None),
        ("12", None),
        ("12/acknowledge", None),
    ],
)
def test_a_topic_says_which_alarm(topic: str, found: tuple[str, bool] | None) -> None:
    assert number_of(topic, "a/b") == found


@pytest.mark.parametrize(
    "payload", [b"", b"anna", b"[]", b'{"by": ""}', b'{"by": "a\\u001b[2J"}', b'{"by": 1}', b" " * 5000]
)
def test_a_word_without_somebody_is_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        read_word(payload)


def test_a_long_note_is_cut() -> None:
    assert len(read_word(b'{"by": "anna", "note": "%s"}' % (b"x" * 3000)).note) == MAX_NOTE
