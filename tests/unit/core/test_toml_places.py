"""Where the keys of a TOML text stand: checked against the standard library's reader, which knows the values."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.toml_places import places

KEYS = st.text("abz-_09", min_size=1, max_size=4)
QUOTED = st.text('a é#=[]{}.,\\"\t', min_size=1, max_size=4)
SCALARS = st.sampled_from(
    [
        "1",
        "-2.5e3",
        "true",
        "inf",
        "1979-05-27T07:32:00Z",
        "'it # is'",
        '"a \\" # ]"',
        '"""x\n# no\n"""""',
        "'''\n]\n'''",
    ]
)
GAPS = st.sampled_from(["", " ", "\t", "  "])
LINES = st.sampled_from(["", " ", "\n", "\n\n# [no] = 1\n"])


def quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.sampled_from(["scalar"] * 3 + (["list", "table"] if depth else [])))
    if kind == "scalar":
        return draw(SCALARS)
    inner = draw(st.lists(values(depth=depth - 1), max_size=3))
    if kind == "list":
        gap = draw(LINES)
        return "[" + ",".join(f"{gap}{each}{gap}" for each in inner) + "]"
    keys = draw(st.lists(KEYS, unique=True, min_size=len(inner), max_size=len(inner)))
    gap = draw(GAPS)
    return (
        "{"
        + ",".join(f"{gap}{key}{gap}={gap}{each}{gap}" for key, each in zip(keys, inner, strict=True))
        + "}"
    )


@st.composite
def documents(draw: st.DrawFn) -> str:
    text = draw(LINES)
    for number in range(draw(st.integers(0, 3))):
        if number:
            gap = draw(GAPS)
            text += f"[{gap}s{number}{gap}.{gap}{draw(KEYS)}{gap}]{gap}# a section\n"
        for key in draw(st.lists(st.one_of(KEYS, QUOTED.map(quoted)), unique=True, max_size=3)):
            inner = draw(st.sampled_from(["", ".x", " . 'y z'"]))
            text += f"{draw(GAPS)}{key}{inner}{draw(GAPS)}={draw(GAPS)}{draw(values())}{draw(LINES)}\n"
    return text


def leaves(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield f"{path}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")


@given(documents())
def test_every_key_the_reader_finds_has_a_place_and_no_other(text: str) -> None:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # the same key twice, once quoted
    found = places(text)
    assert set(found) == set(leaves(read))
    lines = text.split("\n")
    for name, (line, column) in found.items():
        there = lines[line - 1][column - 1 :]
        assert there[0] in "\"'" or name.split(".")[0].startswith(there[0]) or there[0] in name


def test_a_place_is_the_line_and_column_of_the_key() -> None:
    text = '# é\n[a]\n  b = """\n[c]\nd = 1\n"""\n"e.f".g = [{ h = 1 }, [2]]\n[a.i]\nj = { k = 1, l.m = 2 }\n'
    assert places(text) == {
        "a": (2, 2), "a.b": (3, 3), "a.e.f": (7, 1), "a.e.f.g": (7, 1), "a.i": (8, 2), "a.i.j": (9, 1),
        "a.i.j.k": (9, 7), "a.i.j.l": (9, 14), "a.i.j.l.m": (9, 14),
    }  # fmt: skip


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lines_may_end_as_on_another_system(ends: str) -> None:
    assert places(f"a = 1{ends}b = 2{ends}") == {"a": (1, 1), "b": (2, 1)}
