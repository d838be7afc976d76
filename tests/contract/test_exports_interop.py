"""Exports of a release in the hands of others: OpenSSF's own tool, skopeo and umoci.

The tool `model_signing` is in an environment of its own (`make test-extras`); skopeo and umoci are the system's.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reuna.core.errors import Untrusted
from reuna.fleet.release_export import export, read
from reuna.trust.model_signing import public_pem
from reuna.wire import release as wire
from tests.catalogues import add, release

ours = pytest.mark.skipif(
    importlib.util.find_spec("model_signing") is None, reason="model-signing is not installed"
)
needs = {
    tool: pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")
    for tool in ("skopeo", "umoci")
}
CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


def exported(folder: Path, form: str, name: str, key: ec.EllipticCurvePrivateKey | None = None) -> Path:
    data = release()
    export(add(folder / "releases", data).file(1), wire.decode(data), folder / name, form, key)
    return folder / name


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=100, env=quiet
    )


def tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "model_signing", *words)


@ours
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_openssfs_tool_accepts_what_we_sign_and_nothing_that_was_changed(
    tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = ec.generate_private_key(curve)
    folder, public = exported(tmp_path, "openssf", "out", key), tmp_path / "k.pub"
    public.write_bytes(public_pem(key.public_key()))
    check = ("verify", "key", folder, "--signature", folder / "model.sig", "--public_key", public)
    good = tool(*check)
    assert good.returncode == 0 and "succeeded" in good.stdout + good.stderr, good.stderr
    (folder / "card.md").write_text("another")
    assert tool(*check).returncode != 0


@ours
@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.name)
def test_we_accept_what_openssfs_tool_signs_and_nothing_that_was_changed(
    tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key, private = ec.generate_private_key(curve), tmp_path / "k.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    folder = exported(tmp_path, "openssf", "out", key)
    (folder / "model.sig").unlink()
    signed = tool("sign", "key", folder, "--private_key", private, "--signature", folder / "model.sig")
    assert signed.returncode == 0, signed.stderr
    assert read(folder, key.public_key()).data == release()
    (folder / "card.md").write_text("another")
    with pytest.raises(Untrusted):
        read(folder, key.public_key())


@needs["skopeo"]
@pytest.mark.parametrize(("name", "transport"), [("out", "oci"), ("out.tar", "oci-archive")])
def test_skopeo_copies_a_layout_and_the_copy_is_the_release(
    tmp_path: Path, name: str, transport: str
) -> None:
    found = exported(tmp_path, "oci", name)
    raw = run("skopeo", "inspect", "--raw", f"{transport}:{found}:1")
    assert '"artifactType":"application/vnd.reuna.release.v1"' in raw.stdout, raw.stderr
    done = run("skopeo", "--insecure-policy", "copy", f"{transport}:{found}:1", f"oci:{tmp_path}/copy:1")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "copy", None).data == release()


@needs["skopeo"]
def test_skopeo_refuses_a_layout_with_a_changed_blob(tmp_path: Path) -> None:
    found = exported(tmp_path, "oci", "out")
    largest = max((found / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"x")
    done = run("skopeo", "--insecure-policy", "copy", f"oci:{found}:1", f"oci:{tmp_path}/copy:1")
    assert done.returncode != 0


@needs["umoci"]
def test_umoci_finds_the_tag(tmp_path: Path) -> None:
    done = run("umoci", "ls", "--layout", exported(tmp_path, "oci", "out"))
    assert done.stdout.split() == ["1"], done.stderr
