"""Any site's and metric's name becomes a key that MLflow takes, and comes back."""

from __future__ import annotations

import posixpath
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reuna.adapters.mlflow_tracking.names import LONGEST, cut, digest, key, parts

#: MLflow's rule on a server of any system, as its `validate_param_and_metric_name` and `path_not_unique`.
ALLOWED = re.compile(r"^[/\w.\- ]*$")
names = st.lists(st.text(alphabet=st.characters(), max_size=12), min_size=1, max_size=4)


def taken(text: str) -> bool:
    norm = posixpath.normpath(text)
    unique = norm == text and norm != "." and not norm.startswith("..") and not norm.startswith("/")
    return bool(ALLOWED.match(text)) and unique and len(text) <= LONGEST and text == text.strip()


@given(names)
@example(["site", "."])
@example(["..", ".."])
@example(["", ""])
@example(["a/b", "a", "b"])
@example(["Jyväskylä", "\ud800", "e\u0301", "\0"])
@example([".2f.", ".-.", "..-."])
@example(["a\n"])
def test_a_name_comes_back_from_a_key_that_mlflow_takes(name: list[str]) -> None:
    made = key(name)
    assert taken(made)
    assert not cut(made)
    assert parts(made) == tuple(name)


@given(names, names)
def test_two_names_never_share_a_key(a: list[str], b: list[str]) -> None:
    assert (key(a) == key(b)) == (a == b)


@pytest.mark.parametrize("name", [("site", "x" * 300, "all"), ("site", "/" * 80, "all")])
def test_a_name_that_is_too_long_keeps_a_digest_by_which_it_is_found(name: tuple[str, ...]) -> None:
    made = key(name)
    assert taken(made)
    assert cut(made) == digest(name)
    assert key((*name[:2], "other")) != made


def test_a_key_of_the_longest_length_that_only_looks_cut_is_whole() -> None:
    made = key(("x" * (LONGEST - 21) + ".-0123456789abcdef.",))
    assert len(made) == LONGEST
    assert not cut(made)


def test_letters_of_any_language_stay_readable() -> None:
    assert key(("site", "Jyväskylä 2", "federated", "f1.macro")) == "site/Jyväskylä 2/federated/f1..macro"
