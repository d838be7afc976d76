"""Gates a project declares: what a model must reach at the sites before it may be released.

    [gates]
    all = { min = 0.9, max_drop = 0.02, max_spread = 0.1 }
    false_alarms = { max = 0.05 }

The name is that of a metric which the learner's ``evaluate`` reports. ``min`` and ``max`` hold at
every site; ``max_drop``: so much worse than the champion at the same site, no more; ``max_spread``:
between the best and the worst site, no more. All in the metric's own unit.

A metric ``all without flow`` is ``all`` once more, of data in which the sensor ``flow`` is stuck;
``latency_ms`` and ``model_kib`` are of the model's ONNX graph. Each node measures them because the gate
asks for them. ``contract_pass_rate`` is the fraction of rows that keep the data contract's rule which
fails most, as the nodes told it.

>>> [(each.metric, each.limit, each.bound) for each in gates({"all": {"min": 0.9, "max_drop": 0.02}})]
[('all', 'min', 0.9), ('all', 'max_drop', 0.02)]
>>> mistake({"min": 0.9, "max": 0.8})
'has min 0.9, which is above max 0.8'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from reuna.core.foreign import shown
from reuna.core.records import Setting
from reuna.core.settings import Option

Limit = Literal["min", "max", "max_drop", "max_spread"]
LATENCY, SIZE = "latency_ms", "model_kib"
CONTRACT = "contract_pass_rate"
LOWER_IS_BETTER = (
    "rmse",
    "mae",
    "false_alarms",
    "late",
    "loss",
    "ece",
    "epsilon",
    LATENCY,
    SIZE,
)  #: of all other metrics more is better
LIMITS: tuple[Limit, ...] = get_args(Limit)


WITHOUT = " without "  #: between a metric and the sensor that is stuck
ASKED = "gates.asked"  #: the setting that tells nodes what else to measure


@dataclass(frozen=True)
class Gate:
    """One bound on one metric."""

    metric: str
    limit: Limit
    bound: float


def gates(table: Mapping[str, Mapping[str, Any]]) -> tuple[Gate, ...]:
    """What the table ``[gates]`` declares, once `mistake` found none; in the order of the table."""
    return tuple(
        Gate(metric, limit, float(said[limit]))
        for metric, said in table.items()
        for limit in LIMITS
        if limit in said
    )


def as_settings(found: Iterable[Gate]) -> dict[str, Setting]:
    """What nodes must measure for the gates besides what ``evaluate`` reports, as a plain setting."""
    names = {each.metric for each in found}
    asked = sorted(name for name in names if WITHOUT in name or name in (LATENCY, SIZE))
    return {ASKED: "\n".join(asked)} if asked else {}


def stuck_sensors(settings: Mapping[str, Setting]) -> dict[str, list[str]]:
    """Sensor -> the metrics to measure again while it is stuck, as `as_settings` wrote them.

    >>> stuck_sensors(as_settings([Gate("all without flow", "min", 0.5)]))
    {'flow': ['all']}
    """
    found: dict[str, list[str]] = {}
    for name in _asked(settings):
        metric, without, sensor = name.partition(WITHOUT)
        if without:
            found.setdefault(sensor, []).append(metric)
    return found


def measured_as(metric: str) -> str:
    """The metric of ``evaluate`` that a gate's metric is made of; '' when it is of the graph or the data.

    >>> measured_as("all without flow"), measured_as("latency_ms")
    ('all', '')
    """
    return "" if metric in (LATENCY, SIZE, CONTRACT) else metric.partition(WITHOUT)[0]


def of_graph(settings: Mapping[str, Setting]) -> list[str]:
    """Which of `LATENCY` and `SIZE` to measure."""
    return [name for name in _asked(settings) if name in (LATENCY, SIZE)]


def _asked(settings: Mapping[str, Setting]) -> list[str]:
    return [name for name in str(settings.get(ASKED, "")).split("\n") if name]


def mistake(said: Mapping[str, Any]) -> str:
    """What is wrong with the limits of one metric whose values are right of themselves, or ''."""
    if not said:
        return f"is empty, expected some of {', '.join(LIMITS)}"
    if said.get("min", -math.inf) > said.get("max", math.inf):
        return f"has min {shown(said['min'])}, which is above max {shown(said['max'])}"
    return ""


def _finite(value: float) -> str:
    return "" if math.isfinite(value) else "must be a finite number"


def _span(value: float) -> str:
    return "" if math.isfinite(value) and value >= 0 else "must be 0 or more"


KEYS = (
    Option("min", float, None, "at every site the metric is this or more", check=_finite),
    Option("max", float, None, "at every site the metric is this or less", check=_finite),
    Option("max_drop", float, None, "so much worse than the champion at the same site, no more", check=_span),
    Option("max_spread", float, None, "between the best and the worst site, no more", check=_span),
)
