"""From what the nodes measured to one table per site, and the site that is worst.

Only metrics come in, never rows. A ``method`` is how the model was made: ``local`` (each site
alone), ``federated``, ``centralised`` (all rows in one place; only where one machine holds them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reuna.core.gates import LOWER_IS_BETTER
from reuna.core.scores import mean

Scores = Mapping[str, Any]  #: metric name -> number, or {"absent": reason}
METHODS = ("local", "federated", "centralised")


@dataclass(frozen=True)
class SiteRow:
    """One site: its nodes and each method's metrics, averaged over those nodes.

    ``by_node``: metrics of the federated model at each node that answered.
    """

    site: str
    nodes: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    absent: Mapping[str, str]
    by_node: Mapping[str, Mapping[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """As it stands in result.json."""
        row: dict[str, Any] = {"site": self.site, "nodes": list(self.nodes)}
        row.update({method: dict(scores) for method, scores in self.scores.items()})
        if self.absent:
            row["absent"] = dict(self.absent)
        if len(self.nodes) > 1:
            row["by_node"] = {node: dict(scores) for node, scores in self.by_node.items()}
        return row


def site_rows(
    sites: Mapping[str, tuple[str, ...]], outcome: Mapping[str, Mapping[str, Scores]]
) -> list[SiteRow]:
    """One row per site, sorted. ``outcome`` is method -> node -> metrics."""
    return [_site_row(site, nodes, outcome) for site, nodes in sorted(sites.items())]


def _site_row(site: str, nodes: tuple[str, ...], outcome: Mapping[str, Mapping[str, Scores]]) -> SiteRow:
    scores = {}
    absent: dict[str, str] = {}
    for method in METHODS:
        of_nodes = outcome.get(method, {})
        heard = [of_nodes[node] for node in nodes if node in of_nodes]
        absent.update({n: of_nodes[n]["absent"] for n in nodes if "absent" in of_nodes.get(n, {})})
        scores[method] = mean([found for found in heard if "absent" not in found])
    told = outcome.get("federated", {})
    by_node = {node: mean([told[node]]) for node in nodes if "absent" not in told.get(node, {"absent": ""})}
    return SiteRow(site, nodes, scores, absent, by_node)


def worst_site(rows: list[SiteRow], metric: str, method: str = "federated") -> dict[str, Any]:
    """The site where ``method`` does worst by ``metric``; empty when nobody reported it."""
    known = [row for row in rows if metric in row.scores.get(method, {})]
    if not known:
        return {}
    sign = 1 if metric in LOWER_IS_BETTER else -1
    row = max(known, key=lambda row: sign * row.scores[method][metric])
    return {"site": row.site, "metric": metric, "value": row.scores[method][metric]}
