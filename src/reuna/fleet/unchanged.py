"""Whether an earlier run has answered what is asked: the same inputs give the same bits, so why train again.

An input is whatever the bits of the model or the numbers of the result come from: code, settings, who
takes part under which fog, the packages, and the data of every node. What is not known is not the same.
Of machines that joined a fleet nobody here has the data: those are asked (`reuna.fleet.same`).

A node's data stand in a result as a keyed digest. The key lies beside the results, in ``.salt``; whoever has
a result without it can neither guess at the data nor compare them with others.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from reuna.adapters.files import file_sha256, read_at_most, replace_file
from reuna.adapters.installed import find_installed
from reuna.adapters.project import is_code, pack_code
from reuna.core.errors import ProjectError
from reuna.core.fingerprint import digest_of
from reuna.core.project import BUFFERED, ProjectSettings
from reuna.fleet.build import in_folder, plan_of
from reuna.fleet.data import DataNode, sites_of
from reuna.fleet.report import rounds_of
from reuna.fleet.result import Inputs
from reuna.wire import digest_bytes
from reuna.wire.build import canonical, sha256

SALT = ".salt"  #: in the folder of results
SALT_BYTES = 32
#: What a project's settings say beside what a run is made of.
NOT_INPUTS = ("places", "mlflow", "test")
Marks = tuple[tuple[str, int, int, int], ...]  #: path, bytes, ns of the last change, inode of each file


@dataclass(frozen=True)
class Taken:
    """The inputs of a run when it was asked for, and how to see whether its data changed since."""

    inputs: Inputs
    salt: bytes
    folders: Mapping[str, Path]
    rules: Mapping[str, Path]
    marks: Mapping[str, Marks]

    def retaken(self) -> Taken:
        """With the rules as they are now that the code was approved, and before anybody trains."""
        return replace(
            self, inputs=msgspec.structs.replace(self.inputs, rules=_digests(self.salt, self.rules))
        )

    def note(self, runs: Path) -> dict[str, Any]:
        """What the result says of them: data or rules that changed while it trained are not known."""
        changed = any(_marks(folder) != self.marks[node] for node, folder in self.folders.items())
        changed |= _digests(self.salt, self.rules) != self.inputs.rules
        inputs = msgspec.structs.replace(self.inputs, data={}) if changed else self.inputs
        if inputs.data and not (runs / SALT).is_file():
            replace_file(runs / SALT, self.salt)
        return {"inputs": msgspec.to_builtins(inputs)}


def take(
    project: Path,
    settings: ProjectSettings,
    nodes: Sequence[DataNode],
    fogs: Mapping[str, Iterable[str]],
    runs: Path,
    rules: Mapping[str, Path],
    fleet: str = "",
) -> Taken:
    """The inputs of a run that is asked for. Raises `ProjectError`.

    ``fogs`` has their edges; ``rules`` a file beside a node's data that decides on them, its site's policy;
    ``fleet`` the name of one that runs, '' for one of this run's own. A node whose folder is not here has no
    data that are known.
    """
    files = in_folder(project)
    code = {name: data for name, data in files.items() if is_code(name)}
    told = msgspec.json.decode(plan_of(settings), type=dict[str, Any])
    plan = {name: value for name, value in told.items() if name not in NOT_INPUTS}
    salt = read_at_most(runs / SALT, SALT_BYTES) or secrets.token_bytes(SALT_BYTES)
    here = all(node.folder != Path() for node in nodes)
    folders = {node.name: node.folder for node in nodes if here}
    marks = {name: _marks(folder) for name, folder in folders.items()}
    data = _digests(salt, folders)
    inputs = Inputs(
        code=digest_bytes(pack_code(code)),
        settings=sha256(canonical(plan)),
        fleet=fleet,
        fogs={fog: tuple(sorted(edges)) for fog, edges in sorted(fogs.items())},
        sites=sites_of(list(nodes)),
        packages=_packages(code),
        rules=_digests(salt, rules),
        data=data if all(data.values()) else {},
    )
    return Taken(inputs, salt, folders, rules, marks)


def answers(result: Mapping[str, Any], inputs: Inputs) -> bool:
    """Whether a finished run is what these inputs give: all the same, all known, and nobody was absent."""
    if set(inputs.data) != nodes_of(inputs) or not inputs.packages:
        return False
    return not is_buffered(result) and had_everybody(result) and _kept(result) == inputs


def nodes_of(inputs: Inputs) -> set[str]:
    """Everybody who takes part."""
    return {name for names in inputs.sites.values() for name in names}


def is_buffered(result: Mapping[str, Any]) -> bool:
    """Whether a run's steps were made of updates of several rounds."""
    return result.get("asked", {}).get("strategy") in BUFFERED


