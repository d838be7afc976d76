"""Passwords as Argon2id hashes in the PHC string format.

Cost: 19 MiB, two passes, one lane, the first choice of the OWASP Password Storage Cheat Sheet
(https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html, read 2026-11).
Argon2: RFC 9106.
"""

from __future__ import annotations

import secrets
from functools import cache

from cryptography.exceptions import InvalidKey, UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from reuna.core.errors import KeyProblem

MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
_SALT, _LENGTH = 16, 32


def hashed(password: str) -> str:
    """A new hash, with a salt of its own. Raises `KeyProblem` where Argon2 is missing."""
    try:
        work = Argon2id(
            salt=secrets.token_bytes(_SALT),
            length=_LENGTH,
            iterations=PASSES,
            lanes=LANES,
            memory_cost=MEMORY_KIB,
        )
    except UnsupportedAlgorithm as error:
        raise KeyProblem(
            "this build of cryptography has no Argon2id", "Install its wheel from PyPI."
        ) from error
    return work.derive_phc_encoded(password.encode())


def matches(password: str, kept: str | None) -> bool:
    """Whether it is the password; as slow for an account that is not there (None)."""
    try:
        Argon2id.verify_phc_encoded(password.encode(), kept or _nobody())
    except InvalidKey:
        return False
    return kept is not None


@cache
def _nobody() -> str:
    """What nobody's password matches."""
    return hashed(secrets.token_urlsafe(32))
