"""A project's own lock of its Python packages, read: ``pylock.toml``, ``uv.lock`` or ``requirements.lock``.

    pylock.toml         PEP 751, as pip and others write it
    uv.lock             as uv writes it
    requirements.lock   one ``name==version`` a line, with ``--hash=sha256:…``, as pip and uv write it

A lock pins: a line without an exact version is a mistake, and so is one that carries a password.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from reuna.core.environment import Environment, Package, normalised
from reuna.core.errors import ProjectError
from reuna.core.foreign import shown

MAX_PACKAGES = 5_000
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_PIN = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*={2,3}\s*(?P<version>[^\s;]+)\s*(?:;\s*(?P<marker>.*))?"
)
#: How and whence pip installs, and the project itself: no package that it needs.
_OPTION = re.compile(
    r"(-[if]|--(index-url|extra-index-url|no-index|find-links|no-binary|only-binary|prefer-binary|pre"
    r"|require-hashes))(?=[\s=]|$)|(-e\s+)?\.$"
)
_HASH = re.compile(r"\s--hash[= ]sha256:([0-9a-f]{64})(?=\s|$)")
_PASSWORD = re.compile(r"://[^/\s:@'\"]+:[^/\s@'\"]+@")
_AGAIN = "Write the lock again with the tool that made it, every package with its version."


def read_lock(name: str, data: bytes) -> Environment:
    """The packages of a lock by its file's name. Raises `ProjectError` that names what is wrong."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{name} is not UTF-8: {error}", _AGAIN) from error
    if _PASSWORD.search(text):
        raise ProjectError(
            f"{name} has an address with a password in it",
            "Take it out: whoever gets the build could read it.",
        )
    return _READERS[name](name, text)


def _requirements(name: str, text: str) -> Environment:
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines()]
    found = [_pinned(name, line) for line in lines if line and not _OPTION.match(line)]
    return Environment(name, _sorted(name, found))


def _pinned(file: str, line: str) -> Package:
    hashes = _HASH.findall(f" {line}")
    match = _PIN.fullmatch(re.sub(r"\s--hash[= ]\S+", "", f" {line}").strip())
    if match is None:
        raise ProjectError(f"{file}: {shown(line, 80)} pins no version", _AGAIN)
    return _package(file, match["name"], match["version"], (match["marker"] or "").strip(), hashes)


def _uv(name: str, text: str) -> Environment:
    with _blamed(name):
        found, roots = [], set[str]()
        for each in tomllib.loads(text)["package"]:
            needs = {normalised(str(need["name"])) for need in _needs_of(each)}
            if each["source"].keys() & {
                "virtual",
                "editable",
                "directory",
            }:  # the project, and what lies in it
                roots |= needs
                continue
            archives = [each.get("sdist") or {}, *each.get("wheels", ())]
            hashes = [
                str(archive["hash"]).removeprefix("sha256:") for archive in archives if "hash" in archive
            ]
            found.append(_package(name, each["name"], each["version"], "", hashes, needs))
        packages = _sorted(name, found)
        known = {package.name for package in packages}
        return Environment(name, packages, tuple(sorted(roots & known)))


def _needs_of(package: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from package.get("dependencies", ())
    for extra in package.get("optional-dependencies", {}).values():
        yield from extra


def _pylock(name: str, text: str) -> Environment:
    with _blamed(name):
        said = tomllib.loads(text)
        if not str(said["lock-version"]).startswith("1."):
            raise ProjectError(f"{name} is of version {shown(said['lock-version'], 20)}, not 1", _AGAIN)
        return Environment(name, _sorted(name, [_locked(name, each) for each in said["packages"]]))


def _locked(file: str, each: Mapping[str, Any]) -> Package:
    archives = [each.get("sdist") or {}, each.get("archive") or {}, *each.get("wheels", ())]
    hashes = [
        str(archive["hashes"]["sha256"]) for archive in archives if "sha256" in archive.get("hashes", {})
    ]
    return _package(file, each["name"], each["version"], str(each.get("marker", "")), hashes)


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """What a lock of another form makes its reader raise becomes one message."""
    try:
        yield
    except KeyError as error:
        raise ProjectError(f"{name} lacks {error}", _AGAIN) from error
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ProjectError(f"{name} cannot be read: {shown(str(error))}", _AGAIN) from error


def _package(
    file: str, name: Any, version: Any, marker: str, hashes: Iterable[str], needs: Iterable[str] | None = None
) -> Package:
    if not _NAME.fullmatch(str(name)) or not _VERSION.fullmatch(str(version)):
        raise ProjectError(f"{file}: {shown(name, 80)} has no exact version: {shown(version, 80)}", _AGAIN)
    archives = tuple(sorted(set(hashes)))
    strange = [each for each in archives if not re.fullmatch(r"[0-9a-f]{64}", each)]
    if strange:
        raise ProjectError(
            f"{file}: {name} has the hash {shown(strange[0], 80)}, which is no SHA-256", _AGAIN
        )
    known = None if needs is None else tuple(sorted(set(needs)))
    return Package(normalised(str(name)), str(version), " ".join(marker.split()), archives, needs=known)


def _sorted(file: str, found: list[Package]) -> tuple[Package, ...]:
    """Sorted; one version that stands there for several markers is one package."""
    if len(found) > MAX_PACKAGES:
        raise ProjectError(f"{file} names {len(found)} packages, over {MAX_PACKAGES}", _AGAIN)
    by_version: dict[tuple[str, str], Package] = {}
    for each in found:
        before = by_version.get((each.name, each.version))
        by_version[each.name, each.version] = each if before is None else _merged(before, each)
    return tuple(by_version[key] for key in sorted(by_version))


def _merged(a: Package, b: Package) -> Package:
    marker = " or ".join(f"({m})" for m in sorted({a.marker, b.marker})) if a.marker and b.marker else ""
    needs = None if a.needs is None or b.needs is None else tuple(sorted({*a.needs, *b.needs}))
    archives = tuple(sorted({*a.archives, *b.archives}))
    return Package(a.name, a.version, a.marker if a.marker == b.marker else marker, archives, needs=needs)


_READERS: Mapping[str, Callable[[str, str], Environment]] = {
    "pylock.toml": _pylock,
    "uv.lock": _uv,
    "requirements.lock": _requirements,
}
