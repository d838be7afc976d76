"""Signing keys in files: PKCS#8, encrypted under a passphrase with scrypt and AES-256.

The encryption is PBES2 (RFC 8018) with scrypt (RFC 7914), which costs each guess 64 MiB. The
library reads this form but writes only weaker ones, so the few bytes of ASN.1 around the
ciphertext are put together here.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import padding, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from reuna.adapters.files import replace_file
from reuna.core.errors import KeyProblem

COST = 2**16  #: scrypt's N; with r = 8 it fills 64 MiB
_R = 8
_MEMORY = 256 * 1024 * 1024
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
MAX_KEY_FILE = 16 * 1024
_NAME_ONE = "Name the file of a private key, as `reuna policy key` and `reuna trust init` make them."

_PBES2 = "2a864886f70d01050d"  # 1.2.840.113549.1.5.13
_SCRYPT = "2b06010401da47040b"  # 1.3.6.1.4.1.11591.4.11
_AES256_CBC = "60864801650304012a"  # 2.16.840.1.101.3.4.1.42


def new_key() -> Ed25519PrivateKey:
    """A fresh Ed25519 key."""
    return Ed25519PrivateKey.generate()


def write_key(path: Path, key: Ed25519PrivateKey | EllipticCurvePrivateKey, passphrase: bytes | None) -> None:
    """Write a key that only its owner may read; without a passphrase in the clear.

    Raises `KeyProblem` when there is a file already: a key is never written over.
    """
    if path.exists():
        raise KeyProblem(f"{path} is there already", "Move it away first; a key is never written over.")
    clear = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    label, body = (
        ("PRIVATE KEY", clear) if passphrase is None else ("ENCRYPTED PRIVATE KEY", _lock(clear, passphrase))
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(path, _pem(label, body), 0o600)


def is_locked(path: Path) -> bool:
    """Whether a key file asks for a passphrase. Raises `KeyProblem` when it cannot be read."""
    return _ENCRYPTED in _read(path)


def read_key(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """The key in a file. Raises `KeyProblem`: not there, wrong passphrase, another kind of key."""
    key = _open(path, passphrase)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyProblem(f"{path} holds another kind of key than Ed25519", _NAME_ONE)
    return key


def read_export_key(path: Path, passphrase: bytes | None = None) -> EllipticCurvePrivateKey:
    """The key in a file that others made or `reuna release key`. Raises `KeyProblem`."""
    key = _open(path, passphrase)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise KeyProblem(
            f"{path} holds no key on an elliptic curve of NIST", "Make one: `reuna release key --out FILE`."
        )
    return key


def _open(path: Path, passphrase: bytes | None) -> object:
    data = _read(path)
    try:
        return serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if _ENCRYPTED in data:
            raise KeyProblem(
                f"{path} does not open: {error}", "Give the passphrase with which this key was made."
            ) from error
        raise KeyProblem(f"{path} is no private key", _NAME_ONE) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_KEY_FILE)
    except OSError as error:
        raise KeyProblem(f"no readable key in {path}: {error.strerror}", _NAME_ONE) from error


def _lock(clear: bytes, passphrase: bytes) -> bytes:
    """EncryptedPrivateKeyInfo of a PKCS#8 key."""
    salt, vector = secrets.token_bytes(16), secrets.token_bytes(16)
    key = hashlib.scrypt(passphrase, salt=salt, n=COST, r=_R, p=1, maxmem=_MEMORY, dklen=32)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES256(key), modes.CBC(vector)).encryptor()
    body = encryptor.update(padder.update(clear) + padder.finalize()) + encryptor.finalize()
    kdf = _sequence(_name(_SCRYPT), _sequence(_octets(salt), _integer(COST), _integer(_R), _integer(1)))
    cipher = _sequence(_name(_AES256_CBC), _octets(vector))
    return _sequence(_sequence(_name(_PBES2), _sequence(kdf, cipher)), _octets(body))


def _pem(label: str, body: bytes) -> bytes:
    lines = re.findall(".{1,64}", base64.b64encode(body).decode())
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


# --- ASN.1, DER (X.690): tag, length, content ------------------------------------------------------


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _sequence(*parts: bytes) -> bytes:
    return _der(0x30, b"".join(parts))


def _octets(content: bytes) -> bytes:
    return _der(0x04, content)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _name(content: str) -> bytes:
    return _der(0x06, bytes.fromhex(content))
