"""Published bytes: a build and its provenance. Builds are compared by digest, so no byte of them may drift.

Regenerate on purpose with ``python -m tests.golden.test_build`` after raising the format's number; a new
setting of projects changes ``plan.json`` and with it these bytes, which is meant.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from reuna.fleet.build import assemble
from reuna.trust.provenance import Claim, add_signature, judge, state
from reuna.wire.build import decode, sha256
from tests.repositories import FILES

GOLDEN = Path(__file__).with_name("build-1.json")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
NOT_BUILT = {"README.md", "tests/test_model.py"}


def golden_text() -> str:
    data = assemble({name: str(text).encode() for name, text in FILES.items() if name not in NOT_BUILT})
    claim = Claim(
        "pump.build.tar", sha256(data), "ab" * 20, "git+https://git.example.org/pump.git", version="0.1.0"
    )
    found = {
        "digest": sha256(data),
        "code": decode(data).manifest.code,
        "build": [base64.b64encode(data[at : at + 57]).decode() for at in range(0, len(data), 57)],
        "provenance": add_signature(state(claim), KEY).decode(),
    }
    return json.dumps(found, indent=1) + "\n"


def test_the_published_bytes_are_those_of_the_golden_file() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")


def test_golden_builds_are_still_read() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    build = decode(base64.b64decode("".join(golden["build"])))
    assert (build.digest, build.manifest.code) == (golden["digest"], golden["code"])
    assert judge(golden["provenance"].encode(), build.digest, [PUBLIC]).signed_by == (PUBLIC,)


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
