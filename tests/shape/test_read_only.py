"""Sources only read: what speaks to machines has no word for changing one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import reuna

#: What libraries of industrial protocols call their ways to change something.
CHANGING = (
    "write",
    "set_value",
    "call",
    "add_",
    "delete_nodes",
    "history_update",
    "register_",
    "import_",
    "modify",
)
ALLOWED = {"add", "add_extension", "add_done_callback"}
OPCUA = Path(reuna.__file__).parent / "adapters" / "opcua"


def changing(source: str) -> list[str]:
    """Attributes of a module's text whose names mean that something is changed."""
    names = [each.attr for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Attribute)]
    return [name for name in names if name.lower().startswith(CHANGING) and name not in ALLOWED]


@pytest.mark.parametrize("path", sorted(OPCUA.glob("*.py")), ids=lambda path: path.stem)
def test_the_opc_ua_source_asks_for_nothing_that_changes_a_server(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert changing(text) == (["WriteRequest", "write_attributes"] if path.stem == "sink" else [])
    assert "opcua.sink" not in text, "no source knows what writes"


MODBUS, MQTT = OPCUA.parent / "modbus_source.py", OPCUA.parent / "mqtt"


def test_the_modbus_client_asks_for_nothing_that_changes_a_device() -> None:
    text = MODBUS.read_text(encoding="utf-8")
    assert changing(text) == []
    assert "execute" not in text


def test_sources_publish_nothing_but_a_request_for_a_birth() -> None:
    found = {path.name: path.read_text(encoding="utf-8").count(".publish") for path in MQTT.glob("*.py")}
    sinks = {"sink.py": 1, "sparkplug_sink.py": 3, "alarm_board.py": 1, "writing.py": 1}
    assert found == {"__init__.py": 0, "client.py": 0, "source.py": 0, "sparkplug.py": 1, **sinks}
    for name in found.keys() - sinks:
        lines = (MQTT / name).read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if "import" in line and ("sink" in line or "board" in line)]


def test_a_planted_write_is_found() -> None:
    assert changing("async def f(node):\n    await node.write_value(1)") == ["write_value"]
    assert changing("client.uaclient.call(methods)") == ["call"]
