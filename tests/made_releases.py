"""Releases as `reuna release make` writes them, without a model in them: what is asked of them needs none."""

from __future__ import annotations

from typing import Any

from reuna.core.environment import Environment, Package
from reuna.fleet.release import KEPT, TOLD, Catalogue
from reuna.wire import digest_bytes
from reuna.wire import release as wire
from reuna.wire.build import SBOM, canonical, sha256
from reuna.wire.release import About, Release
from reuna.wire.sbom import sbom
from tests.finished import finished

CODE = b"the code of pumps"


def bill(**packages: str) -> bytes:
    """The bill of materials of `CODE` with these packages, name=version."""
    listed = tuple(Package(name.replace("_", "-"), version) for name, version in sorted(packages.items()))
    return sbom("pumps", digest_bytes(CODE), sha256(CODE), Environment("requirements.lock", listed))


def add(catalogue: Catalogue, version: int, replaces: str = "", packages: Any = None, **more: Any) -> Release:
    """Release a run ``r-VERSION`` into a catalogue; ``more`` is of its result."""
    result = finished(f"r-{version}", **{"source": {"code": digest_bytes(CODE)}, **more})
    history = {name: result[name] for name in (*KEPT, "source", *TOLD) if name in result}
    parts = {
        wire.BINS: canonical({}),
        wire.CARD: b"# pumps\n",
        wire.CODE: CODE,
        wire.CONTRACT: canonical({}),
        wire.GATES: canonical({"decision": "pass"}),
        wire.LINEAGE: canonical(history),
        wire.MODEL: b"a graph",
        SBOM: bill(**(packages or {"numpy": "2.1.0"})),
    }
    data = wire.encode(About("pumps", version, result["run"], result["model_digest"], replaces), parts)
    found = wire.decode(data)
    catalogue.add(found, data)
    return found
