"""What `sources.toml` says of a Modbus device."""

from __future__ import annotations

from typing import Any

import pytest

from reuna.core.errors import SettingsError
from reuna.core.modbus import Register
from reuna.core.modbus_settings import ModbusSettings
from reuna.core.settings import Source, parse
from reuna.core.source_settings import SOURCES, sources_of
from reuna.core.sources import Scaling

OIL = {"unit": "bar", "table": "input", "address": 4, "type": "float32", "byte_order": "little", "scale": 0.1}


def read(**press: Any) -> Any:
    table = {"kind": "modbus", "host": "plc", "tags": {"oil": OIL}, **press}
    kept = {key: value for key, value in table.items() if value is not None}
    (found,) = sources_of(parse(SOURCES, [Source("sources.toml", {"sources": {"press": kept}})]))
    return found


def test_a_device_has_its_registers() -> None:
    found = read(word_order="little", every_s=0.1)
    oil = Register("oil", "bar", "input", 4, "float32", 0, True, True, Scaling(0.1, 0.0))
    assert found == ModbusSettings("press", "plc", (oil,), 502, every_s=0.1)


def test_a_coil_is_a_bool_and_a_register_a_whole_number_unless_said() -> None:
    tags = read(tags={"pump": {"table": "coil", "address": 1}, "step": {"address": 2}}).tags
    assert [(tag.table, tag.type) for tag in tags] == [("coil", "bool"), ("holding", "uint16")]


@pytest.mark.parametrize(
    ("press", "said"),
    [
        ({"host": None}, "sources.press has no host"),
        ({"port": 70_000}, "sources.press.port is 70000, must be between"),
        ({"folder": "/data"}, "sources.press.folder is not for a source of kind modbus"),
        ({"tags": {"oil": {"type": "int16"}}}, "sources.press.tags.oil has no address"),
        ({"tags": {"oil": {"address": 1, "column": "x"}}}, "oil.column is not for a source of kind modbus"),
        ({"tags": {"oil": {"address": 1, "table": "coil", "type": "int16"}}}, "only ever a bool"),
        ({"tags": {"oil": {"address": 1, "type": "bit"}}}, "go together"),
        ({"tags": {"oil": {"address": 1, "bit": 3}}}, "go together"),
        ({"tags": {"oil": {"address": 65_535, "type": "int32"}}}, "ends beyond 65535"),
        ({"tags": {"oil": {"address": 1, "type": "int8"}}}, "sources.press.tags.oil.type is 'int8', must be one"),
        ({"kind": "files", "folder": "/d", "time": "t"}, "sources.press.host is not for a source of kind files"),
        ({"kind": "files", "folder": "/d", "time": "t"}, "oil.address is not for a source of kind files"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_setting(press: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said.replace(".", r"\.")):
        read(**press)
