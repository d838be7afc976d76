"""Laws of nodes' names and of what an OPC UA server says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reuna.core.opcua_settings import Node, OpcUaTag, node
from reuna.core.opcua_values import Heard, columns
from reuna.core.sources import Batch, Tag, check_batch

PRINTED = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=40)
NAMESPACES = st.one_of(st.integers(0, 65_535), PRINTED)
IDENTIFIERS: Any = st.one_of(
    st.tuples(st.just("i"), st.integers(0, (1 << 32) - 1)),
    st.tuples(st.just("s"), PRINTED),
    st.tuples(st.just("g"), st.uuids()),
    st.tuples(st.just("b"), st.binary(max_size=40)),
)
READINGS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 1 << 61),
        st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.none()),
        st.integers(0, (1 << 32) - 1),
    ),
    max_size=30,
)


@given(NAMESPACES, IDENTIFIERS)
def test_a_node_is_read_as_it_is_written(namespace: str | int, identifier: tuple[str, Any]) -> None:
    made = Node(namespace, *identifier)
    assert node(str(made)) == made


@given(st.text(max_size=60))
def test_any_text_is_a_node_or_says_why_it_is_none(text: str) -> None:
    try:
        found = node(text)
    except ValueError as error:
        said = str(error)
    else:
        said = "a node" if node(str(found)) == found else ""
    assert said


@given(READINGS)
def test_whatever_a_server_says_is_a_batch_that_a_source_may_give(
    readings: list[tuple[int, int, object, int]],
) -> None:
    tags = [OpcUaTag(f"t{number}", node("i=1")) for number in range(4)]
    heard = Heard()
    for each in readings:
        heard.add(*each)
    found = Batch(columns(tags, heard), 0)
    check_batch(found, [Tag(tag.name) for tag in tags])
    assert found.readings == len(readings)
    assert sorted(code for each in found.columns.values() for code in each.codes.tolist()) == sorted(
        heard.codes
    )
