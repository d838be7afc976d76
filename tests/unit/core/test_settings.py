"""Settings: one table, three sources, all mistakes at once."""

from __future__ import annotations

import pytest

from reuna.core.errors import SettingsError
from reuna.core.project import project_settings
from reuna.core.settings import REQUIRED, Option, Source, between, environment, flags, one_of, parse

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


def test_a_flag_without_a_value_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="--set rounds: expected NAME=VALUE"):
        flags(["rounds"])


def test_own_sections_of_a_project_reach_the_learner_as_plain_values() -> None:
    file = Source(
        "reuna.toml", {"project": {"name": "p"}, "train": {"epochs": 3}, "data": {"label": "fault"}}
    )
    settings = project_settings([file, flags(["train.rate=0.5", "train.shuffle=true"])]).settings
    assert settings["epochs"] == 3
    assert settings["label"] == "fault"
    assert settings["rate"] == 0.5
    assert settings["shuffle"] is True


def test_a_nested_value_in_an_own_section_is_refused() -> None:
    file = Source("reuna.toml", {"project": {"name": "p"}, "train": {"layers": [3, 4]}})
    with pytest.raises(SettingsError, match=r"train\.layers is \[3, 4\], expected a plain value"):
        project_settings([file])
