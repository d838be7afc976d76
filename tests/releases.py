"""Releases for tests: as small as one can be, and every digest in it right."""

from __future__ import annotations

from reuna.trust.targets import Target
from reuna.wire import digest_bytes
from reuna.wire.build import sha256
from reuna.wire.release import NEEDED, About, encode


def release(version: int, project: str = "pumps", more: bytes = b"") -> bytes:
    """The file of a release; ``more`` is in its model."""
    parts = dict.fromkeys(NEEDED, b"{}\n" + more)
    return encode(About(project, version, f"r-{version}", "0" * 64), parts)


def target(
    data: bytes, number: int, project: str = "pumps", name: str = "", where: tuple[str, ...] = ()
) -> Target:
    """How a release is listed."""
    path = f"releases/{name or f'{project}-{number}'}"
    return Target(
        path, "release", 1, len(data), digest_bytes(data), sha256(data), "", {}, project, number, where
    )
