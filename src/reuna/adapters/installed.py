"""The packages that a project needs, found among those that are installed here, when it has no lock.

What the project's modules import is read from their text; nothing of it is run. From there on each
package says what it needs itself. Reuna is always among them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from reuna.core.environment import Environment, Package, normalised
from reuna.core.errors import ExtraMissing, ProjectError
from reuna.core.readiness import Module

if TYPE_CHECKING:
    from packaging.requirements import Requirement

REUNA = "reuna"
INSTALLED = "installed"  #: the source of such an environment
#: Modules of ours that need an extra: whoever imports one needs what the extra holds.
EXTRAS = {
    "reuna.adapters.onnx_export": "onnx",
    "reuna.adapters.sklearn_learner": "sklearn",
    "reuna.adapters.torch_learner": "torch",
}
_LOCK = "Install it, or put a lock of the project beside its reuna.toml."
#: What differs from machine to machine though the same package was installed.
_UNEQUAL = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")


def find_installed(code: Mapping[str, bytes]) -> Environment:
    """What the project's code (path → bytes) needs. Raises `ProjectError` for what is not installed here."""
    modules = dict(_imported(code))
    homes = metadata.packages_distributions()
    found = {module: _homes(module.partition(".")[0], homes) for module in modules}
    missing = sorted((module, file) for module, file in modules.items() if file and not found[module])
    if missing:
        raise ProjectError(f"{missing[0][1]} imports {missing[0][0]}, which is not installed here", _LOCK)
    roots = {REUNA, *(normalised(name) for names in found.values() for name in names)}
    extras = {EXTRAS[module] for module in modules if module in EXTRAS}
    packages = _closure(roots, frozenset(extras))
    return Environment(
        INSTALLED,
        tuple(packages[name] for name in sorted(packages)),
        tuple(sorted(roots)),
        platform.python_version(),
    )


def modules_of(code: Mapping[str, bytes]) -> tuple[Module, ...]:
    """Foreign modules without which the project's code (path → bytes) cannot be imported, by name.

    With the package that has each here, and its version. What the code imports only to try is left out,
    and so is Reuna; what parts of Reuna need is not. Raises `ProjectError` for a file that is no Python.
    """
    imported = dict(_imported(code))
    names = {module.partition(".")[0] for module, file in imported.items() if file}
    names |= {extra for module, extra in EXTRAS.items() if module in imported}
    homes = metadata.packages_distributions()
    found = {name: next(iter(_homes(name, homes)), "") for name in sorted(names - {REUNA})}
    return tuple(
        Module(name, package, metadata.version(package) if package else "") for name, package in found.items()
    )


def _homes(top: str, homes: Mapping[str, list[str]]) -> list[str]:
    """The packages that a module is of; one that is installed as a link to its source names none."""
    if top in homes:
        return homes[top]
    return [top] if any(True for _ in metadata.distributions(name=top)) else []


def _imported(code: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Foreign modules, and the file that imports each; '' when it tries to and goes on without.

    Raises `ProjectError` for a file that is no Python.
    """
    own = {PurePosixPath(name).parts[0].removesuffix(".py") for name in code}
    found: dict[str, str] = {}
    for file in sorted(name for name in code if name.endswith(".py")):
        for module, tried in _imports_of(file, code[file]):
            top = module.partition(".")[0]
            if top not in own and top not in sys.stdlib_module_names:
                found[module] = found.get(module) or ("" if tried else file)
    yield from found.items()


def _imports_of(file: str, content: bytes) -> Iterator[tuple[str, bool]]:
    try:
        tree = ast.parse(content, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ProjectError(f"{file} is no Python: {error}", "Correct it.") from error
    tried = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Try) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in tried) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, id(node) in tried
            yield from ((f"{node.module}.{alias.name}", True) for alias in node.names)


def _closure(roots: Iterable[str], extras: frozenset[str]) -> dict[str, Package]:
    """Every package that those need, here, by its name; ``extras`` are Reuna's."""
    found: dict[str, Package] = {}
    done: dict[str, frozenset[str]] = {}
    asked = [(name, extras if name == REUNA else frozenset[str]()) for name in sorted(roots)]
    while asked:
        name, wanted = asked.pop()
        wanted |= done.get(name, frozenset())
        if done.get(name) == wanted:
            continue
        done[name] = wanted
        distribution = _distribution(name)
        needs = {normalised(each.name): frozenset(each.extras) for each in _needed(distribution, wanted)}
        asked += needs.items()
        found[name] = Package(
            name,
            distribution.version,
            files=digest_of_files(distribution),
            needs=tuple(sorted(needs)),
            licence=_licence(distribution),
        )
    return found


def _licence(distribution: metadata.Distribution) -> str:
    """Its SPDX expression, where the package says one (PEP 639)."""
    return next(iter(distribution.metadata.get_all("License-Expression") or ()), "")


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise ProjectError(f"the package {name} is needed and not installed here", _LOCK) from error


def _needed(distribution: metadata.Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    """Its requirements that apply on this machine."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ModuleNotFoundError:
        raise ExtraMissing(
            "a project without a lock needs packaging", "Run `pip install 'reuna[build]'`."
        ) from None
    for text in distribution.requires or ():
        try:
            found = Requirement(text)
        except InvalidRequirement:
            continue  # pip leaves it out too
        marker = found.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *sorted(extras))):
            yield found


def digest_of_files(distribution: metadata.Distribution) -> str:
    """SHA-256 over what its RECORD says of each file of the package, '' where it does not tell.

    One line a file, sorted: path, a space, its SHA-256 as RECORD has it. Left out is what differs from
    machine to machine: scripts outside the package, what pip notes for itself, ``.pth`` and ``.pyc``.
    """
    if _is_link(distribution):
        return ""
    lines = [
        f"{file.as_posix()} {file.hash.value}"
        for file in distribution.files or ()
        if file.hash is not None
        and file.hash.mode == "sha256"
        and ".." not in file.parts
        and file.suffix not in {".pth", ".pyc"}
        and not (file.parts[0].endswith(".dist-info") and file.name in _UNEQUAL)
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest() if lines else ""


def _is_link(distribution: metadata.Distribution) -> bool:
    """Whether its files are somebody's source folder (``pip install -e``): what they hold may change."""
    try:
        said = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(isinstance(said, dict) and said.get("dir_info", {}).get("editable"))
