"""Patterns of subjects, and the rights that use them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.subjects import child_rights, covers, is_name, matches, parent_rights

words = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)
patterns = st.builds(
    lambda head, tail: ".".join([*head, *tail]),
    st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)


@pytest.mark.parametrize(
    ("pattern", "subject", "falls_under"),
    [
        ("event.a", "event.a", True),
        ("event.a", "event.b", False),
        ("event.a", "event.a.b", False),
        ("event.*", "event.a", True),
        ("event.*", "event.a.b", False),
        ("event.>", "event.a.b", True),
        ("event.>", "event", False),
        (">", "event", True),
        ("*", "event.a", False),
    ],
)
def test_a_subject_falls_under_a_pattern(pattern: str, subject: str, falls_under: bool) -> None:
    assert matches(pattern, subject) is falls_under


@given(patterns, patterns, words)
def test_what_falls_under_a_covered_pattern_falls_under_its_cover(
    outer: str, inner: str, subject: str
) -> None:
    if covers(outer, inner) and matches(inner, subject):
        assert matches(outer, subject)


@given(patterns)
def test_everything_covers_and_a_pattern_covers_itself(pattern: str) -> None:
    assert covers(">", pattern)
    assert covers(pattern, pattern)


@given(st.text(alphabet="ab1-.*> \n", max_size=4))
def test_no_name_can_widen_a_child_s_rights(name: str) -> None:
    if not is_name(name):
        return
    for subject in child_rights(name).publish:
        assert subject.split(".")[1:] == [name]
        assert not covers(subject, f"event.{name}x")


def test_a_parent_may_neither_delete_nor_purge() -> None:
    for subject in parent_rights("north").publish:
        assert not matches(subject, "$JS.API.STREAM.DELETE.EVENTS")
        assert not matches(subject, "$JS.API.STREAM.PURGE.EVENTS")
        assert not matches(subject, "$JS.API.CONSUMER.DELETE.EVENTS.up")
