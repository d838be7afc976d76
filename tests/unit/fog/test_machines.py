"""Machines come by MQTT only where the fog's settings name them, with a password, for topics of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core import subjects as nats
from reuna.core import topics
from reuna.core.errors import SettingsError
from reuna.core.mqtt_listener import subjects
from reuna.core.settings import Source, parse
from reuna.fog.machines import machines_of
from reuna.fog.settings import FOG

ALL = {option.name: option.default for option in FOG}
LEVEL = st.text("abB1_-.:", min_size=1, max_size=4)
TOPIC = st.lists(LEVEL, min_size=1, max_size=4)
FILTER = st.tuples(st.lists(LEVEL | st.just("+"), max_size=3), st.sampled_from([[], ["#"]])).map(
    lambda both: "/".join(["a", *both[0], *both[1]])
)


def settings(folder: Path, **user: Any) -> dict[str, Any]:
    (folder / "password").write_text("secret\n")
    said = {"password_file": str(folder / "password"), "publish": ["plant/press/#"], **user}
    return ALL | {"mqtt.listen_port": 8883, "mqtt.users": {"press": said}}


def test_unless_said_nobody_comes() -> None:
    assert machines_of(ALL) is None


def test_a_user_has_the_password_of_its_file_and_its_topics(tmp_path: Path) -> None:
    listener = machines_of(settings(tmp_path))
    assert listener is not None
    assert (listener.port, listener.connections, listener.payload) == (8883, 64, 65_536)
    assert [(each.name, each.password, each.publish) for each in listener.users] == [
        ("press", "secret", ("plant/press/#",))
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password_file": ""}, "has no password_file"),
        ({"password_file": "/gone/password"}, "cannot be read"),
        ({"publish": []}, "neither publish nor subscribe"),
        ({"publish": ["#"]}, "must begin with a name"),
        ({"publish": ["+/press"]}, "must begin with a name"),
        ({"publish": ["plant/#/x"]}, "# before its end"),
        ({"publish": ["$MQTT/x"]}, "signs other than"),
        ({"publish": ["/plant"]}, "signs other than"),
        ({"publish": ["plant/*"]}, "signs other than"),
        ({"publish": ["plant/>"]}, "signs other than"),
        ({"subscribe": [5]}, "expected text"),
    ],
)
def test_a_user_that_cannot_be_is_one_clear_message(tmp_path: Path, wrong: Any, said: str) -> None:
    with pytest.raises(SettingsError, match="mqtt.users.press") as found:
        machines_of(settings(tmp_path, **wrong))
    assert said in found.value.message


def test_a_listener_for_nobody_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="names nobody"):
        machines_of(settings(tmp_path) | {"mqtt.users": {}})


def test_an_empty_password_is_a_mistake(tmp_path: Path) -> None:
    said = settings(tmp_path)
    (tmp_path / "password").write_text("\n")
    with pytest.raises(SettingsError, match="has no password"):
        machines_of(said)


def test_the_settings_file_says_it_as_tables() -> None:
    text = {"mqtt": {"listen_port": 8883, "users": {"press": {"password_file": "/p", "publish": ["a/b"]}}}}
    some = tuple(option for option in FOG if option.name.startswith("mqtt."))
    assert parse(some, [Source("fog.toml", text)])["mqtt.users"]["press"]["publish"] == ["a/b"]


@given(FILTER, TOPIC)
def test_a_filter_takes_the_same_topics_at_the_server_as_in_mqtt(pattern: str, levels: list[str]) -> None:
    topic = "/".join(["a", *levels])
    (subject,) = subjects(topic)
    taken = any(nats.matches(each, subject) for each in subjects(pattern))
    assert taken == topics.matches(pattern, topic)
