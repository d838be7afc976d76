"""Finds the nodes in a folder of data and spreads them over fogs.

    DIR/<node>/…           every node is a site of its own
    DIR/<site>/<node>/…    nodes grouped by site

A node's folder holds CSV or Parquet files, or ``train``, ``validation`` and ``test`` folders
with them; see docs/reference/data-folder.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reuna.core.errors import DataError

TABLES = (".csv", ".parquet")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class DataNode:
    """A node's name, its site, and where its rows lie."""

    name: str
    site: str
    folder: Path


def find_nodes(folder: Path) -> list[DataNode]:
    """Every node below ``folder``, sorted. Raises `DataError` that says what was found instead."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", "Give a folder with one sub-folder per node.")
    found: list[DataNode] = []
    for site in sorted(path for path in folder.iterdir() if _visible_folder(path)):
        if is_node(site):
            found.append(DataNode(node_name(site), node_name(site), site))
            continue
        inner = [node for node in sorted(site.iterdir()) if _visible_folder(node) and is_node(node)]
        if not inner:
            raise DataError(f"{site} holds no CSV or Parquet file", "Remove the folder or put data in it.")
        found += [DataNode(node_name(node), node_name(site), node) for node in inner]
    if not found:
        raise DataError(f"{folder} has no sub-folder with CSV or Parquet files", "Make one folder per node.")
    _check_apart(folder, found)
    return found


def _check_apart(root: Path, nodes: list[DataNode]) -> None:
    """No two folders may become one node or one site: their names are told in fewer signs."""
    owners: dict[tuple[str, str], Path] = {}
    wrong = []
    for node in nodes:
        named = [("node", node.name, node.folder)]
        if node.folder.parent != root:
            named.append(("site", node.site, node.folder.parent))
        for what, name, folder in named:
            first = owners.setdefault((what, name), folder)
            if first != folder:
                wrong.append(f"{first} and {folder} would both be {what} {name!r}")
    if wrong:
        raise DataError("\n".join(dict.fromkeys(wrong)), "Rename one of the two folders.")


def _visible_folder(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "_"))


def is_node(folder: Path) -> bool:
    """Whether a folder holds tables itself, or in a folder of a split."""
    places = [folder, *(folder / split for split in SPLITS)]
    return any(file.suffix in TABLES for place in places if place.is_dir() for file in place.iterdir())


def node_name(folder: Path) -> str:
    """The folder's name as a node name: lower case, other signs become hyphens."""
    cleaned = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.name.lower())
    return cleaned.strip("-")[:63] or "node"


def spread(nodes: list[DataNode], fogs: int | None = None) -> dict[str, dict[str, Path]]:
    """Fogs with their edges' data folders. Sites stay whole; by default two fogs from four nodes on."""
    sites: dict[str, list[DataNode]] = {}
    for node in nodes:
        sites.setdefault(node.site, []).append(node)
    count = fogs or (2 if len(nodes) >= 4 and len(sites) >= 2 else 1)
    count = min(count, len(sites))
    spread_over: dict[str, dict[str, Path]] = {f"fog-{index + 1}": {} for index in range(count)}
    for site in sorted(sites, key=lambda name: (-len(sites[name]), name)):
        fog = min(spread_over, key=lambda name: (len(spread_over[name]), name))
        spread_over[fog].update({node.name: node.folder for node in sites[site]})
    return {fog: dict(sorted(edges.items())) for fog, edges in spread_over.items()}


def sites_of(nodes: list[DataNode]) -> dict[str, tuple[str, ...]]:
    """Site -> its nodes."""
    sites: dict[str, list[str]] = {}
    for node in nodes:
        sites.setdefault(node.site, []).append(node.name)
    return {site: tuple(sorted(names)) for site, names in sorted(sites.items())}
