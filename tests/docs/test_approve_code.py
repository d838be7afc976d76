"""The page on approving code shows what the commands print."""

from __future__ import annotations

from pathlib import Path

from reuna.cli.view import approval_needed, vouching_needed

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "approve-code.md"


def test_the_page_shows_what_a_run_that_waits_prints() -> None:
    fields = {"bundle": "5f8d34663a9c…320c", "nodes": "press-1, press-2"}
    assert approval_needed("r-20261123-222816-07dd", fields) in PAGE.read_text(encoding="utf-8")


def test_the_page_shows_what_a_run_says_that_the_fleet_did_not_sign() -> None:
    fields = {"bundle": "5f8d34663a9c…320c", "project": "detector", "trust": "cloud/trust"}
    assert vouching_needed(fields) in PAGE.read_text(encoding="utf-8")
