"""`reuna.adapters.lock_files`: a lock that a project's tools wrote, and the bill of materials made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fuzz.kit import attempt
from reuna.adapters.lock_files import read_lock
from reuna.core.errors import ProjectError
from reuna.wire.build import LOCKS
from reuna.wire.sbom import sbom

HASH = "ab" * 32
REQUIREMENTS = f"numpy==2.1.0 ; python_version < '4' \\\n    --hash=sha256:{HASH}\n# x\nfoo[a]==1!2+cpu\n"
UV = f"""\
version = 1
[[package]]
name = "pump"
source = {{ virtual = "." }}
dependencies = [{{ name = "numpy" }}]
[[package]]
name = "numpy"
version = "2.1.0"
source = {{ registry = "x" }}
wheels = [{{ url = "x", hash = "sha256:{HASH}" }}]
"""
PYLOCK = f"""\
lock-version = "1.0"
[[packages]]
name = "numpy"
version = "2.1.0"
marker = "python_version < '4'"
wheels = [{{ name = "n.whl", hashes = {{ sha256 = "{HASH}" }} }}]
"""


def seeds() -> Iterator[bytes]:
    yield from (text.encode() for text in (REQUIREMENTS, UV, PYLOCK))


def check(data: bytes) -> None:
    for name in LOCKS:
        found = attempt(lambda name=name: read_lock(name, data), ProjectError)  # type: ignore[misc]
        if found is not None:
            versions = [(each.name, each.version) for each in found.packages]
            assert versions == sorted(set(versions))
            json.loads(sbom("pump", HASH, HASH, found))
