"""The dashboard and the alert rules that we ship ask for what the cloud tells, and for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from reuna.adapters.operator_api.metrics import metrics_of

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
NAME = re.compile(r"\breuna_[a-z0-9_]+")
LABEL = re.compile(r"(\w+)=~?\"")
NODE = {"site": "oulu", "moved": {"oil": 2.0}}


def told() -> dict[str, set[str]]:
    """Name -> its labels, of everything that the cloud tells."""
    text = metrics_of({"nodes": {"e1": NODE}, "alarms": []}, {"e1": 1.0}).decode()
    return {
        each.name: {label for sample in each.samples for label in sample.labels}
        for each in text_string_to_metric_families(text)
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
    known = told()
    dashboard = json.loads((SHIPPED / "grafana.json").read_text())
    rules = yaml.safe_load((SHIPPED / "alerts.yml").read_text())
    expressions = [*asked(dashboard), *asked(rules)]
    assert len([each for each in expressions if NAME.search(each)]) >= 13
    for each in expressions:
        names = NAME.findall(each)
        assert set(names) <= known.keys()
        labels = set().union(*(known[name] for name in names))
        assert set(LABEL.findall(each)) <= labels


def test_every_series_is_on_the_dashboard_or_in_a_rule_but_those_that_say_how_it_is_made() -> None:
    text = (SHIPPED / "grafana.json").read_text() + (SHIPPED / "alerts.yml").read_text()
    silent = {
        "reuna_watch_alarm",
        "reuna_answers_alarm",
        "reuna_watch_reference_blocks",
        "reuna_watch_blocks",
    }
    assert told().keys() - set(NAME.findall(text)) == silent | {"reuna_inference_p50_milliseconds"}
