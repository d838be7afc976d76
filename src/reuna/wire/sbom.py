"""The bill of materials of a build: CycloneDX 1.6 in JSON, the same bytes for the same packages.

The standard: https://cyclonedx.org/docs/1.6/json/. It has neither a time nor anything random: the serial
number is made from what it says. Pure.

>>> import json
>>> one = Package("numpy", "2.1.0", needs=())
>>> bom = json.loads(sbom("pump", "ab" * 32, "cd" * 32, Environment("installed", (one,), ("numpy",))))
>>> bom["components"][0]["purl"], bom["dependencies"][0]
('pkg:pypi/numpy@2.1.0', {'dependsOn': ['pkg:pypi/numpy@2.1.0'], 'ref': 'project'})
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from reuna.core.environment import Environment, Package
from reuna.wire.build import canonical, sha256

ROOT = "project"  #: the project's own reference in the bill


def sbom(project: str, code: str, code_sha256: str, environment: Environment) -> bytes:
    """The bill of a project's code (its digest as sites approve it, and its SHA-256) and packages."""
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "reuna"}]},
            "component": {
                "type": "application",
                "bom-ref": ROOT,
                "name": project,
                "version": code[:12],
                "hashes": [_hash(code_sha256)],
                "properties": [{"name": "reuna:code", "value": code}],
            },
            "properties": [{"name": "reuna:environment", "value": environment.source}],
        },
        "components": [*map(_component, environment.packages), *_interpreter(environment.python)],
        "dependencies": list(_dependencies(environment)),
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, sha256(canonical(bill)))
    return canonical({**bill, "serialNumber": serial.urn})


def purl(package: Package) -> str:
    """The package URL: https://github.com/package-url/purl-spec."""
    return f"pkg:pypi/{package.name}@{package.version.replace('!', '%21').replace('+', '%2B')}"


def _component(package: Package) -> dict[str, Any]:
    notes = {"reuna:marker": package.marker, "reuna:installed-files:sha256": package.files}
    said: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
    }
    if package.licence:
        said["licenses"] = [{"expression": package.licence}]
    if package.archives:  # it comes as any one of these
        hashes = [_hash(each) for each in package.archives]
        said["externalReferences"] = [{"type": "distribution", "url": purl(package), "hashes": hashes}]
    if properties := [{"name": name, "value": value} for name, value in notes.items() if value]:
        said["properties"] = properties
    return said


def _interpreter(version: str) -> list[dict[str, Any]]:
    if not version:
        return []
    return [{"type": "platform", "bom-ref": f"python@{version}", "name": "python", "version": version}]


def _dependencies(environment: Environment) -> Iterator[dict[str, Any]]:
    """What needs what; a package of which its lock does not say it is left out, as the standard has it."""
    packages = environment.packages
    roots = {package.name for package in packages} if environment.roots is None else set(environment.roots)
    yield _needs(ROOT, roots, packages)
    for package in packages:
        if package.needs is not None:
            yield _needs(purl(package), package.needs, packages)


def _needs(reference: str, names: Iterable[str], packages: Iterable[Package]) -> dict[str, Any]:
    wanted = set(names)
    found = sorted(purl(package) for package in packages if package.name in wanted)
    return {"ref": reference, **({"dependsOn": found} if found else {})}


def _hash(content: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": content}
