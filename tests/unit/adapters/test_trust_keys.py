from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from reuna.adapters import trust_keys
from reuna.adapters.trust_keys import is_locked, new_key, read_key, write_key
from reuna.core.errors import KeyProblem


@pytest.mark.parametrize("passphrase", [None, b"correct horse", "pässi".encode(), b"x" * 300])
def test_a_key_comes_back_as_it_was_written_and_only_its_owner_may_read_it(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    key, path = new_key(), tmp_path / "keys" / "root-1.key"
    write_key(path, key, passphrase)
    assert read_key(path, passphrase).private_bytes_raw() == key.private_bytes_raw()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert is_locked(path) is (passphrase is not None)


def test_the_key_is_not_in_a_locked_file(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "root-1.key"
    write_key(path, key, b"correct horse")
    body = serialization.load_pem_private_key(path.read_bytes(), b"correct horse")
    assert body
    import base64

    raw = base64.b64decode("".join(path.read_text().splitlines()[1:-1]))
    assert key.private_bytes_raw() not in raw
    assert trust_keys.COST.to_bytes(3, "big") in raw


def test_two_locked_files_of_one_key_differ(tmp_path: Path) -> None:
    key = new_key()
    for name in ("a", "b"):
        write_key(tmp_path / name, key, b"p")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("passphrase", [None, b"", b"wrong"])
def test_a_wrong_passphrase_is_said(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "root-1.key"
    write_key(path, new_key(), b"right")
    with pytest.raises(KeyProblem, match="does not open"):
        read_key(path, passphrase)


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    write_key(tmp_path / "k", new_key(), None)
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(KeyProblem, match="is there already"):
        write_key(tmp_path / "k", new_key(), None)
    assert (tmp_path / "k").read_bytes() == before


@pytest.mark.parametrize("cut", [0, 10, 60, 150])
def test_a_damaged_key_is_said(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "k"
    write_key(path, new_key(), b"p")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(KeyProblem):
        read_key(path, b"p")


def test_a_missing_key_and_one_of_another_kind_are_said(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="no readable key"):
        read_key(tmp_path / "none")
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "ec").write_bytes(other)
    with pytest.raises(KeyProblem, match="another kind"):
        read_key(tmp_path / "ec")
