"""The dashboards and alert rules that we ship ask for what the places tell, and for nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reuna.adapters.exposition import text
from reuna.adapters.operator_api.metrics import metrics_of
from reuna.core.figures import BOUNDS, SERIES, Figure

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
NAME = re.compile(r"\breuna_[a-z0-9_]+")
LABEL = re.compile(r"(\w+)=~?\"")
NODE = {"site": "oulu", "moved": {"oil": 2.0}}


def told() -> dict[str, set[str]]:
    """Name -> its labels, of everything that the cloud tells."""
    text = metrics_of({"projects": {"pumps": {"e1": NODE}}, "alarms": []}, {"e1": 1.0}).decode()
    return {
        each.name: {label for sample in each.samples for label in sample.labels}
        for each in text_string_to_metric_families(text)
    }


def told_by_places() -> dict[str, set[str]]:
    """The same of fogs and edges."""
    page = text(
        "e1",
        [
            Figure(each.name, 1.0, each.labels, (0,) * (len(BOUNDS) + 1) if each.kind == "histogram" else ())
            for each in SERIES.values()
        ],
    ).decode()
    return {
        sample.name: set(sample.labels)
        for each in text_string_to_metric_families(page)
        for sample in each.samples
    }


def asked(said: Any) -> Iterator[str]:
    """Every expression in a dashboard or a file of rules."""
    if isinstance(said, dict):
        for key, value in said.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            yield from asked(value)
    elif isinstance(said, list):
        for each in said:
            yield from asked(each)


def test_every_series_and_label_that_is_asked_for_is_told() -> None:
    known = told() | told_by_places()
    dashboards = [json.loads((SHIPPED / name).read_text()) for name in ("grafana.json", "places.json")]
    rules = yaml.safe_load((SHIPPED / "alerts.yml").read_text())
    expressions = [*asked(dashboards), *asked(rules)]
    assert len([each for each in expressions if NAME.search(each)]) >= 50
    for each in expressions:
        names = NAME.findall(each)
        assert set(names) <= known.keys()
        labels = set().union(*(known[name] for name in names))
        assert set(LABEL.findall(each)) <= labels


def test_of_what_a_site_keeps_there_is_no_series_with_a_zero() -> None:
    kept = {**NODE, "withheld": 1, "labels_withheld": 1}
    text = metrics_of({"projects": {"pumps": {"e1": kept}}, "alarms": []}, {}).decode()
    assert set(re.findall(r"^(reuna_\w+)\{node", text, re.MULTILINE)) == {
        "reuna_watch_reference_blocks",
        "reuna_watch_blocks",
        "reuna_signal_moved",
    }


def test_every_series_is_on_the_dashboard_or_in_a_rule_but_those_that_say_how_it_is_made() -> None:
    text = "".join(each.read_text() for each in SHIPPED.iterdir())
    silent = {
        "reuna_watch_alarm",
        "reuna_answers_alarm",
        "reuna_errors_alarm",
        "reuna_watch_reference_blocks",
        "reuna_watch_blocks",
    }
    named = set(NAME.findall(text))
    assert told_by_places().keys() - named == {
        "reuna_live_seconds_sum",
        "reuna_live_seconds_count",
        "reuna_processes",
        "reuna_came_total",
    }
    assert told().keys() - named == silent | {"reuna_inference_p50_milliseconds"}


def test_prometheus_own_tool_reads_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here")
    done = subprocess.run(
        [promtool, "check", "rules", str(SHIPPED / "alerts.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_expression_of_a_dashboard_is_one_that_prometheus_reads() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here")
    dashboards = [json.loads((SHIPPED / name).read_text()) for name in ("grafana.json", "places.json")]
    expressions = [each.replace("$node", "x").replace("$site", "x") for each in asked(dashboards)]
    written = [each for each in expressions if each != "prometheus" and not each.startswith("label_values")]
    rules = [{"record": f"it:{number}", "expr": each} for number, each in enumerate(written)]
    done = subprocess.run(
        [promtool, "check", "rules", "/dev/stdin"],
        input=json.dumps({"groups": [{"name": "all", "rules": rules}]}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
