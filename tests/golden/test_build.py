"""Published bytes: a build and its provenance. Builds are compared by digest, so no byte of them may drift.

The plan in it is a fixed one: what settings a project has may grow, how they are written may not change.
Regenerate on purpose with ``python -m tests.golden.test_build`` after raising the format's number.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.adapters.lock_files import read_lock
from reuna.adapters.project import is_code, pack_code
from reuna.core.environment import Environment, Package
from reuna.trust.envelope import add_signature
from reuna.trust.provenance import Claim, judge, state
from reuna.wire import digest_bytes
from reuna.wire.build import canonical, decode, encode, sha256
from reuna.wire.sbom import sbom
from tests.repositories import FILES

GOLDEN = Path(__file__).with_name("build-1.json")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
LOCK = "requirements.lock"
INSTALLED = Environment(
    "installed",
    (Package("numpy", "2.1.0+x", files="cd" * 32, needs=(), licence="MIT"),),
    ("numpy",),
    "3.11.7",
)


def build() -> bytes:
    files = {name: str(text).encode() for name, text in FILES.items()}
    code, environment = (
        pack_code({name: text for name, text in files.items() if is_code(name)}),
        read_lock(LOCK, files[LOCK]),
    )
    parts = {
        "code.zip": code,
        "reuna.toml": files["reuna.toml"],
        "plan.json": canonical(
            {"name": "pump", "rounds": 3, "quorum": 1.0, "mu": 1e-9, "settings": {"größe": True}}
        ),
        "environment.json": canonical(msgspec.to_builtins(environment)),
        "sbom.cdx.json": sbom("pump", digest_bytes(code), sha256(code), environment),
        LOCK: files[LOCK],
    }
    return encode("pump", parts)


def golden_text() -> str:
    data = build()
    claim = Claim(
        "pump.build.tar", sha256(data), "ab" * 20, "git+https://git.example.org/pump.git", version="0.1.0"
    )
    found = {
        "digest": sha256(data),
        "code": decode(data).manifest.code,
        "build": [base64.b64encode(data[at : at + 57]).decode() for at in range(0, len(data), 57)],
        "installed": canonical(msgspec.to_builtins(INSTALLED)).decode(),
        "sbom of installed": sbom("pump", "ab" * 32, "cd" * 32, INSTALLED).decode(),
        "provenance": add_signature(state(claim), KEY).decode(),
    }
    return json.dumps(found, indent=1) + "\n"


def test_the_published_bytes_are_those_of_the_golden_file() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")


def test_golden_builds_are_still_read() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    found = decode(base64.b64decode("".join(golden["build"])))
    assert (found.digest, found.manifest.code) == (golden["digest"], golden["code"])
    assert judge(golden["provenance"].encode(), found.digest, [PUBLIC]).signed_by == (PUBLIC,)


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
