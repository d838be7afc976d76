"""Data contracts as a project's people work with them: held against folders, proposed, compared.

Everything here runs where the data lie, and shows what a node would only count.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reuna.adapters.conformity import Judged, judge_folder
from reuna.adapters.data_folder import folder_tables
from reuna.adapters.files import replace_file
from reuna.adapters.git import file_at
from reuna.adapters.tables import read_table
from reuna.adapters.toml_file import read_toml
from reuna.core.contract import Contract, breaches, contract, limit
from reuna.core.contract_changes import Change, breaking, changes, unraised
from reuna.core.contract_infer import Seen, proposed, with_sections
from reuna.core.errors import ProjectError, ReunaError, SettingsError
from reuna.core.foreign import UNREADABLE
from reuna.core.project import project_settings
from reuna.core.settings import Source
from reuna.core.units import read_unit
from reuna.fleet.data import DataNode, find_nodes, is_node, node_name
from reuna.fleet.open_project import open_settings
from reuna.learn.strategies import TAKES

FILE = "reuna.toml"
NONE = Contract()


# --- check ---------------------------------------------------------------------------------------


def check(project: Path, data: Path) -> dict[str, Any]:
    """How each node below a folder keeps the project's contract: counts, and what breaks it."""
    agreed = contract(open_settings(project, []).settings)
    if not agreed.looks:
        raise SettingsError(
            f"{project / FILE} has no contract: neither [signals] nor [label]",
            f"Propose one from data: `reuna contract infer {data}`.",
        )
    nodes = {node.name: _checked(node, agreed) for node in nodes_in(data)}
    kept = all(node["kept"] for node in nodes.values())
    return {"version": agreed.version, "kept": kept, "nodes": nodes, "as_text": unknown_units(agreed)}


def _checked(node: DataNode, agreed: Contract) -> dict[str, Any]:
    try:
        found = judge_folder(node.folder, agreed)
    except ReunaError as error:
        return {"kept": False, "rules": [], "broken": [error.message]}
    broken = [found.said(breach) for breach in breaches(agreed, found.lines)]
    return {"kept": not broken, "rules": _rules(found, agreed), "broken": broken}


def _rules(found: Judged, agreed: Contract) -> list[dict[str, Any]]:
    return [
        {
            "rule": line.rule,
            "signal": line.signal,
            "passed": line.passed,
            "failed": line.failed,
            "allowed": limit(agreed, line),
        }
        for line in found.lines
    ]


def nodes_in(data: Path) -> list[DataNode]:
    """The nodes below a folder, or the one that the folder itself is. Raises `DataError`."""
    if data.is_dir() and is_node(data):
        name = node_name(data.absolute())
        return [DataNode(name, name, data)]
    return find_nodes(data)


def unknown_units(agreed: Contract) -> list[str]:
    """Units that the table of units does not have, so that they are compared as text."""
    return sorted({each.unit for each in agreed.signals if each.unit and read_unit(each.unit) is None})


# --- infer ---------------------------------------------------------------------------------------


def infer(data: Path, old: Contract = NONE) -> str:
    """The sections of a contract that all tables below a folder keep; units that they do not say: ``old``'s.

    Raises `DataError`.
    """
    seen = Seen()
    for node in nodes_in(data):
        for paths in folder_tables(node.folder).values():
            for path in paths:
                table = read_table(path)
                seen.take(table.columns, table.units)
    version = old.version + 1 if old.looks else old.version
    return proposed(seen, version, {each.name: each.unit for each in old.signals})


def write(project: Path, data: Path) -> tuple[str, tuple[Change, ...]]:
    """Put the proposed sections into a project's `reuna.toml`, for those it has; what changed by that.

    The version is one more than that of a contract which looked at something. Raises `SettingsError`
    when the file would say anything else otherwise than before.
    """
    file = project / FILE
    old = contract(open_settings(project, []).settings)
    sections = infer(data, old)
    before = file.read_text(encoding="utf-8")
    after = with_sections(before, sections)
    new = _contract_in(Source(file.name, _rest_is_same(before, after, sections)))
    replace_file(file, after.encode())
    return sections, changes(old, new)


def _rest_is_same(before: str, after: str, sections: str) -> dict[str, Any]:
    """What the new text says, once it is what the old one said with these sections instead."""
    replaced = tomllib.loads(sections)
    old = {
        key: said
        for key, said in tomllib.loads(before).items()
        if key not in ("contract", "signals", "label")
    }
    try:
        found = tomllib.loads(after)
    except tomllib.TOMLDecodeError:
        found = {}
    if found != {**old, **replaced}:
        raise SettingsError(
            f"the sections of the contract in {FILE} cannot be replaced without touching others",
            "Paste what `reuna contract infer` prints by hand.",
        )
    return found


# --- diff ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """Two contracts and what changed."""

    old: Contract
    new: Contract
    changes: tuple[Change, ...]

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "breaking": breaking(self.changes),
            "versions": [self.old.version, self.new.version],
            "changes": [
                {"signal": each.signal, "what": each.what, "breaking": each.breaking} for each in self.changes
            ],
            "advice": unraised(self.old, self.new),
        }


def compare(project: Path, a: str, b: str) -> Compared:
    """The contracts in two files, project folders or git revisions. Raises `SettingsError`."""
    old, new = _contract_in(_source(project, a)), _contract_in(_source(project, b))
    return Compared(old, new, changes(old, new))


def _source(project: Path, named: str) -> Source:
    path = Path(named)
    if path.is_file():
        return read_toml(path)
    if (path / FILE).is_file():
        return read_toml(path / FILE)
    try:
        return Source(f"{named}:{FILE}", tomllib.loads(file_at(project, named, FILE).decode()))
    except ProjectError as error:
        raise SettingsError(
            f"{named!r} is no file, and no revision with {FILE}: {error.message}",
            "Name a file, a project's folder, or a git revision such as HEAD~1 or main.",
        ) from error
    except (*UNREADABLE, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{FILE} of {named} is not valid TOML: {error}") from error


def _contract_in(source: Source) -> Contract:
    return contract(project_settings([source], TAKES).settings)