def had_everybody(result: Mapping[str, Any]) -> bool:
    """Whether nobody was absent from a finished run, so that it would come out the same again."""
    rounds = rounds_of(result)
    if len(rounds) != result["rounds"] or any(each["absent"] for each in rounds):
        return False
    return not any(bool(site.get("absent")) for site in result["sites"])


def same_but_data(result: Mapping[str, Any], inputs: Inputs) -> bool:
    """Whether a finished run had these inputs as far as they are known, whatever its data were."""
    had = _kept(result)
    if had is None:
        return False
    return bool(msgspec.structs.replace(had, data=inputs.data) == inputs)


def earlier(
    found: Iterable[tuple[Path, dict[str, Any]]], inputs: Inputs
) -> tuple[Path, dict[str, Any]] | None:
    """The first of ``found`` that `answers` and whose model lies beside it, whole."""
    return next(
        (
            (folder, result)
            for folder, result in found
            if answers(result, inputs) and is_whole(folder, result)
        ),
        None,
    )


def _kept(result: Mapping[str, Any]) -> Inputs | None:
    return msgspec.convert(result["inputs"], Inputs) if "inputs" in result else None


def is_whole(folder: Path, result: Mapping[str, Any]) -> bool:
    """Whether a run's model lies beside its result as it was."""
    try:
        return bool(digest_bytes((folder / "model.safetensors").read_bytes()) == result["model_digest"])
    except OSError:
        return False


def _packages(code: Mapping[str, bytes]) -> str:
    """Digest of the packages that the code needs, as they are here; '' when one is not here."""
    try:
        return sha256(canonical(msgspec.to_builtins(find_installed(code))))
    except ProjectError:
        return ""


# --- data ------------------------------------------------------------------------------------------


def _digests(salt: bytes, paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: _digest(salt, path) for name, path in sorted(paths.items())}


def _files(root: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every file below, by its name there; '' as the name of something that is neither file nor folder."""
    if root.is_file():
        yield root.name, root, root.stat()
        return
    for folder, inner, names in os.walk(root, onerror=_complain):
        inner.sort()
        for name in sorted([*names, *(each for each in inner if (Path(folder) / each).is_symlink())]):
            path = Path(folder) / name
            status = path.stat()
            plain = stat.S_ISREG(status.st_mode)
            yield path.relative_to(root).as_posix() if plain else "", path, status


def _complain(error: OSError) -> None:
    raise error


def _marks(root: Path) -> Marks:
    """What changes when a file does, without reading it; what equals nothing when one cannot be looked at."""
    try:
        return tuple(
            (name, status.st_size, status.st_mtime_ns, status.st_ino) for name, _, status in _files(root)
        )
    except OSError:
        return ((secrets.token_hex(8), 0, 0, 0),)


def _digest(salt: bytes, root: Path) -> str:
    """HMAC-SHA-256 over names and bytes of all files; '' when not all of them can be read here as files."""
    found: dict[str, str] = {}
    try:
        for name, path, _ in _files(root):
            if not name:
                return ""
            found[name] = file_sha256(path)
    except OSError:
        return ""
    return hmac.new(salt, digest_of(found).encode(), hashlib.sha256).hexdigest()
