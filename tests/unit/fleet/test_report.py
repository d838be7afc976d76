"""The page and the figures that it and the terminal share."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from rich.console import Console

from reuna.cli.view import link_table, print_result
from reuna.fleet.baseline import Centralised
from reuna.fleet.report import bar_plot, link_rows, render, wall_times
from reuna.fleet.session import refused_updates, wall_by_method
from tests.finished import finished


def flow(link: str, kind: str, size: int) -> dict[str, Any]:
    return {"link": link, "kind": kind, "bytes": size, "messages": 1}


def result(**more: Any) -> dict[str, Any]:
    rounds = [
        {"node": "cloud", "what": "round", "round": n, "at": 100.0 + n,
         "fields": {"round": n, "loss": 1.0 / n, "seconds": 0.5, "took_part": 2, "bytes": 10, "saturated": 0}}
        for n in (1, 2, 3)
    ]  # fmt: skip
    site = {"site": "mill", "nodes": ["mill"], "local": {"all": 0.5}, "federated": {"all": 0.9}}
    plain = {
        "project": "pumps <b>", "sites": [site],
        "bytes_by_kind": {"model_update": 300, "log": 5}, "bytes_by_link": {"mill → fog-1": 305, "fog-1 → mill": 77},
        "flows": [flow("mill → fog-1", "model_update", 300), flow("mill → fog-1", "log", 5)],
        "came": [flow("fog-1 → mill", "plan", 77)],
        "wall_s": 9.5, "wall_by_method_s": {"local": 1.5, "federated": 4.25}, "rounds": 3, "timeline": rounds,
        "processes": [{"name": "cloud/main", "peak_mib": 120.0}, {"name": "mill/worker", "peak_mib": 60.0}],
    }  # fmt: skip
    return finished(**{**plain, **more})


def test_the_page_has_its_four_plots_and_all_are_well_formed() -> None:
    page = render(result())
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert [ElementTree.fromstring(svg).get("aria-label") for svg in svgs] == [
        "all per site", "loss by round", "bytes by link and kind", "peak memory by process",
    ]  # fmt: skip
    assert "pumps &lt;b&gt;" in page


def test_each_table_and_plot_is_scrolled_by_itself_on_a_narrow_screen() -> None:
    page = render(result())
    things = len(re.findall("<table|<svg", page))
    assert things == len(re.findall('<div class="wide" tabindex="0">(?:<table|<svg)', page)) > 7
    assert '<meta name="viewport" content="width=device-width">' in page


def test_bars_are_as_long_as_what_they_show() -> None:
    plot = bar_plot("bytes", [("a → b", {"x": 30.0, "y": 10.0}), ("b → a", {"x": 10.0})], lambda v: f"{v:g}")
    wide = [float(found) for found in re.findall(r'<rect [^>]*width="([0-9.]+)"', plot)]
    assert wide == [375.0, 125.0, 125.0]
    assert "a → b: x 30" in plot


def test_a_link_has_its_payload_of_both_directions() -> None:
    assert link_rows(result()) == [("mill", "fog-1", 305, 77)]
    console = Console(record=True, width=80)
    console.print(link_table(result()))
    assert re.search(r"mill – fog-1\s+305 B\s+77 B", console.export_text())
    assert "TLS, HTTP and NATS overhead" in render(result())


def test_a_result_of_an_earlier_version_is_still_shown(capsys: Any) -> None:
    old = result()
    for added in ("came", "wall_by_method_s"):
        del old[added]
    print_result(old)
    assert "wall time" not in capsys.readouterr().out
    assert "wall time" not in render(old)


def test_no_figure_is_shown_for_rows_that_cannot_be_sent(capsys: Any) -> None:
    print_result(result())
    said = capsys.readouterr().out
    assert "no payload of kind raw exists; make drill NAME=flows records every line" in " ".join(said.split())
    assert "raw rows" not in said + render(result())


def test_each_way_of_training_has_its_own_wall_time(capsys: Any) -> None:
    timeline = [
        *result()["timeline"],
        {"what": "local", "round": 0, "at": 110.0, "fields": {"nodes": 1, "seconds": 6.0}},
        {"what": "evaluate", "round": 0, "at": 111.0, "fields": {"nodes": 1, "seconds": 1.0}},
    ]
    took = wall_by_method(timeline, Centralised({}, 2.5, 80.0))
    assert took == {"local": 6.0, "federated": 3.5, "centralised": 2.5}
    assert wall_by_method([], None) == {}
    shown = result(wall_by_method_s=took)
    assert wall_times(shown) == [("local", 6.0), ("federated", 3.5), ("centralised", 2.5)]
    print_result(shown)
    assert (
        "wall time with evaluation: alone 6.0 s, federated 3.5 s, centralised 2.5 s"
        in capsys.readouterr().out
    )
    assert "3.50 s" in render(shown)


def test_what_was_refused_and_what_was_cut_is_said_on_page_and_terminal(capsys: Any) -> None:
    told = {"what": "refused", "round": 2, "fields": {"round": 2, "attempt": 1, "fog-1/mill/range": 2}}
    again = {"what": "refused", "round": 3, "fields": {"round": 3, "attempt": 1, "fog-1/mill/range": 1}}
    refused = refused_updates([told, again])
    assert refused == [{"at": "fog-1", "sender": "mill", "reason": "range", "times": 3}]
    shown = result(refused=refused, saturated=7)
    print_result(shown)
    said = " ".join(capsys.readouterr().out.split())
    assert "fog-1 refused mill 3 times: a value lies outside the grid (range)" in said
    assert "7 values were cut to the grid's ends: raise round.grid_exponent" in said
    assert "fog-1 refused mill 3 times" in render(shown)
    print_result(result())
    assert "refused" not in capsys.readouterr().out
