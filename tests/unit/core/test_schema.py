"""The JSON Schema of reuna.toml says what `reuna check` says, as far as a schema can."""

from __future__ import annotations

import tomllib

import jsonschema
import pytest

from reuna.core.errors import SettingsError
from reuna.core.project import PROJECT, project_schema, project_settings
from reuna.core.settings import REQUIRED, Option, Source
from reuna.learn.strategies import TAKES

VALIDATOR = jsonschema.Draft7Validator(project_schema())
NAMED = '[project]\nname = "p"\n'


def refused_by_check(text: str) -> bool:
    try:
        project_settings([Source("reuna.toml", tomllib.loads(text))], TAKES)
    except SettingsError:
        return True
    return False


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(project_schema())


@pytest.mark.parametrize(
    "text",
    [
        NAMED,
        NAMED + '[train]\nrate = 1\nwhat = "x"\nshuffle = true\n',
        NAMED + "[train.deep]\nrate = 1\n",
        NAMED + '[signals]\nflow = { unit = "m3/h", min = 0, max = 200.5 }\nheat = {}\n',
        NAMED + "[round]\nquorum = 1\ngrid_bits = 16\n[strategy]\n",
    ],
)
def test_what_is_right_is_right_to_both(text: str) -> None:
    assert not refused_by_check(text)
    assert VALIDATOR.is_valid(tomllib.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        "[project]\n",
        "",
        NAMED + 'nmae = "x"\n',
        NAMED + '[strategie]\nname = "fedavg"\n',
        NAMED + '[strategy]\nname = "fedmagic"\n',
        NAMED + "[strategy]\nrounds = -1\n",
        NAMED + '[strategy]\nrounds = "20"\n',
        NAMED + "[strategy]\nrounds = 2.5\n",
        NAMED + "[strategy]\nrounds = true\n",
        NAMED + "[round]\ngrid_bits = 9\n",
        NAMED + "[run]\nlocal = 1\n",
        NAMED + "[signals]\nflow = 3\n",
        NAMED + "[signals]\nflow = { units = 'K' }\n",
        NAMED + "[signals]\nflow = { min = 'low' }\n",
        NAMED + "[train]\nlayers = [3, 4]\n",
        NAMED + '[data]\n"signals.flow" = "K"\n',
        "train = 3\n" + NAMED,
        "strategy = 3\n" + NAMED,
    ],
)
def test_a_mistake_that_check_refuses_is_refused_by_the_schema(text: str) -> None:
    assert refused_by_check(text)
    assert not VALIDATOR.is_valid(tomllib.loads(text))


@pytest.mark.parametrize("option", PROJECT, ids=lambda option: option.name)
def test_every_setting_is_in_the_schema_with_its_default(option: Option) -> None:
    place = project_schema()
    for part in option.name.split("."):
        place = place["properties"][part]
    assert option.help in place["description"]
    if option.default is not REQUIRED and option.default is not None:
        assert place["default"] == option.default
        jsonschema.validate(option.default, place)
