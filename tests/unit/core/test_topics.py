"""MQTT topics and filters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.topics import covers, least, matches, wrong_filter


@pytest.mark.parametrize(
    ("pattern", "topic", "taken"),
    [
        ("a/b", "a/b", True), ("a/b", "a/c", False), ("a/+", "a/b", True), ("a/+", "a/b/c", False),
        ("a/+", "a", False), ("a/+", "a/", True), ("+", "a", True), ("+/+", "/a", True), ("a/#", "a", True),
        ("a/#", "a/b/c", True), ("#", "a/b", True), ("#", "$SYS/a", False), ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True), ("a", "a/b", False),
    ],
)  # fmt: skip
def test_a_filter_takes_what_the_standard_says(pattern: str, topic: str, taken: bool) -> None:
    assert matches(pattern, topic) is taken


@pytest.mark.parametrize("text", ["", "a/#/b", "a+", "a/b#", "\0", "a" * 70_000])
def test_a_filter_that_is_none_is_told(text: str) -> None:
    assert wrong_filter(text)


levels = st.lists(st.sampled_from(["a", "b", "$S", "+"]), min_size=1, max_size=4)
filters = st.builds(lambda some, end: "/".join(some + end), levels, st.sampled_from([[], ["#"]]))
topics = st.lists(st.sampled_from(["a", "b", "$S"]), min_size=1, max_size=5).map("/".join)


@given(st.lists(filters, max_size=6), topics)
def test_the_least_filters_take_what_all_of_them_take(some: list[str], topic: str) -> None:
    assert any(matches(each, topic) for each in least(some)) == any(matches(each, topic) for each in some)


@given(filters, filters, topics)
def test_a_filter_that_covers_another_takes_all_that_it_takes(wide: str, narrow: str, topic: str) -> None:
    if covers(wide, narrow) and matches(narrow, topic) and not topic.startswith("$"):
        assert matches(wide, topic)
