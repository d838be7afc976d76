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
def test_the_opc_ua_client_asks_for_nothing_that_changes_a_server(path: Path) -> None:
    assert changing(path.read_text(encoding="utf-8")) == []


def test_a_planted_write_is_found() -> None:
    assert changing("async def f(node):\n    await node.write_value(1)") == ["write_value"]
    assert changing("client.uaclient.call(methods)") == ["call"]
