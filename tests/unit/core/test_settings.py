"""Settings: one table, three sources, all mistakes at once."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from reuna.cloud.settings import CLOUD
from reuna.core.errors import SettingsError
from reuna.core.project import project_settings
from reuna.core.settings import (
    REQUIRED,
    Option,
    Source,
    address,
    between,
    environment,
    flags,
    one_of,
    parse,
)
from reuna.edge.settings import EDGE
from reuna.fog.settings import FOG
from reuna.learn.strategies import TAKES

TABLE = (
    Option("name", str, REQUIRED, "the node's name"),
    Option("listen.port", int, 8443, "TCP port", check=between(1, 65_535)),
    Option("mode", str, "fast", "how", check=one_of("fast", "safe")),
    Option("edges", list, [], "names"),
    Option("local", bool, True, "alone too"),
    Option("rate", float, 0.5, "step"),
)


def test_flags_win_over_the_environment_which_wins_over_the_file() -> None:
    file = Source("fog.toml", {"name": "north", "listen": {"port": 1}, "mode": "safe"})
    env = environment(
        TABLE, "REUNA_FOG_", {"REUNA_FOG_LISTEN_PORT": "2", "REUNA_FOG_EDGES": "a, b", "X": "y"}
    )
    values = parse(TABLE, [file, env, flags(["listen.port=3", "local=false", "rate=2"])])
    assert (values["listen.port"], values["mode"], values["edges"]) == (3, "safe", ["a", "b"])
    assert values["local"] is False
    assert values["rate"] == 2.0


def test_all_mistakes_are_reported_together_with_their_origin() -> None:
    file = Source("fog.toml", {"listen": {"prot": 1, "port": "x"}, "mode": "slow", "local": 1})
    with pytest.raises(SettingsError) as caught:
        parse(TABLE, [file, flags(["listen.port=0"])])
    assert caught.value.message.splitlines() == [
        "fog.toml: listen.prot is not a setting; did you mean listen.port?",
        "fog.toml: listen.port is 'x', expected a whole number",
        "fog.toml: mode is 'slow', must be one of fast, safe",
        "fog.toml: local is 1, expected true or false",
        "flags: listen.port is '0', must be between 1 and 65535",
        "name is missing: the node's name",
    ]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", 7, "name is 7, expected text; write it in quotes"),
        ("name", True, "name is True, expected text"),
        ("rate", "0.5", "rate is '0.5', expected a number; write it without quotes"),
        ("mode", True, "mode is True, expected one of fast, safe"),
        ("mode", 3, "mode is 3, expected one of fast, safe"),
    ],
)
def test_a_value_of_another_type_is_told_what_would_be_right(key: str, value: object, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(TABLE, [Source("fog.toml", {"name": "north", key: value})])
    assert caught.value.message == f"fog.toml: {said}"


@pytest.mark.parametrize("table", [CLOUD, FOG, EDGE], ids=["cloud", "fog", "edge"])
def test_every_port_and_address_of_a_place_is_checked(table: tuple[Option, ...]) -> None:
    ports = [option for option in table if option.name.rpartition(".")[2].endswith("port")]
    assert ports
    assert all(option.check is not None and option.check(99_999_999) for option in ports)
    assert all(option.check is not None and option.check(-1) for option in ports)
    addresses = [option for option in table if "host:port" in option.help]
    assert all(option.check is not None and option.check("fog:99999999") for option in addresses)


@pytest.mark.parametrize("text", ["fog:8443", "tls://127.0.0.1:4222", "[::1]:1"])
def test_host_and_port_are_an_address(text: str) -> None:
    assert address(text) == ""


@pytest.mark.parametrize("text", ["", "fog", "fog:", ":80", "fog:0", "fog:65536", "fog:8٠", "fog:-1", "a:b"])
def test_anything_else_is_no_address(text: str) -> None:
    assert "host:port" in address(text)


@pytest.mark.parametrize("table", [CLOUD, FOG, EDGE], ids=["cloud", "fog", "edge"])
def test_every_path_of_a_place_says_what_must_be_there(table: tuple[Option, ...]) -> None:
    """But for the state folder, which is made, the server, which is looked for by itself, and addresses."""
    words = ("PEM", "folder", "file", "root.json", "policy.toml")
    paths = {option.name for option in table if option.kind is str and any(w in option.help for w in words)}
    silent = {option.name for option in table if option.name in paths and not option.there}
    assert silent <= {"folder", "nats_server", "database", "store"}


def test_what_is_not_there_is_reported_with_the_other_mistakes() -> None:
    table = (*TABLE, Option("key", str, REQUIRED, "the key", there="file"))

    def gone(option: Option, values: Mapping[str, object]) -> str:
        return f"which is no {option.there}"

    with pytest.raises(SettingsError) as caught:
        parse(table, [Source("fog.toml", {"name": "north", "key": "k.pem", "mode": "slow"})], look=gone)
    assert caught.value.message.splitlines() == [
        "fog.toml: mode is 'slow', must be one of fast, safe",
        "fog.toml: key is k.pem, which is no file",
    ]


def test_an_empty_text_takes_back_what_has_no_default_and_nothing_else() -> None:
    table = (Option("rate", float, None, "step"), Option("port", int, 1, "TCP port"))
    file = Source("fog.toml", {"rate": 0.5, "port": 2})
    env = environment(table, "REUNA_FOG_", {"REUNA_FOG_RATE": ""})
    assert parse(table, [file, env]) == {"rate": None, "port": 2}
    assert parse(table, [file, flags(["rate="])]) == {"rate": None, "port": 2}
    with pytest.raises(SettingsError, match="flags: port is '', expected a whole number"):
        parse(table, [file, flags(["port="])])
    with pytest.raises(SettingsError, match="toml: rate is '', expected a number"):
        parse(table, [Source("fog.toml", {"rate": ""})])


def test_a_flag_without_a_value_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="--set rounds: expected NAME=VALUE"):
        flags(["rounds"])


def test_own_sections_of_a_project_reach_the_learner_as_plain_values() -> None:
    file = Source(
        "reuna.toml", {"project": {"name": "p"}, "train": {"epochs": 3}, "data": {"label": "fault"}}
    )
    settings = project_settings([file, flags(["train.rate=0.5", "train.shuffle=true"])], TAKES).settings
    assert settings["epochs"] == 3
    assert settings["label"] == "fault"
    assert settings["rate"] == 0.5
    assert settings["shuffle"] is True


def test_a_nested_value_in_an_own_section_is_refused() -> None:
    file = Source("reuna.toml", {"project": {"name": "p"}, "train": {"layers": [3, 4]}})
    with pytest.raises(SettingsError, match=r"train\.layers is \[3, 4\], expected a plain value"):
        project_settings([file], TAKES)


@pytest.mark.parametrize(
    "twice", [{"data": {"epochs": 1}}, {"data": {"rounds": 1}}, {"data": {"entry": "x"}}]
)
def test_a_name_that_another_setting_of_the_run_has_is_refused(twice: dict[str, dict[str, object]]) -> None:
    file = Source("reuna.toml", {"project": {"name": "p"}, "train": {"epochs": 3}, **twice})
    with pytest.raises(SettingsError, match=r"data\.\w+ has the name of another setting of the run"):
        project_settings([file], TAKES)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"round": {"over_select": 1.5}}, "round.over_select asks more than are to give"),
        (
            {"round": {"cohort": 4}, "strategy": {"name": "fedbuff"}},
            "round.cohort is set, and fedbuff asks all",
        ),
    ],
)
def test_asking_more_nodes_than_there_is_sense_in_is_refused(
    asked: dict[str, dict[str, object]], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        project_settings([Source("reuna.toml", {"project": {"name": "p"}, **asked})], TAKES)
