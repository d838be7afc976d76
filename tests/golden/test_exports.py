"""Published bytes: a release as an OCI image layout, and its OpenSSF signature.

The release in it is a fixed one: what a release holds may grow, how exports are written may not change.
Regenerate on purpose with ``python -m tests.golden.test_exports``.
"""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from reuna.fleet.release_export import ARTIFACT
from reuna.trust import model_signing
from reuna.wire import oci
from reuna.wire.archive import pack
from reuna.wire.build import sha256

GOLDEN = Path(__file__).with_name("exports-1.json")
KEY = ec.derive_private_key(20261127, ec.SECP256R1())
PARTS = {
    "manifest.json": b'{"format":"reuna/release/v1"}\n',
    "card.md": b"# pumps 1\n",
    "model.onnx": b"\0onnx",
}
SAID = {"org.opencontainers.image.title": "Pumpen, Größe 2", "reuna.release.digest": "ab" * 32}


def golden_text() -> str:
    files = oci.layout(ARTIFACT, "1", PARTS, SAID)
    digests = {name: sha256(data) for name, data in PARTS.items()}
    found = {
        "oci": {name: data.decode() for name, data in files.items()},
        "oci tar": sha256(pack(files)),
        "public key": model_signing.public_pem(KEY.public_key()).decode(),
        "model.sig": model_signing.sign("Pumpen, Größe 2 1", digests, KEY).decode(),
    }
    return json.dumps(found, indent=1) + "\n"


def test_the_published_bytes_are_those_of_the_golden_file() -> None:
    assert golden_text() == GOLDEN.read_text(encoding="utf-8")


def test_golden_exports_are_still_read() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    layout = {name: text.encode() for name, text in golden["oci"].items()}
    assert oci.read(layout.get, ARTIFACT).files == PARTS
    key = model_signing.read_public(golden["public key"].encode(), "golden")
    signed = model_signing.check(golden["model.sig"].encode(), key)
    assert signed == {name: sha256(data) for name, data in PARTS.items()}


if __name__ == "__main__":
    GOLDEN.write_text(golden_text(), encoding="utf-8")
