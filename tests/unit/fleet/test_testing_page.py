"""The summary of `reuna test` for a merge request: short whatever happens, and never read as markup."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.adapters.junit import FAILED as BAD
from reuna.adapters.junit import PASSED as GOOD
from reuna.adapters.junit import Case
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.fleet.own_tests import OwnTests
from reuna.fleet.testing import Findings, limits_of
from reuna.fleet.testing_page import LONGEST, markdown, plain
from reuna.learn.strategies import TAKES
from reuna.sim.judge import Played, judge_all

GITHUB_TAKES = 65_536


def findings(
    sites: int = 3, metric: str = "all", commit: str = "", own: OwnTests | None = None, **more: Any
) -> Findings:
    settings = project_settings(
        [Source("t", {"project": {"name": more.pop("name", "p"), "metric": metric}})], TAKES
    )
    names = [f"site-{number:04d}" for number in range(sites)]
    scores = {name: 0.9 - number / (2 * sites) for number, name in enumerate(names)}
    low = dict.fromkeys(names, 0.2)
    chance, scenarios = judge_all(
        [
            Played("untrained", scores=low, model="m"),
            Played("undisturbed", scores=scores, model="m0", rounds=20),
            Played("shuffled", scores=low, model="m1", rounds=20),
            Played("dropout", names[0], scores=scores, model="m2", rounds=20, counted=10),
            *([Played("late-labels", names[0], broke=more.pop("broke"))] if "broke" in more else []),
            Played("poisoned", names[0], scores={**scores, **more}, model="m3", rounds=20, counted=20),
        ],
        limits_of(settings),
    )
    return Findings(settings, chance, scenarios, own, commit, 12.3)


def tables(page: str) -> list[list[str]]:
    """The lines of each table."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", page + "\n", re.MULTILINE)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_it_says_what_happened_worst_site_first() -> None:
    page = markdown(findings(commit="abc123+"))
    assert page.startswith("### ✅ reuna test of p: passed\n")
    found, scores = tables(page)
    assert [cells(line)[1] for line in found[2:]] == [
        "undisturbed: passed",
        "dropout: passed",
        "poisoned: passed",
    ]
    assert [cells(line)[0] for line in scores[2:]] == ["**site-0002** (worst)", "site-0001", "site-0000"]
    assert cells(scores[-1])[3:] == ["*0.9*", "*0.9*"], "in italics where the fault hit"
    assert "commit abc123 and changed files, seed 1, 20 rounds, 12.3 s" in page


def test_where_less_is_better_the_largest_is_the_worst() -> None:
    page = markdown(findings(metric="rmse"))
    assert cells(tables(page)[1][2])[0] == "**site-0000** (worst)"
    assert "less is better" in page


def test_a_warning_and_a_failure_are_told_apart_in_the_first_line() -> None:
    fell: dict[str, Any] = {"site-0001": 0.2}
    warned = findings(**fell)
    assert markdown(warned).startswith("### ⚠️ reuna test of p: passed, 1 with a warning\n")
    own = OwnTests([Case("test_a", BAD, "1 < 2", "tests.test_b")], [], "", b"")
    page = markdown(findings(own=own))
    assert page.startswith("### ❌ reuna test of p: failed\n")
    assert "pytest: 1 failed" in page
    assert "- tests.test&#95;b.test&#95;a: 1 &#60; 2" in page


@pytest.mark.parametrize("long", ["x", "<" * 50, "&|`" * 5000, "𝔸" * 5000])
def test_it_fits_a_comment_however_much_there_is(long: str) -> None:
    own = OwnTests([Case(long, BAD, long, long)] * 3000, [], "", b"")
    page = markdown(findings(sites=2000, own=own, name=long, broke=long))
    assert len(page) <= LONGEST < GITHUB_TAKES
    assert "and 1975 better sites." in page
    assert "- and 2980 more." in page


@given(st.text(), st.text(), st.text())
def test_nothing_the_project_says_becomes_markup(name: str, classname: str, message: str) -> None:
    own = OwnTests([Case(name, BAD, message, classname), Case(name, GOOD)], [], "", b"")
    page = markdown(findings(own=own, name=name, commit=message))
    for table in tables(page):
        assert len({line.count("|") for line in table}) == 1
    without = page.replace("<sub>", "").replace("</sub>", "")
    assert not re.search(r"[<>`\[\]]", without)
    clean = markdown(findings(own=OwnTests([Case("a", BAD), Case("a", GOOD)], [], "", b""), commit="a"))
    assert len(page.splitlines()) == len(markdown(findings(own=own, commit=message)).splitlines())
    assert page.count("\n- ") == clean.count("\n- ") == 1


def test_foreign_text_is_one_line_of_limited_length() -> None:
    assert plain("a\n\nb | *c*") == "a b &#124; &#42;c&#42;"
    assert plain("x" * 10, 5) == "xxxx…"
    assert plain("\x1b[2K") == "&#92;x1b&#91;2K"
