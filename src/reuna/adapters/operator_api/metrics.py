"""What the cloud knows of its nodes, in the text format that Prometheus reads.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CollectorRegistry, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from reuna.core.trigger import KINDS
from reuna.core.watched import kept_by

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

LABELS = ("node", "site", "project")
#: name -> what it is, and which word of a node it is
OF_NODES: dict[str, tuple[str, str]] = {
    "reuna_watch_level": ("Drift of inputs, as a share of what makes an alarm", "level"),
    "reuna_watch_alarm": ("1 while there is an alarm about inputs", "alarm"),
    "reuna_watch_reference_blocks": ("Blocks that new ones are held against; 0: being gathered", "reference"),
    "reuna_watch_blocks": ("Blocks that were looked at", "blocks"),
    "reuna_answers_level": ("Drift of answers, as a share of what makes an alarm", "answers_level"),
    "reuna_answers_alarm": ("1 while there is an alarm about answers", "answers_alarm"),
    "reuna_windows_answered": ("Windows that were answered since the node started", "windows"),
    "reuna_windows_safe": ("Those of them that got the safe answer", "safe"),
    "reuna_labels": ("Labels that came later for answers of the release that runs", "labels"),
    "reuna_labels_wrong": ("Those of them that say another class", "wrong"),
    "reuna_error": ("Of the newest labels, the share that is wrong, or the mean absolute error", "error"),
    "reuna_errors_level": ("Rise of errors, as a share of what makes an alarm", "errors_level"),
    "reuna_errors_alarm": ("1 while there is an alarm about errors", "errors_alarm"),
    "reuna_inference_p50_milliseconds": ("Median time of an answer", "p50_ms"),
    "reuna_inference_p99_milliseconds": ("Time that 99 of 100 answers keep below", "p99_ms"),
}


def metrics_of(said: Mapping[str, Any], present: Mapping[str, float]) -> bytes:
    """``said`` by the cloud's monitor; ``present``: node -> when it was heard last, epoch s."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(said, present))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, said: Mapping[str, Any], present: Mapping[str, float]) -> None:
        self._said = said
        self._present = present

    def collect(self) -> Iterator[Metric]:
        told = [
            ((node, each["site"], project), each)
            for project, nodes in sorted(self._said["projects"].items())
            for node, each in sorted(nodes.items())
        ]
        for name, (what, word) in OF_NODES.items():
            family = GaugeMetricFamily(name, what, labels=LABELS)
            for labels, each in told:
                if not any(each.get(field) for field in kept_by(word)):  # no word is not 0
                    family.add_metric(labels, float(each.get(word, 0)))
            yield family
        moved = GaugeMetricFamily(
            "reuna_signal_moved", "By how many times its usual distance", labels=(*LABELS, "signal")
        )
        for labels, each in told:
            for signal, distance in sorted(each.get("moved", {}).items()):
                moved.add_metric((*labels, signal), distance)
        yield moved
        seen = GaugeMetricFamily(
            "reuna_node_seen_timestamp_seconds", "When a node was heard last", labels=("node",)
        )
        for node, at in sorted(self._present.items()):
            seen.add_metric((node,), at)
        yield seen
        alarms = GaugeMetricFamily("reuna_alarms", "Alarms that go on", labels=("kind", "acknowledged"))
        going_on = [each for each in self._said["alarms"] if not each["ended"]]
        for kind in KINDS:
            for yes in (False, True):
                count = sum(each["kind"] == kind and bool(each["by"]) == yes for each in going_on)
                alarms.add_metric((kind, str(yes).lower()), count)
        yield alarms
