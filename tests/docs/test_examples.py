"""What the documentation shows is run: Python and TOML blocks of pages, and examples in docstrings.

A page's Python blocks run one after another with the same names, in an empty folder. A block that
cannot run here (it needs a network, a plant or a minute) is fenced as ``python no-run``.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import reuna

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(?P<language>\w*)(?P<words>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
#: Modules that act when they are imported.
NOT_IMPORTED = {"reuna.cli.__main__"}
#: Extras that are in no lock: a module that imports one is left out by name where it is not installed.
UNLOCKED = {"torch", "tep_studio"}
#: Their opening example is a sketch of the call: it needs a started journal or an open event log.
SKETCHES = {"reuna.adapters.events", "reuna.adapters.journal_dbos"}
MODULES = [
    module.name
    for module in pkgutil.walk_packages(reuna.__path__, "reuna.")
    if module.name not in NOT_IMPORTED | SKETCHES
]


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Line and text of each block of a language."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match["language"] == language and "no-run" not in match["words"]:
            yield text[: match.start()].count("\n") + 2, match["text"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_on_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for line, text in blocks(page, "python"):
        if ">>>" in text:
            test = doctest.DocTestParser().get_doctest(text, names, page.name, str(page), line)
            runner.run(test, clear_globs=False)
            names |= test.globs
        else:
            exec(compile("\n" * (line - 1) + text, str(page), "exec"), names)
    assert runner.failures == 0


async def test_the_notebook_of_the_readme_runs_in_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """Where an event loop runs, as it does in a notebook."""
    names: dict[str, object] = {}
    for _, text in blocks(ROOT / "README.md", "python"):
        exec(text, names)
    assert capsys.readouterr().out.startswith("mill ")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_toml_on_a_page_can_be_read(page: Path) -> None:
    for _, text in blocks(page, "toml"):
        tomllib.loads(text)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in UNLOCKED:
            pytest.skip(f"the extra for {error.name} is not installed")
        raise
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
