"""An OCI image layout: what is read again is what was written, and every damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuna.core.errors import Untrusted
from reuna.wire import oci
from reuna.wire.build import canonical, sha256

KIND = "application/vnd.example.v1"
FILES = {"a.json": b"{}", "model.onnx": b"onnx", "none": b""}
NAMES = st.text("abc.-", min_size=1, max_size=9).filter(lambda name: name not in {".", ".."})


@given(
    st.dictionaries(NAMES, st.binary(max_size=50), max_size=5), st.dictionaries(NAMES, st.text(max_size=9))
)
def test_what_is_written_is_read_again_and_is_the_same_bytes_each_time(
    files: dict[str, bytes], said: dict[str, str]
) -> None:
    made = oci.layout(KIND, "1", files, said)
    assert made == oci.layout(KIND, "1", dict(reversed(files.items())), dict(reversed(said.items())))
    found = oci.read(made.get, KIND)
    assert (found.files, found.annotations) == (files, said)
    assert all(name.rpartition("/")[2] == sha256(data) for name, data in made.items() if "blobs" in name)


@given(st.data())
def test_no_byte_of_a_blob_may_change(data: st.DataObject) -> None:
    made = oci.layout(KIND, "1", FILES, {})
    name = data.draw(st.sampled_from(sorted(name for name in made if "blobs" in name and made[name])))
    changed = bytearray(made[name])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Untrusted) as found:
        oci.read({**made, name: bytes(changed)}.get, KIND)
    assert found.value.reason == "mismatch"


def with_manifest(change: Callable[[dict], None]) -> dict[str, bytes]:  # type: ignore[type-arg]
    """A layout whose manifest was changed, with the digests that belong to it."""
    made = oci.layout(KIND, "1", FILES, {})
    index = json.loads(made[oci.INDEX])
    manifest = json.loads(made[oci.BLOBS + index["manifests"][0]["digest"].partition(":")[2]])
    change(manifest)
    data = canonical(manifest)
    index["manifests"][0] |= {"digest": f"sha256:{sha256(data)}", "size": len(data)}
    return {**made, oci.BLOBS + sha256(data): data, oci.INDEX: canonical(index)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(artifactType="application/vnd.other"), "kind"),
        (lambda m: m["layers"][0]["annotations"].update({oci.TITLE: "../evil"}), "malformed"),
        (lambda m: m["layers"][0].pop("annotations"), "malformed"),
        (lambda m: m["layers"].append(m["layers"][0]), "malformed"),
        (lambda m: m["layers"][0].update(size=1), "mismatch"),
        (lambda m: m["layers"][0].update(digest=f"sha256:{'0' * 64}"), "missing"),
        (lambda m: m["layers"][0].update(digest="sha256:../../x"), "malformed"),
        (lambda m: m.update(layers=m["layers"] * 100), "malformed"),
    ],
)
def test_a_manifest_that_names_other_things_is_refused(
    change: Callable[[dict], None],  # type: ignore[type-arg]
    reason: str,
) -> None:
    with pytest.raises(Untrusted) as found:
        oci.read(with_manifest(change).get, KIND)
    assert found.value.reason == reason


@pytest.mark.parametrize("name", [oci.LAYOUT, oci.INDEX])
@pytest.mark.parametrize("data", [None, b"", b"[" * 9000, b"\xff", b" " * (oci.MAX_DOCUMENT + 1)])
def test_a_layout_without_its_documents_is_one_error(name: str, data: bytes | None) -> None:
    made = oci.layout(KIND, "1", FILES, {})
    with pytest.raises(Untrusted):
        oci.read(lambda each: data if each == name else made.get(each), KIND)


def test_two_manifests_are_not_one_release() -> None:
    made = oci.layout(KIND, "1", FILES, {})
    index = json.loads(made[oci.INDEX])
    index["manifests"] *= 2
    with pytest.raises(Untrusted, match="2 manifests"):
        oci.read({**made, oci.INDEX: canonical(index)}.get, KIND)
