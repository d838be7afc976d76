"""`reuna.trust.model_signing`, `reuna.wire.oci`: exports of a release from wherever they come."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import ec

from fuzz.kit import attempt
from reuna.core.errors import Untrusted
from reuna.trust import model_signing
from reuna.wire import oci
from reuna.wire.archive import pack, unpack

KEY = ec.derive_private_key(1, ec.SECP256R1())
KIND = "application/vnd.reuna.release.v1"
SIGNED = {"card.md": "ab" * 32, "model.onnx": "cd" * 32}


def seeds() -> Iterator[bytes]:
    yield model_signing.sign("pump 1", SIGNED, KEY)
    yield pack(oci.layout(KIND, "1", {"a.json": b"{}", "b.onnx": b"1"}, {"reuna.release.run": "r-1"}))
    yield oci.layout(KIND, "1", {"a.json": b"[]"}, {})[oci.INDEX]


def check(data: bytes) -> None:
    signed = attempt(lambda: model_signing.check(data, KEY.public_key()), Untrusted)
    if signed is not None:
        assert signed == SIGNED, "only what was signed is taken"
    layout = attempt(lambda: dict(unpack(data, "layout")), Untrusted)
    files = layout if layout is not None else {**_good(), oci.INDEX: data}
    found = attempt(lambda: oci.read(files.get, KIND), Untrusted)
    if found is not None:
        again = oci.layout(KIND, "1", found.files, found.annotations)
        assert oci.read(again.get, KIND).files == found.files
        json.dumps(found.annotations)


def _good() -> dict[str, bytes]:
    return oci.layout(KIND, "1", {"a.json": b"[]"}, {})
