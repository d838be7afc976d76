"""What a parent is by its settings: its register, its authority, how it certifies, where machines enrol.

Apart from `Door`, which serves: a command that only invites or lists loads no server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reuna.adapters.certificates import CertificateAuthority
from reuna.adapters.register import Register
from reuna.exchange.enrolment import Terms
from reuna.exchange.storage import tables_of
from reuna.trust.enrolment import DAY

REGISTER = "register.sqlite"  #: in the state folder


def open_register(settings: Mapping[str, Any]) -> Register:
    """The register of a place. Raises as `reuna.exchange.storage.server_of`."""
    return Register(tables_of(settings, REGISTER))


def open_authority(settings: Mapping[str, Any]) -> CertificateAuthority:
    """The authority of a place. Raises `Corrupted`."""
    return CertificateAuthority.load(Path(settings["enrol.authority"]))


def terms_of(settings: Mapping[str, Any], role: str) -> Terms:
    """How a place certifies, from its settings."""
    return Terms(
        role, address_of(settings), settings["enrol.life_days"] * DAY, settings["enrol.grace_days"] * DAY
    )


def address_of(settings: Mapping[str, Any]) -> str:
    """Where machines enrol, as they see it."""
    address: str = settings["enrol.address"] or f"{settings['listen.host']}:{settings['enrol.port']}"
    return address


def host_of(settings: Mapping[str, Any]) -> str:
    """The host under which children reach this place."""
    return address_of(settings).rpartition(":")[0]
